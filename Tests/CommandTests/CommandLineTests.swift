import Foundation
import Testing

@testable import adallava

/// What people type: texts that begin with a dash, names of files that are no UTF-8, and what a terminal is shown of both.
@Suite(.serialized) struct CommandLineTests {
    /// A copy of a fixture with a tokenizer, so that questions can be asked of it.
    private func withModel(_ body: (URL) throws -> Void) throws {
        try Files.withCopy(of: "ada-L") { model in
            try FileManager.default.copyItem(
                at: Files.fixture("tokenizer/tok320/tokenizer.model"), to: model.appendingPathComponent("tokenizer.model"))
            try body(model)
        }
    }

    // A mismatch means that a question which begins with a dash is taken for options, or ends in the help.
    @Test("questions with a dash", arguments: ["- is there a dog?", "-5?", "-what", "-h?", "--is it?", "---"]) func questionsWithADash(question: String) throws {
        try withModel { model in
            let picture = Files.scene()
            let options = ["--model", model.path, "--max-tokens", "3", "--json"]
            let expected = try Command.run(["ask"] + options + ["--", picture, question])
            #expect(expected.status == 0, "\(expected.errors)")
            for arguments in [["ask", picture, question] + options, ["ask"] + options + [picture, question], ["ask", picture] + options + [question]] {
                let found = try Command.run(arguments)
                #expect(found.status == 0, "\(found.errors)")
                #expect(try found.json()["answer"] as? String == expected.json()["answer"] as? String)
                #expect(try found.json()["prompt_tokens"] as? Int == expected.json()["prompt_tokens"] as? Int)
            }
        }
    }

    // A failure means that a mistyped option prints the help and looks like success.
    @Test("bundles never end in help", arguments: [["-xh"], ["ask", "-xh"], ["ask", "-help", "hi"], ["chat", "-ih"], ["inspect", "-mh", "x"], ["chat", "--image", "-h", "-xh"]])
    func bundlesNeverEndInHelp(arguments: [String]) throws {
        try expectFailure(arguments, status: 64, saying: ["Error: "])
    }

    // A failure means that nobody is told how to ask a question that looks like an option.
    @Test("the hint names the two dashes") func theHintNamesTheTwoDashes() throws {
        try expectFailure(["ask", Files.scene(), "--what"], status: 64, saying: ["Put -- before a text"])
        try expectFailure(["ask", "-what", "hi"], status: 64, saying: ["'-what'", "Put -- before a text"])
    }

    // A mismatch means that the rewriting loses or moves an argument.
    @Test("rewriting keeps every argument in place") func arguments() throws {
        let rewriter = CommandArguments(of: AdaLLaVACommand.self)
        func prepared(_ line: String) throws -> String { try rewriter.prepared(line.components(separatedBy: "|")).joined(separator: "|") }
        #expect(try prepared("ask|p|q|--model|m") == "ask|p|q|--model|m")
        #expect(try prepared("ask|p|-k|--model|m|--json") == "ask|--model|m|--json|--|p|-k")
        #expect(try prepared("ask|p|--|--model|-m") == "ask|--|p|--model|-m")
        #expect(try prepared("ask|p|--|-h") == "ask|--|p|-h")
        #expect(try prepared("ask|p|- q|--budget|-1|--stop|-x h") == "ask|--budget=-1|--stop=-x h|--|p|- q")
        #expect(try prepared("ask|p|-k|-h") == "ask|-h|--|p|-k")
        #expect(try prepared("bench|requests|--image|a|b|--model|-x") == "bench|requests|--image|a|b|--model=-x")
        #expect(try prepared("ask|p|-m|m|-p|-5?|-n|3") == "ask|-m|m|--prompt=-5?|-n|3|p")
        #expect(try prepared("trace|m|--image|-x.png|--output|o") == "trace|--image=-x.png|--output|o|m")
    }

    /// Runs a line of shell, in which `$0` is the command and `printf` makes any bytes.
    private func shell(_ line: String, _ arguments: String..., folder: URL) throws -> (status: Int32, output: String, errors: String) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments = ["-c", line, Command.executable.path] + arguments
        process.currentDirectoryURL = folder
        let (output, errors) = (Pipe(), Pipe())
        (process.standardOutput, process.standardError, process.standardInput) = (output, errors, FileHandle.nullDevice)
        try process.run()
        let texts = [output, errors].map { String(decoding: $0.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self) }
        process.waitUntilExit()
        return (process.terminationStatus, texts[0], texts[1])
    }

    #if os(Linux)
        // A failure means that files whose names are no UTF-8 cannot be named, read or written.
        @Test("file names that are not UTF-8 work") func namesAreBytes() throws {
            try withModel { model in
                let place = model.deletingLastPathComponent()
                let setup = try shell(
                    #"cp "$1" "$(printf 'caf\351.png')" && cp -r model "$(printf 'mod\351l')""#, Files.scene(), folder: place)
                #expect(setup.status == 0, "\(setup.errors)")
                let expected = try Command.run("ask", Files.scene(), "hi", "--model", model.path, "--max-tokens", "4")
                let options = "--max-tokens 4"
                let asked = try shell(
                    #""$0" ask "$(printf 'caf\351.png')" hi --model "$(printf 'mod\351l')" "# + options, folder: place)
                #expect(asked.status == 0 && asked.output == expected.output, "\(asked.errors)")
                // From inside such a folder, by relative names.
                let inside = try shell(
                    #"cd "$(printf 'mod\351l')" && "$0" ask "../$(printf 'caf\351.png')" hi --model . "# + options, folder: place)
                #expect(inside.status == 0 && inside.output == expected.output, "\(inside.errors)")
                for output in [#"$(printf 'o\351.gguf')"#, #"$(printf 'o\351')"#] {
                    let converted = try shell(
                        #""$0" convert "$(printf 'mod\351l')" "\#(output)" --to f16 && test -e "\#(output)" && "$0" inspect "\#(output)""#, folder: place)
                    #expect(converted.status == 0 && converted.output.contains("problem       none"), "\(converted.errors)")
                    #expect(converted.errors.contains(#"o\xE9"#))
                }
                let missing = try shell(#""$0" ask "$(printf 'no\351.png')" hi --model model"#, folder: place)
                #expect(missing.status == 66 && missing.errors.contains(#"no\xE9.png: no such file"#))
                let chat = try shell(
                    #"printf '/image caf\351.png\nhi\n' | "$0" chat --model model "# + options, folder: place)
                #expect(chat.status == 0 && chat.errors.contains("image added"), "\(chat.errors)")
            }
        }
    #endif

    #if os(Linux)
        // A failure means that a process which may have too little hangs or crashes, and nobody knows of what there was too little.
        @Test("a process with too few resources says which", arguments: [("-n 12", "open files"), ("-s 256", "the stack"), ("-v 150000", "address space"), ("-v 125000", "address space")]) func limits(limit: String, word: String) throws {
            let found = try shell("ulimit \(limit); exec \"$0\" inspect \"$1\"", Files.fixture("ada-L").path, folder: Files.root)
            #expect(found.status == 74 && found.errors.contains("the limit of \(word) is") && found.errors.contains("ulimit \(limit.prefix(2))"), "\(found)")
        }

        @Test("a picture for which the system gives no memory is named with the bytes that it needs, and nothing traps")
        func pictureMemory() throws {
            try withTemporaryFolder { folder in
                // A GIF of 10,000 x 10,000 pixels in one colour.
                let picture = folder.appendingPathComponent("large.gif")
                let side: [UInt8] = [0x10, 0x27]
                let header = Array("GIF89a".utf8) + side + side + [0, 0, 0, 0x2C, 0, 0, 0, 0] + side + side + [0, 2, 2, 0x44, 1, 0, 0x3B]
                try Data(header).write(to: picture)
                let found = try shell("ulimit -v 900000; exec \"$0\" ask \"$1\" hi --model Models/scenes-ref", picture.path, folder: Files.root)
                #expect(found.status == 74 && found.errors.contains("large.gif: not enough memory to decode the GIF image"), "\(found)")
                #expect(found.errors.contains("730720000 bytes"), "\(found)")
            }
        }
    #endif

    // A mismatch means that a file's text can retitle, clear or fake a terminal, or that plain text is changed.
    @Test("control characters are shown") func controlCharactersAreShown() throws {
        #expect(TerminalText.shown("a\u{1B}]0;x\u{07}\u{9B}2J\r\u{7F}\u{202E}b\tc\nd é") == #"a\u{1B}]0;x\u{7}\u{9B}2J\u{D}\u{7F}\u{202E}b"# + "\tc\nd é")
        let text = try json(["a": "\u{1B}[2J\u{9B}\u{202E}é"])
        #expect(!text.unicodeScalars.contains { $0.value < 0x20 || (0x7F ..< 0xA0).contains($0.value) || $0.value == 0x202E })
        let back = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: String]
        #expect(back == ["a": "\u{1B}[2J\u{9B}\u{202E}é"])
    }

    // A failure means that a downloaded checkpoint can send commands to the terminal of whoever looks at it.
    @Test("files do not command the terminal", arguments: ["inspect", "convert", "ask"]) func filesDoNotCommandTheTerminal(command: String) throws {
        try withTemporaryFolder { folder in
            let name = "\u{1B}]0;pwned\u{07}\u{1B}[2J"
            let header = try JSONSerialization.data(withJSONObject: [name: ["dtype": "\u{1B}[31mF32", "shape": [1], "data_offsets": [4, 0]]])
            var file = withUnsafeBytes(of: UInt64(header.count).littleEndian) { Data($0) }
            file += header + Data(count: 4)
            try file.write(to: folder.appendingPathComponent("model.safetensors"))
            try FileManager.default.copyItem(at: Files.fixture("ada-L/config.json"), to: folder.appendingPathComponent("config.json"))
            let more = ["inspect": [], "convert": [folder.appendingPathComponent("o.gguf").path, "--to", "f16"], "ask": []][command] ?? []
            let arguments = command == "ask" ? ["ask", "hi", "--model", folder.path] : [command, folder.path] + more
            let result = try Command.run(arguments)
            #expect(result.status == 65)
            #expect(result.errors.contains(#"\u{1B}"#), "\(result.errors)")
            #expect(!(result.output + result.errors).unicodeScalars.contains { $0.value < 0x20 && $0 != "\n" && $0 != "\t" })
        }
    }

    // A failure means that a reader who closes the pipe is answered with a message, or that the writer goes on.
    @Test("a closed pipe ends the command") func aClosedPipeEndsTheCommand() throws {
        let result = try shell(#""$0" ask --help | true; "$0" inspect "$1" | true"#, Files.fixture("ada-L").path, folder: Files.root)
        #expect(result.status == 0 && result.errors.isEmpty, "\(result.errors)")
    }
}
