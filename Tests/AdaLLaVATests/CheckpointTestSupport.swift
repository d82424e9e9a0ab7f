import Foundation

@testable import AdaLLaVA

/// Where the tests of this area find their files, and how they make new ones.
enum CheckpointFixtures {
    /// The nearest folder above this file that holds `path`.
    private static func locate(_ path: String) -> URL {
        var folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        while folder.path != "/" {
            let candidate = folder.appendingPathComponent(path)
            if FileManager.default.fileExists(atPath: candidate.path) { return candidate }
            folder.deleteLastPathComponent()
        }
        return URL(fileURLWithPath: "/nowhere").appendingPathComponent(path)
    }

    static func fixture(_ path: String) -> URL { locate("Tests/Fixtures").appendingPathComponent(path) }

    static var referenceModel: URL { locate("Models/scenes-ref") }

    /// Calls `body` with a new folder that is removed afterwards.
    static func withTemporaryFolder<Result>(_ body: (URL) throws -> Result) throws -> Result {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("adallava-checkpoint-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        return try body(folder)
    }

    static func json(_ text: String) throws -> JSONValue {
        try Array(text.utf8).withUnsafeBytes { try JSONReader.parse($0, file: "test.json") }
    }

    /// The configuration in a fixture's `config.json` with some fields replaced.
    static func json(_ path: String, replacing changes: [String: JSONValue]) throws -> JSONValue {
        guard case .object(var members) = try JSONValue.read(contentsOf: fixture(path)) else { return .null }
        for (key, value) in changes { members[key] = value }
        return .object(members)
    }

    static func text(_ json: JSONValue) -> String {
        switch json {
        case .null: "null"
        case .bool(let value): "\(value)"
        case .integer(let value): "\(value)"
        case .number(let value): "\(value)"
        case .string(let value): quoted(value)
        case .array(let elements): "[\(elements.map(text).joined(separator: ","))]"
        case .object(let members): "{\(members.map { "\(quoted($0.key)):\(text($0.value))" }.joined(separator: ","))}"
        }
    }

    /// Copies the files of a fixture's folder, folders among them included.
    static func copy(_ path: String, to folder: URL) throws {
        try FileManager.default.copyItem(at: fixture(path), to: folder)
        // Fixtures may be read-only.
        for case let url as URL in FileManager.default.enumerator(at: folder, includingPropertiesForKeys: nil) ?? .init() {
            try? FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: url.path)
        }
    }

    static func write(_ json: JSONValue, to url: URL) throws {
        try? FileManager.default.removeItem(at: url)
        try Data(text(json).utf8).write(to: url)
    }
}

extension CheckpointError {
    var isMalformed: Bool { if case .malformed = self { true } else { false } }
    var isUnsupported: Bool { if case .unsupported = self { true } else { false } }
    var isMissing: Bool { if case .missing = self { true } else { false } }
    var isMissingTensor: Bool { if case .missingTensor = self { true } else { false } }
    var isElementType: Bool { if case .elementType = self { true } else { false } }
    var isConfiguration: Bool { if case .configuration = self { true } else { false } }
    var isUnreadable: Bool { if case .unreadable = self { true } else { false } }
    var isUnwritable: Bool { if case .unwritable = self { true } else { false } }
}

/// The ``CheckpointError`` that `body` throws; `nil` if it throws none or another one.
func checkpointError<Result>(_ body: () throws -> Result) -> CheckpointError? {
    do {
        _ = try body()
        return nil
    } catch {
        return error as? CheckpointError
    }
}
