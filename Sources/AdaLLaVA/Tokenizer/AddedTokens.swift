/// A token outside a model's merges, which is found in a text before any other step.
package struct AddedToken: Sendable, Equatable {
    /// The token's id.
    package var id: Int
    /// The text that it is found by.
    package var content: String
    /// A control token: users cannot write it, and it is left out of decoded text on request.
    package var isSpecial: Bool
    /// Whitespace on its left belongs to it.
    package var stripsLeft: Bool
    /// Whitespace on its right belongs to it.
    package var stripsRight: Bool
    /// Only found where no letter, digit or underscore touches it.
    package var isSingleWord: Bool
    /// Looked for in normalized text, after the others.
    package var isNormalized: Bool

    /// A token given by value.
    package init(
        id: Int, content: String, isSpecial: Bool, stripsLeft: Bool = false, stripsRight: Bool = false,
        isSingleWord: Bool = false, isNormalized: Bool = false
    ) {
        (self.id, self.content, self.isSpecial) = (id, content, isSpecial)
        (self.stripsLeft, self.stripsRight) = (stripsLeft, stripsRight)
        (self.isSingleWord, self.isNormalized) = (isSingleWord, isNormalized)
    }
}

/// Finds the longest of a set of byte strings at a position, in time linear in its length.
struct TokenTrie: Sendable {
    private var edges: [UInt64: Int32] = [:]
    private var ids: [Int32] = [-1]
    private var isFirst = [Bool](repeating: false, count: 256)

    var isEmpty: Bool { edges.isEmpty }

    mutating func insert(_ token: some Sequence<UInt8>, id: Int) {
        var node: Int32 = 0
        for byte in token {
            if node == 0 { isFirst[Int(byte)] = true }
            let edge = UInt64(UInt32(bitPattern: node)) << 8 | UInt64(byte)
            if let next = edges[edge] {
                node = next
            } else {
                let next = Int32(truncatingIfNeeded: ids.count)
                edges[edge] = next
                ids.append(-1)
                node = next
            }
        }
        if node != 0 { ids[Int(node)] = Int32(truncatingIfNeeded: id) }
    }

    /// Whether some token starts with `byte`.
    func canStart(with byte: UInt8) -> Bool { isFirst[Int(byte)] }

    /// The longest token that starts at `position`, unless `accept` refuses it.
    func longest(
        in text: UnsafeBufferPointer<UInt8>, at position: Int, accept: (_ id: Int, _ end: Int) -> Bool = { _, _ in true }
    ) -> (id: Int, end: Int)? {
        guard position < text.count, isFirst[Int(text[position])] else { return nil }
        var best: (id: Int, end: Int)?
        var node: Int32 = 0
        var index = position
        while index < text.count, let next = edges[UInt64(UInt32(bitPattern: node)) << 8 | UInt64(text[index])] {
            node = next
            index += 1
            let id = Int(ids[Int(node)])
            if id >= 0 && accept(id, index) { best = (id, index) }
        }
        return best
    }
}

/// The added tokens of a tokenizer: finds them in text and knows which are special.
struct AddedTokens: Sendable {
    /// A stretch of text or a token.
    enum Part: Equatable {
        case text([UInt8])
        case token(Int)
    }

    private let byID: [Int: AddedToken]
    private let ids: [String.UTF8View.Key: Int]
    private let all: TokenTrie
    private let ordinary: TokenTrie
    let largestID: Int

    /// Tokens with an empty text are left out; of two with the same text the later one counts.
    init(_ tokens: [AddedToken]) {
        var byID: [Int: AddedToken] = [:]
        var ids: [String.UTF8View.Key: Int] = [:]
        var (all, ordinary) = (TokenTrie(), TokenTrie())
        for token in tokens where !token.content.isEmpty {
            byID[token.id] = token
            ids[token.content.utf8.key] = token.id
        }
        for token in byID.values.sorted(by: { $0.id < $1.id }) where ids[token.content.utf8.key] == token.id {
            all.insert(token.content.utf8, id: token.id)
            if !token.isSpecial { ordinary.insert(token.content.utf8, id: token.id) }
        }
        (self.byID, self.ids, self.all, self.ordinary) = (byID, ids, all, ordinary)
        largestID = byID.keys.max() ?? -1
    }

    subscript(id: Int) -> AddedToken? { byID[id] }

    var tokens: [AddedToken] { byID.values.sorted { $0.id < $1.id } }

    func id(of content: String) -> Int? { ids[content.utf8.key] }

    func isSpecial(_ id: Int) -> Bool { byID[id]?.isSpecial ?? false }

    /// Cuts a text at its added tokens: leftmost first, longest among those that start together.
    /// - Parameter special: whether special tokens are looked for, or only ordinary ones.
    func split(_ text: [UInt8], special: Bool, where include: (AddedToken) -> Bool = { _ in true }) -> [Part] {
        let trie = special ? all : ordinary
        guard !trie.isEmpty else { return text.isEmpty ? [] : [.text(text)] }
        var parts: [Part] = []
        text.withUnsafeBufferPointer { bytes in
            var start = 0
            var position = 0
            while position < bytes.count {
                let found = trie.longest(in: bytes, at: position) { id, end in
                    guard let token = byID[id], include(token) else { return false }
                    return !token.isSingleWord || Self.standsAlone(bytes, position..<end)
                }
                if let found {
                    if start < position { parts.append(.text(Array(bytes[start..<position]))) }
                    parts.append(.token(found.id))
                    position = found.end
                    start = position
                } else {
                    position += 1
                }
            }
            if start < bytes.count { parts.append(.text(Array(bytes[start...]))) }
        }
        return parts
    }

    /// Lets tokens that take whitespace with them take it from their neighbours; text left empty is dropped.
    func stripped(_ parts: [Part]) -> [Part] {
        var result: [Part] = []
        var stripsNext = false
        for part in parts {
            switch part {
            case .token(let id):
                if byID[id]?.stripsLeft == true, case .text(let text) = result.last {
                    result.removeLast()
                    let kept = UnicodeText.trimmingWhitespace(text, atEnd: true)
                    if !kept.isEmpty { result.append(.text(kept)) }
                }
                result.append(part)
                stripsNext = byID[id]?.stripsRight ?? false
            case .text(let text):
                let kept = stripsNext ? UnicodeText.trimmingWhitespace(text, atEnd: false) : text
                if !kept.isEmpty { result.append(.text(kept)) }
                stripsNext = false
            }
        }
        return result
    }

    private static func standsAlone(_ text: UnsafeBufferPointer<UInt8>, _ range: Range<Int>) -> Bool {
        // A character before the token starts at most three bytes in front of it.
        var start = range.lowerBound
        repeat { start -= 1 } while start > 0 && text[start] & 0xC0 == 0x80 && start > range.lowerBound - 4
        if start >= 0, UnicodeText.isWord(scalar(text, start..<range.lowerBound)) { return false }
        let end = min(range.upperBound + 4, text.count)
        return range.upperBound == text.count || !UnicodeText.isWord(scalar(text, range.upperBound..<end))
    }

    private static func scalar(_ text: UnsafeBufferPointer<UInt8>, _ range: Range<Int>) -> Unicode.Scalar {
        let bytes = Array(text[range])
        return UnicodeText.scalar(in: bytes[...], at: 0).scalar
    }
}

extension String.UTF8View {
    /// A dictionary key that keeps texts apart that Swift's `String` holds equal (composed and decomposed accents).
    struct Key: Hashable, Sendable {
        let bytes: [UInt8]
    }

    var key: Key { Key(bytes: Array(self)) }
}
