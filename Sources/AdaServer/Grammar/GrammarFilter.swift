import AdaLLaVA
import Synchronization

/// A vocabulary as a tree of bytes, so that tokens with the same beginning are looked at together.
final class TokenTree: Sendable {
    struct Node: Sendable {
        var children: [(byte: UInt8, node: Int)] = []
        var tokens: [Int] = []
    }

    let nodes: [Node]
    let endTokens: Set<Int>
    let vocabulary: Int

    /// - Parameter bytes: text of each token; tokens without text are never chosen.
    init(_ bytes: [[UInt8]], endTokens: Set<Int>) {
        var nodes = [Node()]
        for (token, bytes) in bytes.enumerated() where !bytes.isEmpty && !endTokens.contains(token) {
            var place = 0
            for byte in bytes {
                if let child = nodes[place].children.first(where: { $0.byte == byte }) {
                    place = child.node
                } else {
                    nodes.append(Node())
                    nodes[place].children.append((byte, nodes.count - 1))
                    place = nodes.count - 1
                }
            }
            nodes[place].tokens.append(token)
        }
        (self.nodes, self.endTokens, vocabulary) = (nodes, endTokens, bytes.count)
    }
}

/// Which tokens a grammar allows in each of its states, worked out once for all answers: most states come again.
final class GrammarMasks: Sendable {
    let grammar: JSONGrammar
    let tree: TokenTree
    private let known = Mutex<[JSONMachine: [Bool]]>([:])
    /// The most states that are kept: 32 MB of them.
    private let limit: Int

    init(_ grammar: JSONGrammar, _ tree: TokenTree) {
        (self.grammar, self.tree) = (grammar, tree)
        limit = max((32 << 20) / max(tree.vocabulary, 1), 16)
    }

    /// Whether each token may come next.
    func allowed(_ machine: JSONMachine) -> [Bool] {
        if let mask = known.withLock({ $0[machine] }) { return mask }
        var mask = [Bool](repeating: false, count: tree.vocabulary)
        mark(0, machine, &mask)
        if machine.isComplete { for token in tree.endTokens where mask.indices.contains(token) { mask[token] = true } }
        known.withLock { known in
            if known.count >= limit { known = [:] }
            known[machine] = mask
        }
        return mask
    }

    private func mark(_ place: Int, _ machine: JSONMachine, _ mask: inout [Bool]) {
        for token in tree.nodes[place].tokens { mask[token] = true }
        for child in tree.nodes[place].children {
            let next = machine.after(child.byte, grammar)
            if !next.isDead { mark(child.node, next, &mask) }
        }
    }
}

/// Keeps one answer within a grammar.
final class GrammarFilter: TokenFilter {
    private let masks: GrammarMasks
    private let bytes: [[UInt8]]
    private var machine: JSONMachine

    init(_ masks: GrammarMasks, bytes: [[UInt8]]) {
        (self.masks, self.bytes) = (masks, bytes)
        machine = JSONMachine(masks.grammar)
    }

    func mask(_ logits: UnsafeMutableBufferPointer<Float>) throws {
        let allowed = masks.allowed(machine)
        var isAny = false
        for token in logits.indices {
            if token < allowed.count, allowed[token] { isAny = true } else { logits[token] = -.infinity }
        }
        if !isAny { throw APIError(.badRequest, "response_format: the model's vocabulary cannot write what the schema asks for", parameter: "response_format", code: "unsupported_schema") }
    }

    func accept(_ token: Int) {
        guard bytes.indices.contains(token), !masks.tree.endTokens.contains(token) else { return }
        for byte in bytes[token] { machine = machine.after(byte, masks.grammar) }
    }
}

/// Grammars of a server's requests, compiled once for each schema.
final class Grammars: Sendable {
    private struct State {
        var vocabulary: (bytes: [[UInt8]], tree: TokenTree)?
        var masks: [(schema: JSONValue, masks: GrammarMasks)] = []
    }
    private let state = Mutex(State())
    private static let limit = 16

    /// Token filter for `response_format`; `nil` for free text.
    /// - Throws: ``APIError`` for a format that cannot be enforced.
    func filter(_ format: ResponseForm, _ model: AdaptiveModel) throws -> (@Sendable () -> any TokenFilter)? {
        guard let schema = format.schema else { return nil }
        return try state.withLock { state in
            let vocabulary: (bytes: [[UInt8]], tree: TokenTree)
            if let known = state.vocabulary { vocabulary = known } else {
                let table = try model.tokenTable()
                vocabulary = (table.bytes, TokenTree(table.bytes, endTokens: table.endTokens))
                state.vocabulary = vocabulary
            }
            let masks: GrammarMasks
            if let index = state.masks.firstIndex(where: { $0.schema == schema }) {
                let known = state.masks.remove(at: index)
                state.masks.append(known)
                masks = known.masks
            } else {
                let grammar = schema == .null ? JSONGrammar.object : try JSONGrammar(schema: schema, path: "response_format.json_schema.schema")
                masks = GrammarMasks(grammar, vocabulary.tree)
                state.masks.append((schema, masks))
                if state.masks.count > Self.limit { state.masks.removeFirst() }
            }
            let bytes = vocabulary.bytes
            return { GrammarFilter(masks, bytes: bytes) }
        }
    }
}

/// `response_format` of a request.
struct ResponseForm: Sendable {
    /// The JSON schema; `null` for any object, `nil` for free text.
    let schema: JSONValue?

    static let text = ResponseForm(schema: nil)

    private init(schema: JSONValue?) { self.schema = schema }

    init(_ fields: inout RequestFields) throws {
        guard var format = try fields.object("response_format") else {
            self = .text
            return
        }
        switch try format.string("type") {
        case "text": schema = nil
        case "json_object": schema = .null
        case "json_schema":
            guard var named = try format.object("json_schema"), let given = named.take("schema") else {
                throw format.wrong("json_schema", expected: #"{"name": …, "schema": {…}}"#, found: nil)
            }
            for name in ["name", "description"] { _ = try named.string(name) }
            _ = try named.bool("strict")
            try named.expectNothingElse()
            schema = given
        case let type: throw format.wrong("type", expected: "text, json_object or json_schema", found: type.map(JSONValue.string))
        }
        try format.expectNothingElse()
    }
}
