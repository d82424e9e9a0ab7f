import Foundation
import Testing

@testable import AdaEvaluation
@testable import AdaLLaVA

@Suite struct AnalyzerMachineTests {
    private func withFolder(_ body: (URL) throws -> Void) throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("ceilings-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        try body(folder)
    }

    // A failure means that every analysis on this machine measures again, or that damaged numbers from the cache are calculated with.
    @Test("ceilings are measured once and checked") func ceilingsAreMeasuredOnceAndChecked() throws {
        try withFolder { folder in
            var measured = 0
            let (first, problem) = try MachineCeilings.load(threads: 1, folder: folder) { measured += 1 }
            #expect(problem == nil && measured == 1)
            for rate in [first.bandwidth, first.int8, first.fp32, first.bf16 ?? 1, first.cacheBytes] { #expect(rate.isFinite && rate > 0) }
            let again = try MachineCeilings.load(threads: 1, folder: folder) { measured += 1 }.ceilings
            #expect(again == first && measured == 1)
            #expect(first.hardware.name == Hardware.thisMachine && first.hardware.int8 == first.int8)

            let files = try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
            #expect(files.count == 1)
            let file = try #require(files.first)
            let text = String(decoding: try Data(contentsOf: file), as: UTF8.self)
            for damage in ["{", text.replacingOccurrences(of: "\"bandwidth\" : ", with: "\"bandwidth\" : -")] {
                #expect(damage != text)
                try Data(damage.utf8).write(to: file)
                let repaired = try MachineCeilings.load(threads: 1, folder: folder).ceilings
                #expect(repaired.bandwidth > 0)
            }
        }
    }

    @Test("Ceilings of a busy machine are named as such, and measured again once it is quieter")
    func busyCeilings() throws {
        func ceilings(load: Double?) throws -> MachineCeilings {
            let load = load.map { ", \"load\": \($0)" } ?? ""
            return try JSONDecoder().decode(
                MachineCeilings.self,
                from: Data("{\"machine\": \"m\", \"threads\": 2, \"bandwidth\": 1, \"int8\": 1, \"fp32\": 1, \"cacheBytes\": 1\(load)}".utf8))
        }
        #expect(try ceilings(load: 2.5).caution?.contains("load 2.50") == true)
        // Quiet, or kept by a version that did not ask.
        #expect(try ceilings(load: 0.1).caution == nil && ceilings(load: nil).caution == nil)
        #expect(try ceilings(load: 2.5).isOutdone(by: 0.2) && !ceilings(load: 2.5).isOutdone(by: 2.4))
        #expect(try !ceilings(load: 0.1).isOutdone(by: 0) && !ceilings(load: nil).isOutdone(by: 0) && !ceilings(load: 9).isOutdone(by: nil))
    }

    // A failure means that a cache folder which cannot be written stops the analysis.
    @Test("unwritable cache is only a note") func unwritableCacheIsOnlyANote() throws {
        let (ceilings, problem) = try MachineCeilings.load(threads: 1, folder: URL(fileURLWithPath: "/dev/null/cache"))
        #expect(ceilings.bandwidth > 0 && problem != nil)
    }

    // A failure means that a wrong ending or a machine without gnuplot gives half a chart, or no word about what to install.
    @Test("chart errors say what to do") func chartErrorsSayWhatToDo() throws {
        let analysis = try CostAnalysis(
            model: .shape("llava-1.5-7b"), hardware: .named("nvidia_V100"), settings: CostSettings(promptTokens: 600), budget: 0.8)
        #expect(throws: EvaluationError.self) { try RooflineChart(analysis).draw(to: URL(fileURLWithPath: "/tmp/roofline.bmp")) }
        do {
            _ = try Gnuplot.locate(path: "/nowhere")
            Issue.record("gnuplot found in a folder that is not there")
        } catch let error as EvaluationError {
            #expect(error.description.contains("apt-get install gnuplot-nox"))
        }
    }

    // A failure means that numbers in the chart cover each other, or that an operation is missing from it.
    @Test("chart shows every operation once", arguments: CostFormula.allCases)
    func chartShowsEveryOperationOnce(formula: CostFormula) throws {
        let analysis = try CostAnalysis(
            model: .shape("llava-1.5-7b"), hardware: .named("nvidia_A100_80G"), settings: CostSettings(promptTokens: 600), budget: 0.8,
            formula: formula)
        for stage in [analysis.encode, analysis.prefill, analysis.decode].compactMap({ $0 }) {
            let names = RooflineChart.points(stage).flatMap { $0.name.components(separatedBy: ", ") }
            let wanted = stage.parts.flatMap(\.operations).filter { $0.operations > 0 }.map(\.name)
            #expect(Set(names) == Set(wanted))
        }
        let script = RooflineChart(analysis).script(to: "out.svg", format: .svg)
        #expect(script.contains("operations / byte") && script.contains("(Top/s)"))
        let places = script.split(separator: "\n").filter { $0.contains(" center font") }.compactMap { line -> (Double, Double)? in
            let words = line.split(whereSeparator: { $0 == " " || $0 == "," })
            let numbers = words.compactMap { Double($0) }
            return numbers.count >= 2 ? (numbers[0] * 1200, numbers[1] * 680) : nil
        }
        #expect(places.count > 10)
        for (index, place) in places.enumerated() {
            for other in places[..<index] { #expect(abs(place.0 - other.0) > 17 || abs(place.1 - other.1) > 14) }
        }
    }
}
