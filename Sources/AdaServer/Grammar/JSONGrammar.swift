import AdaLLaVA

/// Which JSON texts an answer may be: compiled from a JSON schema, as nodes that refer to each other by index.
///
/// Of JSON Schema this takes `type` (one or several), `properties`, `required`, `additionalProperties`, `items`, `enum`, `const`, `anyOf`, and `$ref` into
/// `$defs` and `definitions`, recursion included. Texts are written with no white space but single spaces after colons and commas. An object with
/// `properties` has no others.
struct JSONGrammar: Sendable {
    enum Node: Sendable {
        case any
        case object([Property], values: Int?)
        case array(items: Int)
        case string
        case number(isInteger: Bool)
        /// Texts of which the value is one: enumerations, `true`, `false`, `null`.
        case texts([Int])
        case oneOf([Int])
    }

    struct Property: Sendable {
        /// The name in quotes without the first of them, as bytes of `texts`.
        let name: Int
        let value: Int
        let isRequired: Bool
    }

    private(set) var nodes: [Node] = []
    /// Bytes that are written as they are.
    private(set) var texts: [[UInt8]] = []
    private(set) var root = 0
    /// `true`, `false` and `null`, allowed in place of any value, by their first byte.
    private var words: [UInt8: Int] = [:]
    /// The object of any values.
    private var ofAny = 0

    /// Any JSON object.
    static let object: JSONGrammar = {
        var grammar = JSONGrammar()
        grammar.root = grammar.ofAny
        return grammar
    }()

    private init() {
        for word in ["true", "false", "null"] { words[word.utf8.first ?? 0] = add(Array(word.utf8)) }
        ofAny = add(.object([], values: add(.any)))
    }

    /// The text of the word that begins with a byte.
    func word(_ first: UInt8) -> Int? { words[first] }

    /// The node of an object of any values.
    var anyObject: Int { ofAny }

    /// - Throws: ``APIError`` naming the unsupported keyword: a weaker constraint would go unnoticed.
    init(schema: JSONValue, path: String) throws {
        var compiler = Compiler(definitions: schema)
        let root = try compiler.node(schema, path)
        self = compiler.grammar
        self.root = root
    }

    private mutating func add(_ node: Node) -> Int {
        nodes.append(node)
        return nodes.count - 1
    }

    private mutating func add(_ text: [UInt8]) -> Int {
        texts.append(text)
        return texts.count - 1
    }

    private mutating func replace(_ index: Int, by node: Node) { nodes[index] = node }

    private struct Compiler {
        var grammar = JSONGrammar()
        let definitions: JSONValue
        /// References that were met, so that recursion ends.
        private var known: [String: Int] = [:]
        private static let nodeLimit = 4096
        /// Says nothing about which texts are allowed.
        private static let annotations: Set = ["title", "description", "default", "examples", "$schema", "$id", "$defs", "definitions", "$comment", "strict"]

        init(definitions: JSONValue) { self.definitions = definitions }

        mutating func node(_ schema: JSONValue, _ path: String) throws -> Int {
            guard grammar.nodes.count < Self.nodeLimit else { throw Self.unsupported(path, "a schema of more than \(Self.nodeLimit) parts") }
            if schema == .bool(true) { return grammar.add(.any) }
            guard case .object(let members) = schema else { throw Self.unsupported(path, schema.summary) }
            let words = Set(members.keys).subtracting(Self.annotations)
            if let reference = members["$ref"] { return try self.reference(reference, words, path) }
            if words.isEmpty { return grammar.add(.any) }
            for word in ["anyOf", "oneOf"] where words == [word] {
                guard case .array(let options)? = members[word], !options.isEmpty else { throw Self.unsupported("\(path).\(word)", "no list") }
                let index = grammar.add(.any)
                grammar.replace(index, by: .oneOf(try options.enumerated().map { try node($1, "\(path).\(word)[\($0)]") }))
                return index
            }
            if let values = members["enum"] ?? members["const"].map({ .array([$0]) }) {
                try expect(words.subtracting(["enum", "const", "type"]), path)
                guard case .array(let elements) = values, !elements.isEmpty, elements.count <= 1024 else { throw Self.unsupported(path + ".enum", values.summary) }
                return grammar.add(.texts(try elements.map { grammar.add(Array(try JSONBody.data($0))) }))
            }
            switch members["type"] {
            case .string(let type): return try typed(type, members, words, path)
            case .array(let types):
                let options = try types.map { type in
                    guard case .string(let name) = type else { throw Self.unsupported(path + ".type", type.summary) }
                    let own = Self.words(of: name)
                    return try typed(name, members, words.intersection(own.union(["type"])), path)
                }
                try expect(words.subtracting(types.reduce(into: ["type"]) { if case .string(let name) = $1 { $0.formUnion(Self.words(of: name)) } }), path)
                return grammar.add(.oneOf(options))
            case nil where members["properties"] != nil: return try typed("object", members, words, path)
            case let other: throw Self.unsupported(path, other?.summary ?? words.sorted().joined(separator: ", "))
            }
        }

        private static func words(of type: String) -> Set<String> {
            switch type {
            case "object": ["properties", "required", "additionalProperties"]
            case "array": ["items"]
            default: []
            }
        }

        private mutating func typed(_ type: String, _ members: [String: JSONValue], _ words: Set<String>, _ path: String) throws -> Int {
            try expect(words.subtracting(Self.words(of: type)).subtracting(["type"]), path)
            switch type {
            case "string": return grammar.add(.string)
            case "number": return grammar.add(.number(isInteger: false))
            case "integer": return grammar.add(.number(isInteger: true))
            case "boolean": return grammar.add(.texts([grammar.add(Array("true".utf8)), grammar.add(Array("false".utf8))]))
            case "null": return grammar.add(.texts([grammar.add(Array("null".utf8))]))
            case "array":
                let index = grammar.add(.any)
                grammar.replace(index, by: .array(items: try node(members["items"] ?? .bool(true), path + ".items")))
                return index
            case "object": return try object(members, path)
            default: throw Self.unsupported(path + ".type", "\"\(type.prefix(40))\"")
            }
        }

        private mutating func object(_ members: [String: JSONValue], _ path: String) throws -> Int {
            var required: Set<String> = []
            if let names = members["required"] {
                guard case .array(let elements) = names else { throw Self.unsupported(path + ".required", names.summary) }
                for element in elements {
                    guard case .string(let name) = element else { throw Self.unsupported(path + ".required", element.summary) }
                    required.insert(name)
                }
            }
            let index = grammar.add(.any)
            guard let given = members["properties"], given != .object([:]) else {
                if !required.isEmpty { throw Self.unsupported(path + ".required", "names without properties") }
                var values: Int?
                if members["additionalProperties"] != .bool(false) { values = try node(members["additionalProperties"] ?? .bool(true), path + ".additionalProperties") }
                grammar.replace(index, by: .object([], values: values))
                return index
            }
            guard case .object(let properties) = given, properties.count <= 64 else { throw Self.unsupported(path + ".properties", given.summary) }
            if let name = required.subtracting(properties.keys).min() { throw Self.unsupported(path + ".required", "\"\(name.prefix(40))\", which properties do not have") }
            if let more = members["additionalProperties"], case .object = more { throw Self.unsupported(path + ".additionalProperties", "a schema beside properties") }
            let compiled = try properties.sorted { $0.key < $1.key }.map { name, value in
                Property(
                    name: grammar.add(Array(try JSONBody.data(name).dropFirst())), value: try node(value, "\(path).properties.\(name.prefix(40))"),
                    isRequired: required.contains(name))
            }
            grammar.replace(index, by: .object(compiled, values: nil))
            return index
        }

        private mutating func reference(_ value: JSONValue, _ words: Set<String>, _ path: String) throws -> Int {
            try expect(words.subtracting(["$ref"]), path)
            guard case .string(let text) = value else { throw Self.unsupported(path + ".$ref", value.summary) }
            if let index = known[text] { return index }
            var target: JSONValue? = definitions
            let parts = text.split(separator: "/").map(String.init)
            guard parts.first == "#" else { throw Self.unsupported(path + ".$ref", "\"\(text.prefix(80))\"; expected one that begins with #") }
            for part in parts.dropFirst() { target = target?[part.replacing("~1", with: "/").replacing("~0", with: "~")] }
            guard let target else { throw Self.unsupported(path + ".$ref", "\"\(text.prefix(80))\", which is not there") }
            // One that leads to itself stays without an option, which no text is.
            let index = grammar.add(.oneOf([]))
            known[text] = index
            grammar.replace(index, by: .oneOf([try node(target, text)]))
            return index
        }

        private func expect(_ rest: Set<String>, _ path: String) throws {
            if let word = rest.min() { throw Self.unsupported("\(path).\(word)", "it") }
        }

        private static func unsupported(_ path: String, _ what: String) -> APIError {
            APIError(.badRequest, "\(path): \(what) is not supported in a schema here", parameter: "response_format", code: "unsupported_schema")
        }
    }
}
