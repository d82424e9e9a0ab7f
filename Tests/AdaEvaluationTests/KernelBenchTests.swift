import Foundation
import Testing

@testable import AdaEvaluation
@testable import AdaLLaVA

@Suite struct KernelBenchTests {
    /// Layers so small that everything is measured in a moment.
    private static func bench(vision: Bool = false) -> KernelBench {
        let language = DecoderConfiguration(
            vocabularySize: 128, hiddenSize: 64, intermediateSize: 96, numHiddenLayers: 2, numAttentionHeads: 4, numKeyValueHeads: 2)
        let tower = VisionConfiguration(
            hiddenSize: 64, intermediateSize: 96, numHiddenLayers: 2, numAttentionHeads: 4, imageSize: 28, patchSize: 14)
        var bench = KernelBench(
            shape: AnalyzedModel(name: "tiny", configuration: ModelConfiguration(language: language, vision: vision ? tower : nil)))
        (bench.repeats, bench.promptTokens, bench.depth, bench.streamedBytes) = (2, 9, 20, 1 << 20)
        bench.ceilingTime = .milliseconds(3)
        return bench
    }

    private static let environment = ExperimentEnvironment(package: "tests")

    // A failure means that operations are held against ceilings that were never reached, or divided by zero.
    @Test("measured ceilings are positive") func ceilingsArePositive() throws {
        let measured = try CeilingMeasurement.measure(threads: 1, time: .milliseconds(3), bufferBytes: 4 << 20)
        for rate in [measured.bandwidth, measured.int8, measured.fp32, measured.bf16 ?? 1] { #expect(rate.isFinite && rate > 0) }
        #expect(measured.threads == 1 && CeilingMeasurement.lastLevelCache > 0)
    }

    // A failure means that a layer's operation, a weight type or a number of threads is left out, or measured under another's name.
    @Test("every operation, weight type and number of threads is measured once") func measuresEverythingOnce() throws {
        var bench = Self.bench(vision: true)
        bench.threads = [1, 2]
        var seen: [ExperimentProgress] = []
        let report = try bench.run(environment: Self.environment) { seen.append($0) }
        #expect(report.ceilings.map(\.threads) == [1, 2] && !report.repeats.wasStopped)
        #expect(seen.count == report.repeats.asked && seen.allSatisfy { $0.total == report.repeats.asked })
        let names = report.results.map { "\($0.threads) \($0.part) \($0.operation) \($0.type ?? "") \($0.tokens)" }
        #expect(Set(names).count == names.count)
        for type in KernelBench.packedTypes {
            for threads in [1, 2] {
                let products = report.results.filter { $0.part == .products && $0.type == type.rawValue && $0.threads == threads }
                #expect(products.map(\.operation) == ["q k v", "q k v", "o", "o", "gate up", "gate up", "down", "down", "output", "tower q k v", "tower o", "tower fc1", "tower fc2"])
            }
        }
        #expect(KernelBench.packedTypes.contains(.q8_0))
        for result in report.results {
            #expect(result.microseconds.count == 2 && result.microseconds.minimum > 0)
            switch result.part {
            case .products, .attention: #expect((result.share ?? 0) > 0 && result.bound == (result.tokens == 1 ? "memory" : result.bound) && result.bound != nil)
            case .pool, .elementwise: #expect(result.share == nil)
            }
        }
    }

    // A failure means that programs cannot read what people see.
    @Test("reports the same in every form") func reportsTheSameInEveryForm() throws {
        var bench = Self.bench()
        bench.types = [.q8_0]
        let report = try bench.run(environment: Self.environment)
        let results = report.json.details.results
        #expect(results.count == report.results.count && !results.isEmpty)
        #expect((report.json.details.ceilings.first?.bandwidth ?? 0) > 0)
        let bf16 = report.ceilings.contains { $0.bf16 != nil }
        #expect(report.csv.split(separator: "\n").count == 1 + (bf16 ? 4 : 3) + results.count)
        let text = (report.headerLines + report.lines).joined(separator: "\n")
        for word in ["tiny", "empty run", "gate up", "attention", "rms_norm", "argmax", "% memory", "int8 GOPS"] { #expect(text.contains(word), "\(word)") }
        let script = report.chartScript(to: "out.svg", format: .svg)
        #expect(script.contains("gate up, q8_0, 1 token") && !script.contains("nan"))
    }

    // A failure means that nonsense is measured for minutes, or traps.
    @Test("refuses what cannot be measured") func refusesWhatCannotBeMeasured() throws {
        func expectRefusal(_ change: (inout KernelBench) -> Void) {
            var bench = Self.bench()
            change(&bench)
            #expect(throws: EvaluationError.self) { try bench.validate() }
        }
        expectRefusal { $0.repeats = 0 }
        expectRefusal { $0.promptTokens = 1 }
        expectRefusal { $0.depth = 0 }
        expectRefusal { $0.streamedBytes = 0 }
        expectRefusal { $0.types = [.q6_K] }
        #expect(throws: EvaluationError.self) { try KernelBench.shape("70b") }
        #expect(try KernelBench.shape("7B").configuration.vision != nil)
    }

    // A failure means that Ctrl-C throws away what was measured.
    @Test("stops with what is there") func stopsWithWhatIsThere() async throws {
        let task = Task { () -> KernelReport in
            var bench = Self.bench()
            bench.types = [.f32]
            return try bench.run(environment: Self.environment) { progress in
                if progress.done == 3 { withUnsafeCurrentTask { $0?.cancel() } }
            }
        }
        let report = try await task.value
        #expect(report.repeats.wasStopped && report.repeats.done == 4 && report.results.count == 3)
    }
}
