import Foundation
import Testing

/// What a run of the executable left behind.
struct CommandResult {
    let status: Int32
    /// Standard output.
    let output: String
    /// Standard error.
    let errors: String

    /// Standard output as one JSON object.
    func json(sourceLocation: SourceLocation = #_sourceLocation) throws -> [String: Any] {
        let object = try JSONSerialization.jsonObject(with: Data(output.utf8))
        return try #require(object as? [String: Any], sourceLocation: sourceLocation)
    }
}

/// The built `adallava`, run as people run it.
enum Command {
    /// Beside the test bundle, in the build folder.
    static let executable: URL = {
        let bundles = Bundle.allBundles.filter { $0.bundlePath.hasSuffix(".xctest") }.map(\.bundleURL)
        let own = [CommandLine.arguments[0], Bundle.main.executablePath ?? ""].map { URL(fileURLWithPath: $0).resolvingSymlinksInPath() }
        let folders = (own + bundles).map { $0.deletingLastPathComponent() } + [Bundle.main.bundleURL]
        let candidates = folders.map { $0.appendingPathComponent("adallava") }
        return candidates.first { FileManager.default.isExecutableFile(atPath: $0.path) } ?? URL(fileURLWithPath: "/adallava-was-not-built")
    }()

    static func process(_ arguments: [String], environment: [String: String] = [:]) -> Process {
        let process = Process()
        process.executableURL = executable
        process.arguments = arguments
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        return process
    }

    /// Runs to the end. Files stand in for pipes, so that no amount of output can block.
    static func run(_ arguments: [String], input: Data = Data(), environment: [String: String] = [:]) throws -> CommandResult {
        try withTemporaryFolder { folder in
            let files = ["in", "out", "err"].map(folder.appendingPathComponent)
            try input.write(to: files[0])
            for file in files.dropFirst() { try Data().write(to: file) }
            let process = process(arguments, environment: environment)
            process.standardInput = try FileHandle(forReadingFrom: files[0])
            process.standardOutput = try FileHandle(forWritingTo: files[1])
            process.standardError = try FileHandle(forWritingTo: files[2])
            try process.run()
            process.waitUntilExit()
            #expect(process.terminationReason == .exit, "\(arguments) ended with signal \(process.terminationStatus)")
            return CommandResult(
                status: process.terminationStatus, output: String(decoding: try Data(contentsOf: files[1]), as: UTF8.self),
                errors: String(decoding: try Data(contentsOf: files[2]), as: UTF8.self))
        }
    }

    static func run(_ arguments: String..., input: Data = Data()) throws -> CommandResult { try run(arguments, input: input) }
}

/// Expects a failure: the exit code, a message with every one of the `words`, and nothing on standard output.
func expectFailure(
    _ arguments: [String], status: Int32, saying words: [String], input: Data = Data(), environment: [String: String] = [:],
    sourceLocation: SourceLocation = #_sourceLocation
) throws {
    let result = try Command.run(arguments, input: input, environment: environment)
    #expect(result.status == status, "\(arguments.map { $0.prefix(80) }): \(result.errors)", sourceLocation: sourceLocation)
    #expect(result.output.isEmpty, "standard output of a failure: \(result.output)", sourceLocation: sourceLocation)
    for word in words {
        #expect(result.errors.contains(word), "expected \"\(word)\" in: \(result.errors)", sourceLocation: sourceLocation)
    }
}

/// Calls `body` with a new folder that is removed afterwards.
func withTemporaryFolder<Result>(_ body: (URL) throws -> Result) throws -> Result {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("adallava-command-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    return try body(folder)
}
