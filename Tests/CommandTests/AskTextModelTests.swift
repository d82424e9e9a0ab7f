import Foundation
import Testing

/// `adallava ask` on saved folders of text models with a tokenizer and a chat template of their own, recorded by `Tests/Tools/record_decoders.py`.
@Suite struct AskTextModelTests {
    private struct Conversation: Decodable {
        let question: String
        let tokens: [Int]
        let greedy: [Int]
        let text: String
    }

    // A mismatch means that a person who asks a saved model gets other tokens than transformers' template, tokenizer and greedy `generate` give.
    @Test("answers as transformers does", arguments: ["gemma3", "lfm2"]) func answersAsTransformersDoes(folder: String) throws {
        let url = Files.fixture("decoders/\(folder)")
        let conversations = try JSONDecoder().decode([Conversation].self, from: Data(contentsOf: url.appendingPathComponent("conversations.json")))
        #expect(conversations.count == 2)
        for item in conversations {
            let result = try Command.run(
                "ask", "--model", url.path, item.question, "--precision", "f32", "--max-tokens", "64", "--json")
            #expect(result.status == 0, "\(result.errors)")
            let object = try result.json()
            #expect(object["tokens"] as? [Int] == item.greedy)
            #expect(object["answer"] as? String == item.text)
        }
    }
}
