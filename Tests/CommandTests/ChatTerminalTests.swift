#if os(Linux)
    import Foundation
    import Testing

    /// `adallava chat` on a terminal, as a person types. Every step waits for what the screen shows.
    @Suite(.serialized, .timeLimit(.minutes(15))) struct ChatTerminalTests {
        private let model = ["--model", Files.referenceModel.path, "--max-tokens", "4"]
        /// In the line of measurements that follows an answer.
        private let answered = "TTFT"

        private func chat(_ arguments: [String], environment: [String: String] = [:]) throws -> PseudoTerminal {
            let terminal = try PseudoTerminal(Command.executable, ["chat"] + arguments, environment: environment)
            try terminal.expect("Ctrl-D ends")
            try terminal.expect("> ")
            return terminal
        }

        /// What the user said in a conversation, as `/save` writes it.
        private func saved(_ terminal: PseudoTerminal) throws -> [String] {
            try withTemporaryFolder { folder in
                let file = folder.appendingPathComponent("chat.json")
                try terminal.send("/save \(file.path)\r")
                try terminal.expect("saved ")
                try terminal.expect("> ")
                let object = try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any]
                let messages = try #require(object?["messages"] as? [[String: Any]])
                return messages.filter { $0["role"] as? String == "user" }.compactMap { $0["content"] as? String }
            }
        }

        @Test("Ctrl-C forgets a half-typed line, and on an empty one says how to leave; Ctrl-D leaves with the terminal as it was")
        func interruptedLine() throws {
            let terminal = try chat(model)
            #expect(!terminal.isCooked)
            try terminal.send("half a question")
            try terminal.expect("half a question")
            try terminal.send("\u{03}")
            try terminal.expect("^C")
            try terminal.expect("> ")
            try terminal.send("/temperature\r")
            try terminal.expect("temperature 0")
            try terminal.expect("> ")
            // Also a line that an earlier one continues on.
            try terminal.send("one\\\r")
            try terminal.expect("… ")
            try terminal.send("\u{03}")
            try terminal.expect("^C\n> ")
            try terminal.send("\u{03}")
            try terminal.expect("(Ctrl-D or /exit ends the chat)")
            try terminal.expect("> ")
            try terminal.send("\u{04}")
            #expect(try terminal.exitCode() == 0)
            #expect(terminal.isCooked)
        }

        @Test("every way out leaves the terminal as it was", arguments: [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGXCPU])
        func leftBySignal(number: Int32) throws {
            // Without a core file in the working folder.
            let terminal = try PseudoTerminal(
                URL(fileURLWithPath: "/bin/bash"), ["-c", "ulimit -c 0; exec \"$0\" \"$@\"", Command.executable.path, "chat"] + model)
            try terminal.expect("Ctrl-D ends")
            try terminal.expect("> ")
            try terminal.send("half a question")
            try terminal.expect("half a question")
            #expect(!terminal.isCooked && terminal.marksPastes)
            kill(terminal.process, number)
            #expect(try terminal.exitCode() == ([SIGTERM, SIGINT, SIGHUP].contains(number) ? 130 : -number))
            #expect(terminal.isCooked && !terminal.marksPastes)
        }

        @Test("Ctrl-\\ ends the chat and leaves the terminal as it was")
        func quit() throws {
            let terminal = try PseudoTerminal(
                URL(fileURLWithPath: "/bin/bash"), ["-c", "ulimit -c 0; exec \"$0\" \"$@\"", Command.executable.path, "chat"] + model)
            try terminal.expect("Ctrl-D ends")
            try terminal.expect("> ")
            try terminal.send("half\u{1C}")
            #expect(try terminal.exitCode() == -SIGQUIT)
            #expect(terminal.isCooked && !terminal.marksPastes)
        }

        @Test("Ctrl-C stops an answer, and the chat goes on")
        func interruptedAnswer() throws {
            try Files.withSlowModel { model in
                let terminal = try chat(["--model", model.path, "--max-tokens", "90000"])
                try terminal.send("Hello?\r")
                try terminal.expect("Hello?\n")
                // The answer has begun when anything of it is shown.
                try terminal.expectAnything()
                try terminal.send("\u{03}")
                try terminal.expect("(stopped; this turn is not remembered)")
                try terminal.expect("> ")
                try terminal.send("/exit\r")
                #expect(try terminal.exitCode() == 0)
                #expect(terminal.isCooked)
            }
        }

        @Test(
            "Ctrl-Z gives the terminal to the shell, and after fg the line is shown again and can be finished; so does a signal",
            arguments: [nil, SIGTSTP, SIGSTOP])
        func suspendedLine(number: Int32?) throws {
            let shell = URL(fileURLWithPath: "/bin/bash")
            let terminal = try PseudoTerminal(shell, ["--norc", "--noprofile", "--noediting", "-i"], environment: ["PS1": "shell: ", "HISTFILE": ""])
            try terminal.expect("shell: ")
            try terminal.send((["'\(Command.executable.path)'", "chat"] + model.map { "'\($0)'" }).joined(separator: " ") + "\n")
            try terminal.expect("Ctrl-D ends")
            try terminal.expect("> ")
            try terminal.send("half")
            try terminal.expect("half")
            if let number { for child in terminal.children { kill(child, number) } } else { try terminal.send("\u{1A}") }
            try terminal.expect("Stopped")
            try terminal.expect("shell: ")
            #expect(terminal.isCooked)
            // In the background it must leave the terminal alone.
            try terminal.send("bg; until [ -n \"$(jobs -s)\" ]; do sleep 0.1; done; echo back'ground'\n")
            try terminal.expect("background")
            try terminal.expect("shell: ")
            #expect(terminal.isCooked)
            try terminal.send("fg\n")
            try terminal.expect("> half")
            try terminal.send(" a question\r")
            try terminal.expect(answered)
            try terminal.expect("> ")
            #expect(try saved(terminal) == ["half a question"])
            try terminal.send("\u{04}")
            try terminal.expect("shell: ")
            #expect(terminal.isCooked)
            try terminal.send("exit\n")
            #expect(try terminal.exitCode() == 0)
        }

        @Test("pasted lines are one message, and so are lines that end with a backslash")
        func severalLines() throws {
            let terminal = try chat(model)
            try terminal.send("\u{1B}[200~first line\r\n\tsecond \u{07}line ü\rthird\r\u{1B}[201~")
            try terminal.expect("third")
            try terminal.send("\r")
            try terminal.expect(answered)
            try terminal.expect("> ")
            try terminal.send("one\\\r")
            try terminal.expect("… ")
            try terminal.send("two\r")
            try terminal.expect(answered)
            try terminal.expect("> ")
            #expect(try saved(terminal) == ["first line\n\tsecond line ü\nthird", "one\ntwo"])
            // Neither a command nor a mistyped one.
            try terminal.send("\u{1B}[200~/* a comment */\rWhat is it?\u{1B}[201~")
            try terminal.expect("What is it?")
            try terminal.send("\r")
            try terminal.expect(answered)
            try terminal.expect("> ")
            #expect(try saved(terminal).last == "/* a comment */\nWhat is it?")
            try terminal.send("\u{04}")
            #expect(try terminal.exitCode() == 0)
        }

        @Test("Tab completes a path with blanks, and dragged paths and file: URLs are taken")
        func paths() throws {
            try withTemporaryFolder { folder in
                let names = ["my photo.png", "it's \"tür\" (1) 100%.png"]
                for name in names { try FileManager.default.copyItem(atPath: Files.scene(), toPath: folder.appendingPathComponent(name).path) }
                // Its context holds as many images.
                let terminal = try chat(["--model", Files.root.appendingPathComponent("Models/scenes/L").path])
                let place = folder.path, url = place + "/my%20photo.png"
                for line in [
                    "/image \(place)/my\t", "/image \(place)/it\t", "/image '\(place)/my\t", "/image \"\(place)/it\t",
                    "/image \(place)/my photo.png", "/image \(place)/my\\ photo.png", "/image '\(place)/my photo.png' ", "/image \"\(place)/my photo.png\"",
                    "/image \(place)/it\\'s\\ \\\"tür\\\"\\ \\(1\\)\\ 100%.png ", "/image '\(place)/it'\\''s \"tür\" (1) 100%.png'",
                    "/image file://\(place)/it's%20%22t%C3%BCr%22%20(1)%20100%25.png", "/image file://localhost\(url)", "/image file:\(url)",
                ] {
                    try terminal.send(line + "\r")
                    let answer = try terminal.expect("next message")
                    #expect(answer.contains("image added to your next message"), "\(line)")
                    try terminal.expect("> ")
                }
                // What a file manager writes for two files.
                try terminal.send("/image \(place)/my\\ photo.png '\(place)/my photo.png'\r")
                try terminal.expect("2 images added to your next message")
                try terminal.expect("> ")
                // Tab where nothing tells the files apart shows both.
                try terminal.send("/image \(place)/\t")
                try terminal.expect("it's \"tür\" (1) 100%.png\nmy photo.png\n")
                try terminal.send("my\t\r")
                try terminal.expect("image added to your next message")
                try terminal.send("/images\r")
                let list = try terminal.expect("for your next message, 16: \(place)/my photo.png")
                #expect(list.contains("for your next message, 2: \(place)/it's \"tür\" (1) 100%.png"))
                try terminal.expect("> ")
                try terminal.send("/images drop 16\r")
                try terminal.expect("dropped ")
                try terminal.expect("> ")
                // Dragged without a command.
                for dragged in ["\(place)/my\\ photo.png", "'\(place)/my photo.png'", "file://\(url)"] {
                    try terminal.send(dragged + " \r")
                    try terminal.expect("/image \(dragged) adds the image")
                    try terminal.expect("> ")
                }
                try terminal.send("/ret\t\r")
                try terminal.expect("there is no message yet")
                try terminal.expect("> ")
                try terminal.send("\u{04}")
                #expect(try terminal.exitCode() == 0)
            }
        }

        @Test("a text model answers, and refuses an image at once")
        func textModel() throws {
            try withTemporaryFolder { folder in
                let model = folder.appendingPathComponent("text.gguf")
                try FileManager.default.copyItem(at: Files.fixture("llava-gguf/text.gguf"), to: model)
                try talk(["--model", model.path, "--template", "vicuna_v1", "--max-tokens", "4"], name: "text.gguf")
            }
        }

        private static let smolLM = Files.root.appendingPathComponent("build/models/SmolLM2-135M-Instruct.Q4_1.gguf")

        @Test(
            "SmolLM2 answers, and refuses an image at once",
            .enabled(if: FileManager.default.fileExists(atPath: smolLM.path), "scripts/fetch-smollm2.sh fetches the model"))
        func smolLM2() throws { try talk(["--model", Self.smolLM.path, "--max-tokens", "8"], name: "SmolLM2-135M-Instruct.Q4_1.gguf (135 M, text only)") }

        private func talk(_ arguments: [String], name: String) throws {
            let terminal = try PseudoTerminal(Command.executable, ["chat"] + arguments)
            try terminal.expect("model: " + name)
            try terminal.expect("> ")
            try terminal.send("/image \(Files.scene())\r")
            try terminal.expect("has no vision tower")
            try terminal.expect("> ")
            try terminal.send("Hello?\r")
            try terminal.expect(answered)
            try terminal.expect("> ")
            try terminal.send("/images\r")
            try terminal.expect("no images")
            try terminal.expect("> ")
            try terminal.send("\u{04}")
            #expect(try terminal.exitCode() == 0)
        }

        @Test("messages come back in the next chat, from a file that nobody else reads")
        func history() throws {
            try withTemporaryFolder { folder in
                let file = folder.appendingPathComponent("adallava/history")
                let environment = ["ADALLAVA_HISTORY": file.path]
                var terminal = try chat(model, environment: environment)
                try terminal.send("\u{1B}[200~What is\rin it?\u{1B}[201~\r")
                try terminal.expect(answered)
                try terminal.expect("> ")
                try terminal.send("\u{04}")
                #expect(try terminal.exitCode() == 0)
                #expect(try String(contentsOf: file, encoding: .utf8) == "What is\\nin it?\n")
                #expect(try FileManager.default.attributesOfItem(atPath: file.path)[.posixPermissions] as? Int == 0o600)
                terminal = try chat(model, environment: environment)
                try terminal.send("\u{1B}[A")
                try terminal.expect("What is\nin it?")
                try terminal.send("\r")
                try terminal.expect(answered)
                try terminal.expect("> ")
                #expect(try saved(terminal) == ["What is\nin it?"])
                try terminal.send("\u{04}")
                #expect(try terminal.exitCode() == 0)
                // Turned off.
                terminal = try chat(model, environment: ["ADALLAVA_HISTORY": "", "XDG_STATE_HOME": folder.path, "HOME": folder.path])
                try terminal.send("A secret?\r")
                try terminal.expect(answered)
                try terminal.expect("> ")
                try terminal.send("\u{04}")
                #expect(try terminal.exitCode() == 0)
                #expect(try !String(contentsOf: file, encoding: .utf8).contains("secret"))
                #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["adallava"])
            }
        }
    }
#endif
