import Foundation
import Testing

@testable import AdaLLaVA

/// Gemma 3 270M against llama.cpp: `Tests/Fixtures/gemma3`. Runs where `scripts/fetch-gemma3.sh` has put the model.
@Suite(.enabled(if: RecordedAnswers.gemma3 != nil), .serialized)
struct Gemma3Tests {
    // A failure means that a published Gemma 3 answers otherwise than llama.cpp, and not only where rounding decides.
    @Test("greedy tokens are llama.cpp's") func greedyTokensAreLlamaCpps() throws {
        let recorded = try RecordedAnswers(file: "gemma3/q4_k_m.json"), url = try #require(RecordedAnswers.gemma3)
        for precision in [Precision.automatic, .f32] {
            let model = try GreedyModel(url, precision: precision)
            for (index, answer) in recorded.cases.enumerated() {
                let found = try model.answer(answer.promptIds, count: answer.generatedIds.count)
                let step = zip(found, answer.generatedIds).enumerated().first { $1.0 != $1.1 }?.offset
                if let step { print("\(precision) case \(index): first difference at step \(step), where llama.cpp's two best are \(answer.gap(step)) apart") }
                if let step { #expect(answer.gap(step) <= 0.1, "\(precision), case \(index), step \(step)") }
                #expect(found.count == answer.generatedIds.count)
            }
            print("Gemma 3 270M, \(precision):", try LogitComparison(model, recorded.cases).summary)
        }
    }

    // A failure means that texts become other tokens than llama.cpp makes of them.
    @Test("tokens are llama.cpp's") func tokensAreLlamaCpps() throws {
        let recorded = try RecordedAnswers(file: "gemma3/q4_k_m.json")
        let checkpoint = try Checkpoint.open(at: try #require(RecordedAnswers.gemma3))
        let text = try #require(try TextProcessor(checkpoint, template: nil))
        let lines = try String(contentsOf: RecordedAnswers.fixtures.appendingPathComponent("gemma3/prompts.jsonl"), encoding: .utf8).split(separator: "\n")
        #expect(lines.count == recorded.cases.count)
        for (line, answer) in zip(lines, recorded.cases) {
            let prompt = try JSONDecoder().decode(String.self, from: Data(line.utf8))
            #expect(text.tokenize(prompt: prompt) == answer.promptIds, "\(prompt.prefix(40))")
            #expect(text.tokenizer.decode(answer.generatedIds) == answer.generatedText)
        }
    }
}
