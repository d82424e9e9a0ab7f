import AdaImages
import AdaLLaVA
import Foundation
import Testing

@testable import AdaTraining

@Suite struct InstructionDatasetTests {
    private let question = #"{"from": "human", "value": "<image>\nWhat {is} \"it\"? ]"}"#
    private let answer = #"{"from": "gpt", "value": "a \\ backslash"}"#

    private func dataset(_ text: String, name: String = "d.json") throws -> (InstructionDataset, TemporaryFolder) {
        let folder = try TemporaryFolder()
        return (try InstructionDataset(files: [folder.write(text, to: name)], imageFolder: nil), folder)
    }

    @Test("reads arrays and lines") func readsArraysAndLines() throws {
        // A mismatch means that samples are lost or cut where strings hold braces, quotes or backslashes.
        let samples = [
            #"{"id": "a", "image": "x/1.png", "conversations": [\#(question), \#(answer)]}"#,
            #"{"id": 7, "conversations": [\#(answer), \#(question), \#(answer)]}"#,
            #"{"image": null, "extra": {"image": "no"}, "conversations": [\#(question), \#(answer)]}"#,
        ]
        for text in ["[\(samples.joined(separator: ",\n"))]\n", samples.joined(separator: "\n"), "\u{FEFF}[ \(samples.joined(separator: " , ")) ]"] {
            let (data, folder) = try dataset(text)
            try #require(data.count == 3)
            #expect(try data.record(0) == InstructionRecord(id: "a", images: ["x/1.png"], turns: ["<image>\nWhat {is} \"it\"? ]", "a \\ backslash"]))
            #expect(try data.record(1).id == "7" && data.record(1).turns.count == 2)
            #expect(try data.record(2).id == "#2" && data.record(2).images.isEmpty)
            #expect((0 ..< 3).map { data.length($0).hasImage } == [true, false, false])
            #expect(data.url("x/1.png", of: 0).path == folder.url.appendingPathComponent("x/1.png").path)
        }
    }

    @Test("broken files are errors", arguments: ["", "[", "{}{", "[{}", "[{} {}]", "[1]", "[{}],", "text", "[{\"a\": \"", "{\"a\": \"\\"]) func brokenFilesAreErrors(text: String) {
        // A mismatch means that a cut-off download is trained on as if it were whole, or ends the process.
        #expect { _ = try dataset(text) } throws: { $0 is any AdaLLaVAError }
    }

    @Test("broken samples are named", arguments: [
        "{}", #"{"conversations": []}"#, #"{"conversations": [{"from": "human"}]}"#, #"{"conversations": 3}"#, #"{"image": 5, "conversations": []}"#,
        #"{"conversations": [{"from": "human", "value": "a"}, {"from": "human", "value": "b"}]}"#, #"{"id": "x" "y"}"#,
        #"{"conversations": [{"from": "human", "value": "a"}]}"#,
    ]) func brokenSamplesAreNamed(text: String) throws {
        // A mismatch means that a broken sample stops a run without saying which it is.
        let (data, _) = try dataset("[{\"id\": \"good\"}, \(text)]")
        #expect { try data.record(1) } throws: { "\($0)".contains("sample 1") }
    }

    @Test("random bytes never trap") func randomBytesNeverTrap() throws {
        // A mismatch means that a damaged data file can end the process.
        var generator = SplitMix64(seed: 3)
        let alphabet = Array(#"{}[]",:\ abc0nimage"#.utf8)
        for _ in 0 ..< 400 {
            let text = String(decoding: (0 ..< Int(generator.next() % 60) + 1).map { _ in alphabet[Int(generator.next() % UInt64(alphabet.count))] }, as: UTF8.self)
            guard let (data, _) = try? dataset("{" + text) else { continue }
            for number in 0 ..< data.count { _ = try? data.record(number) }
        }
    }

    @Test("orders hold every sample once") func ordersHoldEverySampleOnce() {
        // A mismatch means that samples are trained on twice in a pass, or never, or that two processes take the same ones.
        let order = EpochOrder(count: 103, seed: 1, epoch: 0)
        #expect(order.numbers.sorted() == Array(0 ..< 103))
        #expect(order.numbers != EpochOrder(count: 103, seed: 1, epoch: 1).numbers)
        let taken = (0 ..< 13).flatMap { step in (0 ..< 2).flatMap { order.samples(step: step, stepSize: 8, rank: $0, worldSize: 2) } }
        #expect(taken == order.numbers)

        let lengths = (0 ..< 200).map { (words: $0 * 7 % 50, hasImage: $0 % 3 == 0) }
        let grouped = EpochOrder(lengths: lengths, stepSize: 8, seed: 1, epoch: 0)
        #expect(grouped.numbers.sorted() == Array(0 ..< 200))
        for step in 0 ..< 200 / 8 - 2 {
            let kinds = Set(grouped.samples(step: step, stepSize: 8, rank: 0, worldSize: 1).map { lengths[$0].hasImage })
            #expect(kinds.count == 1)
        }
    }

    @Test("budgets are uniform over units") func budgetsAreUniformOverUnits() throws {
        // A mismatch means that some budgets are hardly trained, so that the model fails when asked for them.
        let run = try SmallRun()
        let source = try ModelSource(run.recipe)
        let data = try run.folder.write(#"[{"id": "t", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "no"}]}]"#, to: "t.json")
        let builder = SampleBuilder(
            dataset: try InstructionDataset(files: [data], imageFolder: nil), tokenizer: source.tokenizer,
            assembly: SampleAssembly(rowsPerImage: 64, adaptive: true, maximumLength: 512), imageProcessor: try source.makeImageProcessor(),
            aspect: .pad, units: source.units, budgets: .uniform, seed: 5)
        var counts = [Int](repeating: 0, count: 5)
        for epoch in 0 ..< 2000 { counts[try builder.sample(0, epoch: epoch).units] += 1 }
        for count in counts { #expect((300 ... 500).contains(count)) }
        #expect(try builder.sample(0, epoch: 3) == builder.sample(0, epoch: 3))
    }

    @Test("A damaged image that Pillow reads is trained on and counted") func damagedImagesAreTrainedOn() throws {
        // A failure means that a run ends at a file that LLaVA's trainer reads, or that nobody learns of it.
        let run = try SmallRun()
        let source = try ModelSource(run.recipe)
        let images = Fixtures.folder.appendingPathComponent("image-files")
        let file = try run.folder.write(
            #"[{"id": "d", "image": "damaged-checksum.png", "conversations": [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "no"}]}]"#,
            to: "d.json")
        let damaged = DamagedImages()
        let builder = SampleBuilder(
            dataset: try InstructionDataset(files: [file], imageFolder: images), tokenizer: source.tokenizer,
            assembly: SampleAssembly(rowsPerImage: 64, adaptive: true, maximumLength: 512), imageProcessor: try source.makeImageProcessor(),
            aspect: .pad, units: source.units, budgets: .uniform, seed: 5, damaged: damaged)
        let sample = try builder.sample(0, epoch: 0)
        _ = try builder.sample(0, epoch: 1)
        #expect(sample.images == 1 && Set(sample.pixels).count > 10 && damaged.count == 1)
    }

    @Test("bad samples say why") func badSamplesSayWhy() throws {
        // A mismatch means that samples without a scored token, or with a missing image, reach the loss.
        let run = try SmallRun()
        let source = try ModelSource(run.recipe)
        func failure(_ image: String?, _ question: String, _ answer: String, length: Int = 512) -> String {
            do {
                let image = image.map { "\"image\": \"\($0)\"," } ?? ""
                let file = try run.folder.write(
                    #"[{"id": "bad-one", \#(image) "conversations": [{"from": "human", "value": "\#(question)"}, {"from": "gpt", "value": "\#(answer)"}]}]"#, to: "b.json")
                let builder = SampleBuilder(
                    dataset: try InstructionDataset(files: [file], imageFolder: URL(fileURLWithPath: run.recipe.imageFolder)),
                    tokenizer: source.tokenizer, assembly: SampleAssembly(rowsPerImage: 64, adaptive: true, maximumLength: length),
                    imageProcessor: try source.makeImageProcessor(), aspect: .pad, units: source.units, budgets: .uniform, seed: 5)
                _ = try builder.sample(0, epoch: 0)
                return ""
            } catch {
                return "\(error)"
            }
        }
        #expect(failure("00.png", "<image>What?", "no").isEmpty)
        #expect(failure("none.png", "<image>What?", "no").contains("none.png"))
        #expect(failure("00.png", "What?", "no").contains("0 <image> marks for 1 images"))
        #expect(failure("00.png", "<image>What?", "no", length: 40).contains("no token of it is scored"))
        #expect(failure(nil, "What? ASSISTANT: ha", "no").contains("bad-one"))
    }
}
