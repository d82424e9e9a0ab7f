import Foundation
import Testing

/// `adallava serve` as a process.
@Suite(.timeLimit(.minutes(3))) struct ServeCommandTests {
    /// Beside the test bundle, in the build folder.
    private static let executable: URL = {
        let bundles = Bundle.allBundles.filter { $0.bundlePath.hasSuffix(".xctest") }.map(\.bundleURL)
        let own = [CommandLine.arguments[0], Bundle.main.executablePath ?? ""].map { URL(fileURLWithPath: $0).resolvingSymlinksInPath() }
        let folders = (own + bundles).map { $0.deletingLastPathComponent() } + [Bundle.main.bundleURL]
        let candidates = folders.map { $0.appendingPathComponent("adallava") }
        return candidates.first { FileManager.default.isExecutableFile(atPath: $0.path) } ?? URL(fileURLWithPath: "/adallava-was-not-built")
    }()

    private static func process(_ arguments: [String]) -> (process: Process, errors: FileHandle) {
        let process = Process(), errors = Pipe()
        process.executableURL = executable
        process.arguments = ["serve", "-m", "scenes/L"] + arguments
        process.environment = ProcessInfo.processInfo.environment.merging(["ADALLAVA_MODELS": Scenes.root.appendingPathComponent("Models").path]) { $1 }
        (process.standardError, process.standardOutput, process.standardInput) = (errors, FileHandle.nullDevice, FileHandle.nullDevice)
        return (process, errors.fileHandleForReading)
    }

    /// Runs the server until `body` has ended.
    private static func withServer(_ arguments: [String] = [], _ body: (Int, Process) async throws -> Void) async throws {
        let (process, errors) = process(["--port", "0"] + arguments)
        try process.run()
        defer { if process.isRunning { process.terminate() } }
        var said = Data(), port: Int?
        while !String(decoding: said, as: UTF8.self).contains("ready: ") {
            let piece = errors.availableData
            if piece.isEmpty { break }
            said += piece
        }
        if let match = String(decoding: said, as: UTF8.self).firstMatch(of: /listening on http:\/\/127\.0\.0\.1:(\d+)/) { port = Int(match.1) }
        try await body(try #require(port, "\(String(decoding: said, as: UTF8.self))"), process)
    }

    // A failure means that a restart cuts answers off.
    @Test("SIGTERM: answers under way are given whole, then the process ends with 0")
    func drains() async throws {
        try await Self.withServer { port, process in
            let body = try JSONSerialization.data(withJSONObject: TestServer.chat(
                "Describe the image.", images: [1], ["stream": true, "temperature": 100, "seed": 5, "max_tokens": 900, "n": 4]))
            let connection = try Connection(port: port)
            defer { connection.close() }
            try await connection.send(TestServer.head("POST", "/v1/chat/completions", body) + body)
            try await connection.read(until: "\"content\"")
            process.terminate()
            let response = try TestResponse(await connection.readToEnd())
            #expect(response.text.hasSuffix("data: [DONE]\n\n"))
            let endings = try response.events().compactMap { $0["choices"][0]["finish_reason"].string }
            #expect(endings.count == 4)
            process.waitUntilExit()
            #expect(process.terminationReason == .exit && process.terminationStatus == 0)
            #expect(throws: (any Error).self) { try Connection(port: port) }
        }
    }

    @Test("SIGTERM while nothing is asked ends the process at once")
    func ends() async throws {
        try await Self.withServer { _, process in
            process.terminate()
            process.waitUntilExit()
            #expect(process.terminationReason == .exit && process.terminationStatus == 0)
        }
    }

    @Test("what cannot be served is told with its exit code", arguments: [
        (["--host", "0.0.0.0"], 64, "--no-auth"), (["--port", "70000"], 64, "--port"), (["--max-body", "much"], 64, "--max-body"),
        (["--api-key-file", "/nowhere/keys"], 66, "/nowhere/keys"), (["--allow-media-dir", "/nowhere"], 66, "/nowhere"),
        (["--host", "127.0.0.1", "--api-key-file", "/dev/null"], 65, "expected one key on each line"),
    ])
    func refusals(arguments: [String], status: Int32, word: String) throws {
        let (process, errors) = Self.process(arguments)
        try process.run()
        let said = String(decoding: errors.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == status && said.contains(word), "\(said)")
    }

    @Test("a port that is taken is told")
    func takenPort() async throws {
        try await TestServer.run { server in
            let (process, errors) = Self.process(["--port", "\(server.port)"])
            try process.run()
            let said = String(decoding: errors.readDataToEndOfFile(), as: UTF8.self)
            process.waitUntilExit()
            #expect(process.terminationStatus == 74 && said.contains("cannot listen on 127.0.0.1, port \(server.port)"), "\(said)")
        }
    }

    @Test("keys of a file are those that requests need")
    func keys() async throws {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("adallava-keys-\(UUID().uuidString)")
        try Data("# ours\nalpha\n\n  beta \n".utf8).write(to: file)
        defer { try? FileManager.default.removeItem(at: file) }
        try await Self.withServer(["--api-key-file", file.path, "--served-model-name", "tiny"]) { port, _ in
            for (key, status) in [("alpha", 200), ("beta", 200), ("# ours", 401), ("", 401)] {
                let connection = try Connection(port: port)
                defer { connection.close() }
                try await connection.send(TestServer.head("GET", "/v1/models", nil, ["Authorization": "Bearer \(key)"]))
                let response = try TestResponse(await connection.readToEnd())
                #expect(response.status == status, "\(key)")
                if status == 200 { #expect(try response.json()["data"][0]["id"].string == "tiny") }
            }
        }
    }
}
