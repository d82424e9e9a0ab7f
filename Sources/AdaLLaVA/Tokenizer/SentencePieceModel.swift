/// A SentencePiece BPE model: its pieces with their scores and kinds, and how text is normalized before merging.
///
/// Read from `tokenizer.model` (sentencepiece_model.proto) or built from a GGUF vocabulary. Only BPE models with the identity
/// normalization are accepted, as LLaMA, Vicuna and their relatives use them.
struct SentencePieceModel: Sendable {
    /// The kinds of pieces, numbered as SentencePiece and GGUF number them.
    enum Kind: UInt8, Sendable {
        case normal = 1
        case unknown, control, userDefined, unused, byte
    }

    /// How spaces are treated before and after merging.
    struct Normalization: Sendable, Equatable {
        /// A space in front of every text, so that its first word is spelled as inside a sentence.
        var addsDummyPrefix = true
        var removesExtraWhitespace = true
        /// Spaces become U+2581, the form pieces have them in.
        var escapesWhitespace = true
        /// The dummy space goes to the end instead.
        var whitespaceIsSuffix = false
    }

    static let spaceSymbol: [UInt8] = [0xE2, 0x96, 0x81]

    let pieces: PieceTable
    let kinds: [Kind]
    /// By id: 0 for the best score; equal scores share a rank.
    let ranks: [Int32]
    var normalization: Normalization
    let unknownID: Int?
    let bosID: Int?
    let eosID: Int?
    let padID: Int?
    /// Text of a decoded unknown piece.
    let unknownSurface: [UInt8]
    /// Ids of the 256 byte pieces; `nil` without byte fallback.
    let byteIDs: [Int32]?
    /// The byte of a byte piece.
    private let byteValues: [Int: UInt8]
    /// Symbols that are cut out of a text before merging.
    let userDefined: TokenTrie

    /// - Throws: ``CheckpointError/malformed(file:reason:)`` when the pieces cannot make a vocabulary.
    init(
        pieces: [[UInt8]], scores: [Float], kinds: [Kind], normalization: Normalization, byteFallback: Bool,
        unknownID: Int?, bosID: Int?, eosID: Int?, padID: Int?, unknownSurface: [UInt8] = Array(" \u{2047} ".utf8), file: String
    ) throws {
        guard !pieces.isEmpty else { throw CheckpointError.malformed(file: file, reason: "the vocabulary is empty") }
        guard pieces.count == scores.count, pieces.count == kinds.count, pieces.count < Int(Int32.max) else {
            throw CheckpointError.malformed(
                file: file, reason: "\(pieces.count) pieces, \(scores.count) scores and \(kinds.count) kinds do not fit together")
        }
        if let id = scores.firstIndex(where: \.isNaN) {
            throw CheckpointError.malformed(file: file, reason: "the score of piece \(id) is not a number")
        }
        self.pieces = PieceTable(pieces)
        self.kinds = kinds
        self.ranks = Self.ranks(scores)
        self.normalization = normalization
        self.unknownID = unknownID
        self.bosID = bosID
        self.eosID = eosID
        self.padID = padID
        self.unknownSurface = unknownSurface
        var byteIDs = [Int32](repeating: -1, count: 256)
        var byteValues: [Int: UInt8] = [:]
        for (id, kind) in kinds.enumerated() where kind == .byte {
            guard let byte = Self.byteValue(pieces[id]) else {
                throw CheckpointError.malformed(
                    file: file,
                    reason: "byte piece \(id) is \"\(String(decoding: pieces[id], as: UTF8.self))\"; expected <0x00> to <0xFF>")
            }
            byteIDs[Int(byte)] = Int32(id)
            byteValues[id] = byte
        }
        self.byteValues = byteValues
        if byteFallback {
            if let missing = byteIDs.firstIndex(of: -1) {
                throw CheckpointError.malformed(file: file, reason: "byte fallback needs 256 byte pieces, but the one for byte \(missing) is missing")
            }
            self.byteIDs = byteIDs
        } else {
            guard unknownID != nil else {
                throw CheckpointError.malformed(file: file, reason: "there is neither an unknown piece nor byte fallback")
            }
            self.byteIDs = nil
        }
        var userDefined = TokenTrie()
        for (id, kind) in kinds.enumerated() where kind == .userDefined { userDefined.insert(pieces[id], id: id) }
        self.userDefined = userDefined
    }

    var count: Int { kinds.count }

    /// The byte of piece `id`, if it is a byte piece.
    func byte(of id: Int) -> UInt8? { byteValues[id] }

    func kind(of id: Int) -> Kind? { kinds.indices.contains(id) ? kinds[id] : nil }

    /// Dense ranks, best score first.
    private static func ranks(_ scores: [Float]) -> [Int32] {
        let order = scores.indices.sorted { scores[$0] > scores[$1] }
        var ranks = [Int32](repeating: 0, count: scores.count)
        var rank: Int32 = 0
        for (position, id) in order.enumerated() {
            if position > 0 && scores[order[position - 1]] != scores[id] { rank += 1 }
            ranks[id] = rank
        }
        return ranks
    }

    /// `<0x41>` is byte 65.
    static func byteValue(_ piece: some Collection<UInt8>) -> UInt8? {
        let text = Array(piece)
        guard text.count == 6, text.starts(with: Array("<0x".utf8)), text[5] == UInt8(ascii: ">"),
            text[3...4].allSatisfy({ Character(UnicodeScalar($0)).isHexDigit })
        else { return nil }
        return UInt8(String(decoding: text[3...4], as: UTF8.self), radix: 16)
    }
}

extension SentencePieceModel {
    /// Reads the bytes of a `tokenizer.model` file.
    /// - Throws: ``CheckpointError/malformed(file:reason:)`` for damaged files, ``CheckpointError/unsupported(what:file:hint:)`` for
    ///   unigram, word and character models and for models that rewrite characters.
    init(tokenizerModel bytes: [UInt8], file: String) throws {
        var contents = ModelFile()
        do {
            try contents.read(bytes[...])
        } catch {
            throw CheckpointError.malformed(file: file, reason: error.reason)
        }
        guard contents.modelType == 2 else {
            let name = [1: "unigram", 3: "word", 4: "character"][contents.modelType] ?? "number \(contents.modelType)"
            throw CheckpointError.unsupported(
                what: "a SentencePiece model of type \(name)", file: file, hint: "only BPE models are read")
        }
        guard contents.charsMap.isEmpty else {
            throw CheckpointError.unsupported(
                what: "the SentencePiece normalization \"\(contents.normalizationName)\" (a precompiled map of \(contents.charsMap.count) bytes)",
                file: file, hint: "only the identity normalization is read")
        }
        let unknown = contents.pieces.firstIndex { $0.kind == .unknown }
        guard let unknown else { throw CheckpointError.malformed(file: file, reason: "the vocabulary has no unknown piece") }
        // As SentencePiece does, trust the piece's text where the stored id does not name a control piece.
        func control(_ id: Int, _ text: [UInt8]) -> Int? {
            contents.pieces.firstIndex { $0.kind == .control && $0.text == text }
                ?? (contents.pieces.indices.contains(id) && contents.pieces[id].kind == .control ? id : nil)
        }
        if let id = contents.pieces.firstIndex(where: { $0.text.isEmpty }) {
            throw CheckpointError.malformed(file: file, reason: "piece \(id) is empty")
        }
        try self.init(
            pieces: contents.pieces.map(\.text), scores: contents.pieces.map(\.score), kinds: contents.pieces.map(\.kind),
            normalization: contents.normalization, byteFallback: contents.byteFallback, unknownID: unknown,
            bosID: control(contents.bosID, contents.bosPiece), eosID: control(contents.eosID, contents.eosPiece),
            padID: control(contents.padID, contents.padPiece), unknownSurface: contents.unknownSurface, file: file)
    }

    /// The fields of sentencepiece_model.proto that matter here, with their defaults.
    private struct ModelFile {
        var pieces: [(text: [UInt8], score: Float, kind: Kind)] = []
        var modelType = 1
        var byteFallback = false
        var bosID = 1
        var eosID = 2
        var padID = -1
        var bosPiece = Array("<s>".utf8)
        var eosPiece = Array("</s>".utf8)
        var padPiece = Array("<pad>".utf8)
        var unknownSurface = Array(" \u{2047} ".utf8)
        var normalization = Normalization()
        var normalizationName = ""
        var charsMap: ArraySlice<UInt8> = []

        mutating func read(_ bytes: ArraySlice<UInt8>) throws(ProtobufReader.Malformed) {
            var reader = ProtobufReader(bytes)
            while let (field, value) = try reader.next() {
                switch (field, value) {
                case (1, .bytes(let message)): try readPiece(message)
                case (2, .bytes(let message)): try readTrainer(message)
                case (3, .bytes(let message)): try readNormalizer(message)
                default: break
                }
            }
        }

        private mutating func readPiece(_ bytes: ArraySlice<UInt8>) throws(ProtobufReader.Malformed) {
            var piece: (text: [UInt8], score: Float, kind: Kind) = ([], 0, .normal)
            var reader = ProtobufReader(bytes)
            while let (field, value) = try reader.next() {
                switch (field, value) {
                case (1, .bytes(let text)): piece.text = Array(text)
                case (2, .fixed32(let bits)): piece.score = Float(bitPattern: bits)
                case (3, .varint(let number)):
                    guard let kind = UInt8(exactly: number).flatMap(Kind.init(rawValue:)) else {
                        throw ProtobufReader.Malformed(reason: "piece \(pieces.count) is of the unknown type \(number)")
                    }
                    piece.kind = kind
                default: break
                }
            }
            pieces.append(piece)
        }

        private mutating func readTrainer(_ bytes: ArraySlice<UInt8>) throws(ProtobufReader.Malformed) {
            var reader = ProtobufReader(bytes)
            while let (field, value) = try reader.next() {
                switch (field, value) {
                case (3, .varint(let number)): modelType = Int(clamping: number)
                case (24, .varint(let number)): normalization.whitespaceIsSuffix = number != 0
                case (35, .varint(let number)): byteFallback = number != 0
                // Ids are int32: a negative one is stored sign-extended to ten bytes.
                case (41, .varint(let number)): bosID = Int(Int32(truncatingIfNeeded: number))
                case (42, .varint(let number)): eosID = Int(Int32(truncatingIfNeeded: number))
                case (43, .varint(let number)): padID = Int(Int32(truncatingIfNeeded: number))
                case (44, .bytes(let text)): unknownSurface = Array(text)
                case (46, .bytes(let text)): bosPiece = Array(text)
                case (47, .bytes(let text)): eosPiece = Array(text)
                case (48, .bytes(let text)): padPiece = Array(text)
                default: break
                }
            }
        }

        private mutating func readNormalizer(_ bytes: ArraySlice<UInt8>) throws(ProtobufReader.Malformed) {
            var reader = ProtobufReader(bytes)
            while let (field, value) = try reader.next() {
                switch (field, value) {
                case (1, .bytes(let text)): normalizationName = String(decoding: text, as: UTF8.self)
                case (2, .bytes(let map)): charsMap = map
                case (3, .varint(let number)): normalization.addsDummyPrefix = number != 0
                case (4, .varint(let number)): normalization.removesExtraWhitespace = number != 0
                case (5, .varint(let number)): normalization.escapesWhitespace = number != 0
                default: break
                }
            }
        }
    }
}
