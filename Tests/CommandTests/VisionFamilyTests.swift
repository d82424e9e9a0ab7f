import Foundation
import Testing

/// `adallava ask` with folders that transformers saved, in its own layout: each brings its template, tokenizer and processor.
@Suite struct VisionFamilyCommandTests {
    private struct Expected: Decodable {
        struct Case: Decodable {
            let pictures: [String]
            let question: String
            let greedy: [Int]
        }
        let cases: [Case]
    }

    @Test("The command gives the tokens that transformers gives", arguments: [
        "idefics3", "smolvlm", "llava", "llava-next", "llava-next-mistral", "qwen2-vl", "qwen2.5-vl", "lfm2-vl", "lfm2-vl-whole",
    ])
    func answers(family: String) throws {
        // A failure means that a person who saves a model with transformers gets other answers from the command line.
        let fixtures = Files.root.appendingPathComponent("Tests/Fixtures"), model = fixtures.appendingPathComponent("vision/\(family)")
        let expected = try JSONDecoder().decode(Expected.self, from: Data(contentsOf: model.appendingPathComponent("expected.json")))
        for item in [expected.cases[2], expected.cases[3], expected.cases[4]] {
            let pictures = item.pictures.map { fixtures.appendingPathComponent("images/\($0)").path }
            let result = try Command.run(
                ["ask"] + pictures + [item.question, "--model", model.path, "--precision", "f32", "--json", "--temp", "0", "-n", "64"])
            #expect(result.status == 0, "\(result.errors)")
            #expect(try result.json()["tokens"] as? [Int] == item.greedy, "\(item.question)")
        }
    }
}
