/// The key-value pairs of a GGUF file. Accessors return `nil` for a key that is absent and throw for a value of another type.
package struct GGUFMetadata: Sendable {
    /// All keys, in the file's order.
    package let keys: [String]
    /// Where the pairs come from, for messages.
    package let location: String

    private let values: [String: GGUFValue]

    init(keys: [String], values: [String: GGUFValue], location: String) {
        (self.keys, self.values, self.location) = (keys, values, location)
    }

    /// The value of `key`, or `nil`.
    package subscript(_ key: String) -> GGUFValue? { values[key] }

    /// - Throws: ``CheckpointError/configuration(field:expected:found:file:)`` if the value is no UTF-8 string; likewise below.
    package func string(_ key: String) throws -> String? {
        try value(key, "a string", \.text)
    }

    /// A value of any integer type.
    package func int(_ key: String) throws -> Int? {
        try value(key, "a whole number", \.integer)
    }

    /// A value of any float or integer type.
    package func float(_ key: String) throws -> Double? {
        try value(key, "a number", \.number)
    }

    /// A truth value.
    package func bool(_ key: String) throws -> Bool? {
        try value(key, "a truth value") { if case .bool(let value) = $0 { value } else { nil } }
    }

    /// An array of any type.
    package func array(_ key: String) throws -> GGUFArray? {
        try value(key, "an array") { if case .array(let array) = $0 { array } else { nil } }
    }

    /// An array of strings.
    package func strings(_ key: String) throws -> [String]? {
        try value(key, "an array of strings") { if case .array(let array) = $0 { array.strings() } else { nil } }
    }

    /// An array of any integer type.
    package func ints(_ key: String) throws -> [Int]? {
        try value(key, "an array of whole numbers") { if case .array(let array) = $0 { array.integers() } else { nil } }
    }

    /// An array of any float or integer type.
    package func floats(_ key: String) throws -> [Float]? {
        try value(key, "an array of numbers") { if case .array(let array) = $0 { array.floats() } else { nil } }
    }

    private static let tokenIDs = ["bos", "eos", "eot", "eom", "unknown", "padding"].map { "tokenizer.ggml.\($0)_token_id" }

    /// The id of a special token; `nil` if the file names none, or one that is not in the vocabulary (-1 and 2^32 - 1 say none). In place of such a one
    /// SentencePiece vocabularies have the ids that every other program takes then.
    func tokenID(_ key: String) throws -> Int? {
        guard let id = try int(key) else { return nil }
        let count = try array("tokenizer.ggml.tokens")?.count ?? ConfigurationLimits.tokenIDs.upperBound + 1
        if (0 ..< count).contains(id) { return id }
        guard try string("tokenizer.ggml.model") == "llama" else { return nil }
        let usual = ["tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2][key]
        return usual.flatMap { $0 < count ? $0 : nil }
    }

    /// Special tokens that the file names and the vocabulary does not hold, each in words.
    func unknownTokenIDs() throws -> [String] {
        try Self.tokenIDs.compactMap { key in
            guard let id = try int(key), id != -1, id != Int(UInt32.max), let tokens = try array("tokenizer.ggml.tokens"), !(0 ..< tokens.count).contains(id)
            else { return nil }
            return CheckpointError.configuration(field: key, expected: "0 to \(tokens.count - 1)", found: "\(id)", file: location).description
        }
    }

    private func value<Value>(_ key: String, _ expected: String, _ read: (GGUFValue) -> Value?) throws -> Value? {
        guard let stored = values[key] else { return nil }
        guard let value = read(stored) else {
            throw CheckpointError.configuration(field: key, expected: expected, found: stored.summary, file: location)
        }
        return value
    }
}

/// Files of a Hugging Face checkpoint that travel inside a GGUF file of ours.
enum EmbeddedFiles {
    static let prefix = "adallava.file."
    /// The name of the chat template that was chosen for the source, whose folder's name said it.
    static let templateKey = "adallava.template"
}
