import Foundation
import Testing

@testable import adallava

/// What users of llama.cpp and mlx-vlm type, and what is said to a mistyped word.
@Suite struct HabitsTests {
    private static let model = Files.referenceModel.path
    private static let question = "How many things are in the image?"

    private func ask(_ arguments: [String], input: Data = Data(), environment: [String: String] = [:]) throws -> String {
        let result = try Command.run(["ask"] + arguments, input: input, environment: environment)
        #expect(result.status == 0, "\(arguments): \(result.errors)")
        return result.output
    }

    @Test("Short flags, --image, --prompt, --file and standard input ask the same question")
    func sameQuestion() throws {
        let picture = Files.scene("00")
        let expected = try ask([picture, Self.question, "--model", Self.model, "--max-tokens", "5", "--threads", "1", "--temperature", "0"])
        #expect(!expected.isEmpty)
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("question.txt")
            try Data((Self.question + "\n").utf8).write(to: file)
            let flags = ["-m", Self.model, "-n", "5", "-t", "1", "--temp", "0"]
            for arguments in [
                ["-p", Self.question, "--image", picture], ["--prompt", Self.question, picture], ["-f", file.path, "--image", picture],
                ["--file", file.path, picture], ["--image", picture, Self.question],
            ] {
                #expect(try ask(arguments + flags) == expected, "\(arguments)")
            }
            for arguments in [[picture, "-"], ["--image", picture, "-"], ["-f", "-", "--image", picture]] {
                #expect(try ask(arguments + flags, input: Data((Self.question + "\n").utf8)) == expected, "\(arguments)")
            }
            let image = try Data(contentsOf: URL(fileURLWithPath: picture))
            #expect(try ask(["--image", "-", "-p", Self.question] + flags, input: image) == expected)
            try expectFailure(["ask", picture, "-"] + flags, status: 64, saying: ["expected a question", "standard input"], input: Data(" \n".utf8))
            try expectFailure(["ask", picture, "-"] + flags, status: 65, saying: ["UTF-8", "standard input"], input: image)
            try expectFailure(["ask", picture, "-f", folder.appendingPathComponent("none").path] + flags, status: 66, saying: ["none: no such file"])
            try expectFailure(["ask", picture, "-f", folder.path] + flags, status: 74, saying: ["it is a folder; expected a file with the question"])
        }
    }

    @Test("A question that is empty, unquoted or missing is refused with what to type", arguments: [
        ([Files.scene(), ""], "expected a question, found an empty text"), ([Files.scene(), "  "], "only blanks"),
        (["-p", "", Files.scene()], "an empty text"), ([Files.scene(), "What", "is", "there?"], "needs quotes: \"What is there?\""),
        (["What", "is", "there?"], "needs quotes: \"What is there?\""), (["photo.jpg"], "expected an image and a question"),
        (["--image", Files.scene()], "expected a question after the image"), (["-", "-"], "standard input once"),
        (["-p", "a", "-f", "b"], "not both"), (["What?", Files.scene()], "images before the question, found \(Files.scene())"),
        (["What", "is", "it?", Files.scene()], "ask \(Files.scene()) \"What is it?\""), (["What?", "none.png"], "images before the question, found none.png"),
        ([Files.scene(), "What?", "-ngl", "99"], "unknown option '-ngl'"), ([Files.scene(), "What is it?", "-fa"], "unknown option '-fa'"),
        (["What", "is", "in", "none.png"], "needs quotes: \"What is in none.png\""),
    ] as [([String], String)])
    func refusedQuestions(arguments: [String], words: String) throws {
        try expectFailure(["ask"] + arguments, status: 64, saying: [words])
    }

    @Test("A mistyped command or option is answered with the one that is meant", arguments: [
        (["evaluate"], "'adallava eval'"), (["analyse"], "'adallava analyze'"), (["bench", "swep"], "'adallava bench sweep'"), (["run", "x"], "'adallava ask'"),
        (["quantize"], "'adallava convert'"), (["zzzzzzzz"], "there are ask, chat"), (["eval", "--tasks", "scenes"], "did you mean '--task'?"),
        (["ask", "--images", "x", "y"], "did you mean '--image'?"), (["ask", "x", "--budgets", "1"], "did you mean '--budget'?"),
        (["bench", "throughput", "--prompt", "600"], "did you mean '--prompt-tokens'?"), (["analyze", "--prompt", "600"], "did you mean '--prompt-tokens'?"),
        (["ask", "x", "--modle", "y"], "did you mean '--model'?"), (["help", "aks"], "did you mean 'adallava help ask'?"),
        (["help", "bench", "swep"], "did you mean 'adallava help bench sweep'?"),
    ] as [([String], String)])
    func suggestions(arguments: [String], words: String) throws {
        try expectFailure(arguments, status: 64, saying: [words])
    }

    @Test("--verbose names the file and the kernels on standard error")
    func verbose() throws {
        let result = try Command.run("ask", Files.scene(), "What?", "-m", Self.model, "-n", "1", "-v", "-t", "1")
        #expect(result.status == 0 && result.errors.contains("file: \(Self.model)") && result.errors.contains("kernels: ") && result.errors.contains("1 thread,"))
    }

    @Test("--format means the same in every command that has it")
    func formats() throws {
        for command in [["analyze", "--shape", "smollm2-135m"], ["bench", "kernels", "--parts", "none", "--repeat", "1", "--threads", "1"]] {
            let (csv, table) = (try Command.run(command + ["--format", "csv"]), try Command.run(command))
            #expect(csv.status == 0 && csv.output.split(separator: "\n")[0].contains(","), "\(csv.errors)")
            #expect(table.status == 0 && table.output.split(separator: "\n")[0] != csv.output.split(separator: "\n")[0])
            #expect(try Command.run(command + ["--format", "json"]).json().isEmpty == false)
            try expectFailure(command + ["--format", "csv", "--json"], status: 64, saying: ["--format csv", "--json"])
        }
    }

    @Test("Models are found by name: those that ship, in ADALLAVA_MODELS, and in the Hugging Face cache")
    func names() throws {
        try withTemporaryFolder { folder in
            let models = folder.appendingPathComponent("models")
            let manager = FileManager.default
            try manager.createDirectory(at: models.appendingPathComponent("mine"), withIntermediateDirectories: true)
            try manager.copyItem(at: Files.referenceModel, to: models.appendingPathComponent("mine/small"))
            let found = try Command.run(["inspect", "mine/small"], environment: ["ADALLAVA_MODELS": models.path])
            #expect(found.status == 0 && found.output.contains("problem       none"), "\(found.errors)")
            #expect(try Command.run("inspect", "scenes/H").output.contains("variant H"))

            // The hub's layout: a branch names a snapshot.
            let cache = folder.appendingPathComponent("hf/hub/models--someone--small")
            let snapshot = cache.appendingPathComponent("snapshots/0123abc")
            try manager.createDirectory(at: cache.appendingPathComponent("refs"), withIntermediateDirectories: true)
            try manager.createDirectory(at: cache.appendingPathComponent("snapshots"), withIntermediateDirectories: true)
            try Data("0123abc".utf8).write(to: cache.appendingPathComponent("refs/main"))
            try manager.copyItem(at: Files.referenceModel, to: snapshot)
            let home = ["HF_HOME": folder.appendingPathComponent("hf").path, "HF_HUB_CACHE": "", "HUGGINGFACE_HUB_CACHE": ""]
            let cached = try Command.run(["ask", Files.scene(), Self.question, "-m", "someone/small", "-n", "2", "-v"], environment: home)
            #expect(cached.status == 0 && cached.errors.contains("snapshots/0123abc"), "\(cached.errors)")
            try expectFailure(
                ["ask", "hi", "-m", "someone/other"], status: 66, saying: ["someone/other", "hf download someone/other", "hf/hub"], environment: home)
            try expectFailure(
                ["ask", "hi", "-m", "someone/other/q4/m.gguf"], status: 66, saying: ["hf download someone/other q4/m.gguf", "hf/hub"], environment: home)
            // Without HF_HOME, in the home folder that the environment names.
            let user = folder.appendingPathComponent("user/.cache")
            try manager.createDirectory(at: user, withIntermediateDirectories: true)
            try manager.createSymbolicLink(at: user.appendingPathComponent("huggingface"), withDestinationURL: folder.appendingPathComponent("hf"))
            let own = ["HOME": folder.appendingPathComponent("user").path, "XDG_CACHE_HOME": "", "HF_HOME": "", "HF_HUB_CACHE": "", "HUGGINGFACE_HUB_CACHE": ""]
            let atHome = try Command.run(["inspect", "someone/small"], environment: own)
            #expect(atHome.status == 0 && atHome.output.contains("problem       none"), "\(atHome.errors)")
            // A path is no repository.
            try expectFailure(["ask", "hi", "-m", ""], status: 64, saying: ["an empty name"])
            try expectFailure(["ask", "hi", "-m", "folder/model.gguf"], status: 66, saying: ["model.gguf: no such file (expected a checkpoint folder"], environment: home)
        }
    }

    @Test("A limit in milliseconds needs its unit, a shape's message names no other command's flag, a text model has no plans")
    func messages() throws {
        try expectFailure(["analyze", "--shape", "llava-1.5-7b", "--fit", "60"], status: 64, saying: ["--fit", "with its unit", "60ms"])
        let shape = try Command.run("bench", "kernels", "--shape", "foo")
        #expect(shape.status == 64 && shape.errors.contains("llava-1.5-7b") && shape.errors.contains("7b") && !shape.errors.contains("--config"))
        let plain = Files.fixture("llava-hf/old-layout").path
        try expectFailure(
            ["explain", "--image", Files.scene(), "--prompt", "What?", "--model", plain], status: 64, saying: ["a model with a scheduler", "old-layout"])
    }

    @Test("A model file that is cut off is named as such, with how much of it is there")
    func cutOff() throws {
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("m.gguf")
            let made = try Command.run("convert", Files.referenceModel.path, file.path, "--to", "q4_1")
            #expect(made.status == 0, "\(made.errors)")
            let whole = try Data(contentsOf: file)
            try whole.prefix(whole.count / 2).write(to: file)
            try expectFailure(["ask", "hi", "-m", file.path], status: 65, saying: ["cut off: \(whole.count / 2) bytes of at least", "download"])
            try whole.prefix(300).write(to: file)
            try expectFailure(["ask", "hi", "-m", file.path], status: 65, saying: ["cut off", "download"])
        }
    }

    @Test("A file's own bits are what the analyzer counts; --weight-bits replaces them")
    func weightBits() throws {
        try withTemporaryFolder { folder in
            for (type, bits) in [("q8_0", 8.5), ("q4_1", 5), ("f32", 32)] as [(String, Double)] {
                let file = folder.appendingPathComponent("\(type).gguf").path
                #expect(try Command.run("convert", Files.referenceModel.path, file, "--to", type).status == 0)
                let settings = try #require(try Command.run("analyze", "--model", file, "--formula", "exact", "--json").json()["settings"] as? [String: Any])
                #expect(settings["weight_bits"] as? Double == bits, "\(type)")
                let given = try Command.run("analyze", "--model", file, "--weight-bits", "4", "--json").json()["settings"] as? [String: Any]
                #expect(given?["weight_bits"] as? Double == 4)
            }
            let table = try Command.run("analyze", "--model", folder.appendingPathComponent("q8_0.gguf").path, "--formula", "exact")
            #expect(table.output.contains("weights 8.5,"))
            // Every row says what limits it, sums too.
            let rows = table.output.split(separator: "\n").filter { $0.hasPrefix("prefill  all") || $0.hasPrefix("decode ") }
            #expect(rows.count == 2 && rows.allSatisfy { $0.contains("memory") || $0.contains("compute") }, "\(table.output)")
        }
    }
}
