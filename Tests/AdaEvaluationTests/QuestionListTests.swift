import Foundation
import Testing

@testable import AdaEvaluation
@testable import AdaLLaVA

@Suite struct QuestionListTests {
    private func open(_ json: String) async throws -> any Benchmark {
        try await Samples.withFolder { folder in
            let file = folder.appendingPathComponent("list.json")
            try Data(json.utf8).write(to: file)
            return try InstructionQuestions.open(file)
        }
    }

    @Test("instruction lists are read") func instructionListsAreRead() async throws {
        // A mismatch means that LLaVA's own files cannot be explained, or are asked something else than they hold.
        let list = try await open(
            """
            [{"id": "a", "image": "b/c.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat?"}, {"from": "gpt", "value": "This."},
              {"from": "human", "value": "And?"}, {"from": "gpt", "value": "That."}]},
             {"id": 7, "conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Me"}]}]
            """)
        #expect(list is InstructionQuestions && list.samples.map(\.question) == ["What?", "Who?"] && list.samples.map(\.references) == [["This."], ["Me"]])
        #expect(list.samples[1].image == nil)
        guard case .file(let url)? = list.samples[0].image else { throw CancellationError() }
        #expect(url.path.hasSuffix("/b/c.jpg"))
        #expect(list.score(" This.\n", for: list.samples[0]) == 1 && list.score("this.", for: list.samples[0]) == 0)
    }

    @Test("lists with tasks are scenes") func listsWithTasksAreScenes() async throws {
        // A mismatch means that captions of Scenes are scored by their words, not by what they name.
        let list = try await open(
            """
            [{"id": "a", "image": "c.jpg", "task": "caption", "conversations": [{"from": "human", "value": "<image>\\nDescribe"}, {"from": "gpt", "value": "x"}]}]
            """)
        #expect(list is ScenesBenchmark)
    }

    @Test("wrong lists say where", arguments: [
        ("{}", "an array"), ("[{}]", "conversations"), ("[{\"conversations\": []}]", "0 turns"), ("[3]", "conversations"), ("[", "json"),
        ("[{\"image\": \"../x\", \"conversations\": [{\"value\": \"a\"}, {\"value\": \"b\"}]}]", "below"),
        ("[{\"image\": [1], \"conversations\": [{\"value\": \"a\"}, {\"value\": \"b\"}]}]", "a text"),
    ]) func wrongListsSayWhere(json: String, part: String) async throws {
        // A mismatch means that a damaged list traps, leaves its folder, or that its message does not help.
        do {
            _ = try await open(json)
            Issue.record("expected an error for \(json)")
        } catch let error as any AdaLLaVAError {
            #expect(error.description.contains(part), "\(error.description)")
        }
    }
}
