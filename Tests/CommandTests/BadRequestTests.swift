import Foundation
import Testing

/// Requests that cannot be answered: usage errors are told before a model is loaded where they can be.
@Suite struct BadRequestTests {
    // A failure means that a budget which makes no sense is answered under some other one.
    @Test("budgets that make no sense are refused", arguments: [
        ("0", "above 0"), ("-1", "budget -1"), ("2", "budget 2"), ("fast", "'fast'"), ("-4ms", "-4ms"),
        ("ttft:x", "ttft:x"), ("nan", "nan"), ("", "''"), ("101%", "1.01"),
    ])
    func budgets(budget: String, word: String) throws {
        for command in [["ask", Files.scene(), "What?"], ["chat"]] {
            try expectFailure(command + ["--budget", budget], status: 64, saying: [word, "fraction of full compute"])
        }
        try withTemporaryFolder { folder in
            let output = folder.appendingPathComponent("t.safetensors").path
            try expectFailure(
                ["trace", Files.fixture("ada-L").path, "--no-image", "--tokens", "1,2", "--budget", budget, "--output", output], status: 64,
                saying: [word])
            #expect(!FileManager.default.fileExists(atPath: output))
        }
    }

    // A failure means that a trace, whose copies take time of their own, is made under a plan that its times chose.
    @Test("traces take no times") func tracesTakeNoTimes() throws {
        try withTemporaryFolder { folder in
            let output = folder.appendingPathComponent("t.safetensors").path
            try expectFailure(
                ["trace", Files.fixture("ada-L").path, "--no-image", "--tokens", "1,2", "--budget", "400ms", "--output", output], status: 64,
                saying: ["400ms", "times and auto are not taken here", "fraction of full compute"])
            #expect(!FileManager.default.fileExists(atPath: output))
        }
    }

    static let requests: [(arguments: [String], first: String, second: String)] = [
        (["--no-image", "--tokens", Array(repeating: "5", count: 600).joined(separator: ",")], "601 positions", "512"),
        (["--no-image", "--tokens", "1,2,x"], "--tokens", "'x'"),
        (["--no-image", "--tokens", "1,,2"], "--tokens", "''"),
        (["--no-image", "--tokens", ""], "--tokens", "whole numbers"),
        (["--no-image", "--tokens", "1,320"], "token 320", "0 to 319"),
        (["--no-image", "--tokens", "1,-1"], "token -1", "position 1"),
        (["--no-image", "--tokens", "99999999999999999999"], "--tokens", "99999999999999999999"),
        (["--no-image", "--prompt", "Hello"], "ada-L has no tokenizer", "token ids"),
        (["--no-image", "--tokens", "-200,3"], "1 image mark", "0 images"),
        (["--image", Files.fixture("images/im0.png").path, "--tokens", "1,3"], "0 image marks", "1 image"),
        (["--no-image"], "--prompt", "--tokens"),
        (["--tokens", "1"], "--image", "--no-image"),
        (["--no-image", "--tokens", "1", "--max-tokens", "0"], "--max-tokens", "1 or more"),
        (["--no-image", "--tokens", "1", "--max-tokens", "-5"], "--max-tokens", "-5"),
        (["--no-image", "--tokens", "1", "--precision", "f8"], "--precision", "f8"),
    ]

    // A failure means that a request which the model cannot take traps, is cut short silently, or leaves a file behind.
    @Test("traces that the model cannot take are refused", arguments: requests)
    func traces(arguments: [String], first: String, second: String) throws {
        try withTemporaryFolder { folder in
            let output = folder.appendingPathComponent("t.safetensors").path
            try expectFailure(["trace", Files.fixture("ada-L").path, "--output", output] + arguments, status: 64, saying: [first, second])
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).isEmpty)
        }
    }

    // A failure means that a model which can only run whole pretends to save something.
    @Test("a budget for a model without a scheduler is refused") func budgetWithoutScheduler() throws {
        try withTemporaryFolder { folder in
            let output = folder.appendingPathComponent("t.safetensors").path
            try expectFailure(
                [
                    "trace", Files.fixture("llava-hf/old-layout").path, "--no-image", "--tokens", "1,2", "--budget", "0.5", "--output",
                    output,
                ], status: 64, saying: ["budget 0.5", "old-layout has no scheduler"])
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).isEmpty)
        }
    }

    static let wrongOptions: [(arguments: [String], word: String)] = [
        (["--threads", "0"], "--threads"), (["--threads", "1000"], "--threads"), (["--template", "nope"], "vicuna_v1"),
        (["--temperature", "-1"], "temperature"), (["--temperature", "nan"], "temperature"), (["--top-p", "0"], "top-p"),
        (["--top-p", "1.5"], "top-p"), (["--top-k", "-1"], "top-k"), (["--min-p", "2"], "min-p"),
        (["--repetition-penalty", "0"], "repetition-penalty"), (["--max-tokens", "0"], "max-tokens"), (["--seed", "x"], "seed"),
        (["--template", "plain", "--chat-template", "x"], "found both"), (["--bogus"], "--bogus"), (["--mmproj", Files.scene()], "mmproj"),
    ]

    // A failure means that a wrong option is ignored, or is an error of another kind than a wrong option.
    @Test("wrong options are usage errors", arguments: wrongOptions)
    func options(arguments: [String], word: String) throws {
        let status: Int32 = arguments[0] == "--mmproj" ? 65 : 64
        try expectFailure(["ask", Files.scene(), "What?"] + arguments, status: status, saying: [word])
    }

    // A failure means that kernels which were asked for by name are silently replaced.
    @Test("kernels that do not exist are refused") func kernels() throws {
        try expectFailure(
            ["ask", Files.scene(), "What?"], status: 64, saying: ["ADALLAVA_KERNELS=fastest", "portable"],
            environment: ["ADALLAVA_KERNELS": "fastest"])
    }

    // A failure means that results are lost without a word, or that half of them look whole.
    @Test("outputs that cannot be written are refused") func outputs() throws {
        let request = ["trace", Files.fixture("ada-L").path, "--no-image", "--tokens", "1,2", "--output"]
        try expectFailure(request + ["/nowhere/t.safetensors"], status: 74, saying: ["/nowhere", "cannot be written"])
        try withTemporaryFolder { folder in
            try expectFailure(request + [folder.path], status: 74, saying: [folder.lastPathComponent, "it is a folder"])
        }
    }

    #if os(Linux)
        // A failure means that an answer which never reached its file counts as given.
        @Test("a full disk is an error") func fullDisk() throws {
            let process = Command.process(["ask", Files.scene(), "What?"])
            process.standardOutput = FileHandle(forWritingAtPath: "/dev/full")
            let errors = Pipe()
            process.standardError = errors
            try process.run()
            let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            process.waitUntilExit()
            #expect(process.terminationStatus == 74)
            #expect(text.contains("standard output cannot be written"))
        }
    #endif

    // A failure means that someone who forgets the question is answered about nothing.
    @Test("a missing question is a usage error") func missingQuestion() throws {
        try expectFailure(["ask"], status: 64, saying: ["question"])
        try expectFailure(["ask", Files.scene()], status: 64, saying: ["expected a question", "00.png"])
        try expectFailure(["ask", "-"], status: 64, saying: ["expected a question"])
        try expectFailure(["bogus"], status: 64, saying: ["bogus"])
    }
}
