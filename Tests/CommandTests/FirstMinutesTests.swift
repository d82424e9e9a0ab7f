import Foundation
import Testing

/// What a person meets around the answers: usage errors, the version, completions, models beside a command that was copied or installed.
@Suite struct FirstMinutesTests {
    private static let model = Files.referenceModel.path

    @Test("A question that begins with a dash is a question", arguments: ["-5 + 3?", "-h what?", "--what"])
    func dashes(question: String) throws {
        for arguments in [["-p", question], ["--prompt=" + question], ["--", question]] {
            let result = try Command.run(["ask", "-m", Self.model, "-n", "1", "--json"] + arguments)
            #expect(result.status == 0, "\(arguments): \(result.errors)")
        }
    }

    @Test("A mistyped word is answered with the usage of the command that it was given to", arguments: [
        (["aks", "hi"], ["unknown command 'aks'", "adallava ask"]),
        (["bench", "kernel"], ["adallava bench kernels", "Usage: adallava bench <subcommand>"]),
        (["-m", "scenes/L", "-p", "hi"], ["expected a command before '-m'", "adallava ask"]),
        (["train"], ["expected a recipe", "Usage: adallava train", "See 'adallava train --help'"]),
        (["bench", "nonsense"], ["unknown command 'nonsense'", "throughput"]),
        (["eval", "--tasks", "pope", "--data", "x"], ["unknown option '--tasks'", "'--task'", "Usage: adallava eval", "See 'adallava eval --help'"]),
        (["eval", "--task", "pope", "--date", "x"], ["'--data'"]),
        (["ask", "x.png", "hi", "--max-token", "3"], ["'--max-tokens'"]),
        (["bench", "throughput", "-p", "600"], ["unknown option '-p'", "'--prompt-tokens'"]),
        (["bench", "linearity", "--prompt", "-5"], ["unknown option '--prompt'", "'--prompt-tokens'"]),
        (["bench", "linearity", "--prompt-tokens", "-5"], ["--prompt-tokens", "-5"]),
        (["bench", "kernels", "--shape", "foo"], ["--shape", "smollm2-135m", "found foo"]),
    ])
    func usage(arguments: [String], words: [String]) throws {
        try expectFailure(arguments, status: 64, saying: words)
    }

    @Test("A value that begins with a dash is not taken for a text")
    func values() throws {
        for arguments in [["--temp", "-1"], ["--budget", "-1"], ["-n", "-1"]] {
            let result = try Command.run(["ask", "hi"] + arguments)
            #expect(result.status == 64 && !result.errors.contains("Put --"), "\(result.errors)")
        }
        try expectFailure(["ask", "hi", "--temp", "-1"], status: 64, saying: ["--temperature: expected 0 or more, found -1"])
        try expectFailure(["ask", "hi", "-n", "0"], status: 64, saying: ["--max-tokens: expected 1 or more, found 0"])
        try expectFailure(["ask", "-x"], status: 64, saying: ["unknown option '-x'", "Put -- before a text"])
    }

    @Test("The version names the commit, the kernels and the compiler")
    func version() throws {
        let result = try Command.run(["--version"])
        let lines = result.output.split(separator: "\n")
        #expect(result.status == 0 && lines.count == 4 && lines.first == "adallava 0.1.0", "\(result.output)")
        for (line, word) in zip(lines.dropFirst(), ["commit ", "kernels ", "Swift "]) { #expect(line.hasPrefix(word), "\(line)") }
        #expect(lines.count == 4 && lines[2].split(separator: " ").last.map { ["portable", "avx2", "avxvnni", "avx512", "amx", "neon"].contains($0) } == true)
    }

    @Test("Shells complete commands and options", arguments: ["bash", "zsh", "fish"])
    func completions(shell: String) throws {
        let result = try Command.run(["--generate-completion-script", shell])
        #expect(result.status == 0 && result.output.contains("adallava") && result.output.contains("max-tokens") && result.output.contains("throughput"))
    }

    // MARK: - Models by name

    @Test("Embedded models are found beside a command that was copied or installed, or where ADALLAVA_MODELS says")
    func embeddedModels() throws {
        #expect(try Command.run(["inspect", "scenes/H"]).output.contains("AdaLLaVA-H"))
        try withTemporaryFolder { folder in
            let manager = FileManager.default
            let empty = ["ADALLAVA_MODELS": folder.path]
            try expectFailure(["ask", "hi"], status: 66, saying: ["scenes/L", folder.path, "ADALLAVA_MODELS"], environment: empty)
            for name in ["scenes/L", "scenes/H", "scenes/X"] {
                let result = try Command.run(["ask", "hi", "-m", name], environment: empty)
                #expect(result.status == 66 && !result.errors.contains("hf download"), "\(result.errors)")
                for word in [name, folder.path, "ADALLAVA_MODELS"] { #expect(result.errors.contains(word), "\(word): \(result.errors)") }
            }
            try expectFailure(["ask", "hi", "-m", "scenes/X"], status: 66, saying: ["the embedded models are scenes/L and scenes/H"])
            for (binary, models) in [("bin", "share/adallava/Models"), ("copied", "copied/Models")] {
                let command = folder.appendingPathComponent(binary + "/adallava")
                for place in [command.deletingLastPathComponent(), folder.appendingPathComponent(models)] {
                    try manager.createDirectory(at: place, withIntermediateDirectories: true)
                }
                try manager.copyItem(at: Command.executable, to: command)
                try manager.createSymbolicLink(
                    at: folder.appendingPathComponent(models + "/scenes"), withDestinationURL: Files.root.appendingPathComponent("Models/scenes"))
                let process = Process()
                (process.executableURL, process.arguments) = (command, ["inspect", "scenes/L", "--json"])
                (process.currentDirectoryURL, process.standardInput) = (folder, FileHandle.nullDevice)
                let output = Pipe()
                process.standardOutput = output
                try process.run()
                let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
                process.waitUntilExit()
                #expect(process.terminationStatus == 0 && text.contains("AdaLLaVA-L"), "\(binary): \(text.prefix(200))")
            }
        }
    }

    @Test("make install's script puts everything where the command and the shells look for it")
    func installs() throws {
        try withTemporaryFolder { folder in
            // Twice: an installation is written over. No man pages here: Swift's package manager runs the tests.
            for _ in 0 ..< 2 {
                let process = Process()
                process.executableURL = Files.root.appendingPathComponent("scripts/install.sh")
                process.arguments = [folder.appendingPathComponent("usr").path]
                process.environment = ProcessInfo.processInfo.environment.merging(
                    ["BUILD": Command.executable.deletingLastPathComponent().path, "SWIFT": "false"]) { $1 }
                process.standardError = FileHandle.nullDevice
                try process.run()
                process.waitUntilExit()
                #expect(process.terminationStatus == 0)
            }
            for file in [
                "bin/adallava", "share/adallava/Models/scenes/H/config.json", "share/adallava/Models/scenes/vision_tower/config.json",
                "share/bash-completion/completions/adallava", "share/zsh/site-functions/_adallava", "share/fish/vendor_completions.d/adallava.fish",
            ] { #expect(FileManager.default.fileExists(atPath: folder.appendingPathComponent("usr/" + file).path), "\(file)") }
            let process = Process()
            process.executableURL = folder.appendingPathComponent("usr/bin/adallava")
            process.arguments = ["ask", Files.scene(), "How many things are in the image?", "-m", "scenes/H"]
            (process.currentDirectoryURL, process.standardInput, process.standardError) = (folder, FileHandle.nullDevice, FileHandle.nullDevice)
            let output = Pipe()
            process.standardOutput = output
            try process.run()
            let answer = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            process.waitUntilExit()
            #expect(process.terminationStatus == 0 && !answer.isEmpty)
        }
    }
}
