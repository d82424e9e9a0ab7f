/// A byte-pair model as Hugging Face tokenizers (`"type": "BPE"`) and GGUF (`gpt2`) store it: a vocabulary and a ranked list of merges.
struct BytePairModel: Sendable {
    struct Options: Sendable {
        /// Replacement of characters outside the vocabulary.
        var unknownID: Int?
        /// Neighbouring unknown characters are one unknown token.
        var fusesUnknown = false
        /// Characters outside the vocabulary are encoded as the pieces `<0x00>` to `<0xFF>`, if it has them.
        var byteFallback = false
        /// A word that is a piece is that piece, whatever the merges say.
        var ignoresMerges = false
    }

    /// A merge whose parts or result the vocabulary does not have.
    enum UnknownMerge {
        /// As Hugging Face's tokenizers do, which also take the last of two equal entries.
        case fails
        /// As GGUF files need.
        case isSkipped
    }

    let pieces: PieceTable
    let options: Options
    private let merges: MergeTable
    private let byteIDs: [Int32]
    /// Ids of one-character pieces below U+0200, the characters of byte-level vocabularies among them; -1 where there is none.
    private let characterIDs: [Int32]

    /// - Parameters:
    ///   - merges: both parts of each, lowest rank first.
    ///   - unknownMerge: Hugging Face refuses merges of unknown tokens; GGUF files in the wild carry some.
    /// - Throws: ``CheckpointError/malformed(file:reason:)``
    init(pieces: [[UInt8]], merges: [(ArraySlice<UInt8>, ArraySlice<UInt8>)], options: Options, unknownMerge: UnknownMerge, file: String) throws {
        guard !pieces.isEmpty, pieces.contains(where: { !$0.isEmpty }) else {
            throw CheckpointError.malformed(file: file, reason: "the vocabulary is empty")
        }
        guard pieces.count < Int(Int32.max), merges.count < Int(Int32.max) else {
            throw CheckpointError.malformed(file: file, reason: "\(pieces.count) pieces and \(merges.count) merges are too many")
        }
        let table = PieceTable(pieces, findsLast: unknownMerge == .fails)
        self.pieces = table
        self.options = options
        var mergeTable = MergeTable(capacity: merges.count)
        var joined: [UInt8] = []
        for (rank, (left, right)) in merges.enumerated() {
            joined.removeAll(keepingCapacity: true)
            joined.append(contentsOf: left)
            joined.append(contentsOf: right)
            let ids = (table.find(left), table.find(right), table.find(joined))
            guard ids.0 >= 0, ids.1 >= 0, ids.2 >= 0 else {
                if unknownMerge == .isSkipped { continue }
                throw CheckpointError.malformed(
                    file: file,
                    reason: "merge \(rank), \"\(String(decoding: left, as: UTF8.self))\" and \"\(String(decoding: right, as: UTF8.self))\", "
                        + "names a token that the vocabulary does not have")
            }
            mergeTable.insert(left: Int32(ids.0), right: Int32(ids.1), rank: Int32(rank), result: Int32(ids.2))
        }
        self.merges = mergeTable
        byteIDs = (0..<256).map { byte in
            let digits = String(byte, radix: 16, uppercase: true)
            return Int32(table.find(Array("<0x\(digits.count == 1 ? "0" : "")\(digits)>".utf8)))
        }
        characterIDs = (0..<0x200).map { value in
            Unicode.Scalar(UInt32(value)).map { Int32(table.find(Array(String($0).utf8))) } ?? -1
        }
    }

    /// The merges by rank, as token ids.
    var orderedMerges: [(left: Int, right: Int, result: Int)] { merges.ordered }

    /// Longest stretch that is merged at once; longer words are cut there.
    private static let longestWord = 1 << 28

    /// Appends the token ids of one word.
    func encode(_ word: ArraySlice<UInt8>, with merger: inout PairMerger, symbols: inout [MergeSymbol], into ids: inout [Int]) {
        guard !word.isEmpty else { return }
        if word.count > Self.longestWord {
            encode(word.prefix(Self.longestWord), with: &merger, symbols: &symbols, into: &ids)
            encode(word.dropFirst(Self.longestWord), with: &merger, symbols: &symbols, into: &ids)
            return
        }
        if options.ignoresMerges {
            let id = pieces.find(word)
            if id >= 0 {
                ids.append(id)
                return
            }
        }
        split(word, into: &symbols)
        guard !symbols.isEmpty else { return }
        merger.merge(&symbols, by: Ranking(merges: merges))
        var index = 0
        while index >= 0 {
            ids.append(Int(symbols[index].id))
            index = Int(symbols[index].next)
        }
    }

    /// One symbol per character, or per byte where the vocabulary lacks the character.
    private func split(_ word: ArraySlice<UInt8>, into symbols: inout [MergeSymbol]) {
        symbols.removeAll(keepingCapacity: true)
        var isAfterUnknown = false
        var position = word.startIndex
        while position < word.endIndex {
            let (scalar, length) = UnicodeText.scalar(in: word, at: position)
            let character = word[position..<position + length]
            let id = scalar.value < characterIDs.count ? Int(characterIDs[Int(scalar.value)]) : pieces.find(character)
            if id >= 0 {
                append(id, at: position, length, &symbols)
                isAfterUnknown = false
            } else if options.byteFallback, character.allSatisfy({ byteIDs[Int($0)] >= 0 }) {
                for (offset, byte) in character.enumerated() { append(Int(byteIDs[Int(byte)]), at: position + offset, 1, &symbols) }
                isAfterUnknown = false
            } else if let unknown = options.unknownID {
                if isAfterUnknown && options.fusesUnknown {
                    symbols[symbols.count - 1].length += Int32(length)
                } else {
                    append(unknown, at: position, length, &symbols)
                }
                isAfterUnknown = true
            }
            position += length
        }
        if !symbols.isEmpty { symbols[symbols.count - 1].next = -1 }
    }

    private func append(_ id: Int, at position: Int, _ length: Int, _ symbols: inout [MergeSymbol]) {
        let index = Int32(symbols.count)
        symbols.append(
            MergeSymbol(
                id: Int32(truncatingIfNeeded: id), start: Int32(truncatingIfNeeded: position), length: Int32(length), previous: index - 1,
                next: index + 1))
    }

    private struct Ranking: PairRanking {
        let merges: MergeTable

        func rank(_ left: MergeSymbol, _ right: MergeSymbol) -> (rank: Int32, result: Int32)? {
            merges.find(left.id, right.id)
        }
    }
}
