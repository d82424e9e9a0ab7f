import Foundation

/// The repository's files, and damaged copies of them.
enum Files {
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    static func fixture(_ path: String) -> URL { root.appendingPathComponent("Tests/Fixtures/" + path) }

    static let referenceModel = root.appendingPathComponent("Models/scenes-ref")

    /// A picture that the reference model was made for; the default models know its kind too.
    static func scene(_ number: String = "00") -> String { referenceModel.appendingPathComponent("images/\(number).png").path }

    /// Calls `body` with a copy of a fixture's folder that may be changed.
    static func withCopy(of path: String, _ body: (URL) throws -> Void) throws {
        try withTemporaryFolder { folder in
            let copy = folder.appendingPathComponent("model")
            try FileManager.default.copyItem(at: fixture(path), to: copy)
            for case let url as URL in FileManager.default.enumerator(at: copy, includingPropertiesForKeys: nil) ?? .init() {
                try? FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: url.path)
            }
            try body(copy)
        }
    }

    /// A model whose context is so long that an answer or a prompt takes many seconds.
    static func withSlowModel(_ body: (URL) throws -> Void) throws {
        try withCopy(of: "ada-L") { model in
            try edit(model.appendingPathComponent("config.json"), ["max_position_embeddings": 100_000])
            try FileManager.default.copyItem(
                at: fixture("tokenizer/tok320/tokenizer.model"), to: model.appendingPathComponent("tokenizer.model"))
            // No token ends an answer.
            try Data("{\"eos_token_id\": []}".utf8).write(to: model.appendingPathComponent("generation_config.json"))
            try body(model)
        }
    }

    /// Changes fields of a JSON file.
    static func edit(_ url: URL, _ changes: [String: Any]) throws {
        let object = try JSONSerialization.jsonObject(with: Data(contentsOf: url)) as? [String: Any] ?? [:]
        try JSONSerialization.data(withJSONObject: object.merging(changes) { $1 }).write(to: url)
    }

    /// Rewrites a file's bytes.
    static func damage(_ url: URL, _ change: (inout Data) -> Void) throws {
        var data = try Data(contentsOf: url)
        change(&data)
        try data.write(to: url)
    }

    /// The start of a PNG whose header announces a size; no pixels follow.
    static func png(width: UInt32, height: UInt32) -> Data {
        let bytes = { (value: UInt32) in (0 ..< 4).map { UInt8(truncatingIfNeeded: value >> (24 - $0 * 8)) } }
        return Data([0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A, 0, 0, 0, 13] + Array("IHDR".utf8) + bytes(width) + bytes(height) + [8, 2, 0, 0, 0, 0, 0, 0, 0])
    }
}
