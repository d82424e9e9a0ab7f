/// SentencePiece's decoding, one piece at a time: byte pieces gather into characters, U+2581 becomes a space, and the space that
/// encoding put in front of a text is taken away again.
struct SentencePieceDetokenizer: Detokenizer {
    private let model: SentencePieceModel
    private var bytes = UTF8Assembler(replacing: .everyByte)
    private var expectsLeadingSpace = true
    private var tookLeadingSpace = false
    private var isEmpty = true

    init(_ model: SentencePieceModel) {
        self.model = model
    }

    mutating func push(_ id: Int, into output: inout [UInt8]) {
        guard id >= 0 && id < model.count else { return }
        push(piece: model.pieces[id], id: id, into: &output)
    }

    /// - Parameters:
    ///   - piece: the text of the piece, which can be shorter than piece `id`'s own.
    ///   - id: -1 for a text that is no piece.
    mutating func push(piece: ArraySlice<UInt8>, id: Int, into output: inout [UInt8]) {
        let before = output.count
        defer { if output.count > before { isEmpty = false } }
        if let byte = model.byte(of: id) {
            bytes.push(CollectionOfOne(byte), into: &output)
            return
        }
        bytes.finish(into: &output)
        if tookLeadingSpace || !isEmpty || output.count > before { expectsLeadingSpace = false }
        tookLeadingSpace = false
        let kind = model.kind(of: id) ?? .unknown
        switch kind {
        case .control: break
        case .unknown: output.append(contentsOf: id >= 0 ? model.unknownSurface[...] : piece)
        default:
            var text = piece
            let space = SentencePieceModel.spaceSymbol
            let normalization = model.normalization
            if expectsLeadingSpace, normalization.addsDummyPrefix || normalization.removesExtraWhitespace, text.starts(with: space) {
                text = text.dropFirst(space.count)
                tookLeadingSpace = !normalization.removesExtraWhitespace
            }
            Self.appendUnescaped(text, to: &output)
        }
    }

    /// A token that is written out as it is.
    mutating func pushText(_ text: [UInt8], into output: inout [UInt8]) {
        bytes.finish(into: &output)
        output.append(contentsOf: text)
        isEmpty = false
    }

    mutating func finish(into output: inout [UInt8]) {
        bytes.finish(into: &output)
    }

    /// Appends with every U+2581 as a space.
    static func appendUnescaped(_ text: ArraySlice<UInt8>, to output: inout [UInt8]) {
        let space = SentencePieceModel.spaceSymbol
        var rest = text
        while let first = rest.first {
            if first == space[0] && rest.starts(with: space) {
                output.append(UInt8(ascii: " "))
                rest = rest.dropFirst(space.count)
            } else {
                output.append(first)
                rest = rest.dropFirst()
            }
        }
    }
}

/// Decoding as Hugging Face's (slow) `LlamaTokenizer` does it around SentencePiece: added tokens are separated by a space,
/// special tokens keep their text, and the first piece loses its leading space before SentencePiece sees it.
struct LlamaDetokenizer: Detokenizer {
    private let tokenizer: SentencePieceTokenizer
    private let skipSpecialTokens: Bool
    /// Bytes that a segment before a special token would get a space in front of: known only once that token comes.
    private var segment: [UInt8] = []
    private var pieces: SentencePieceDetokenizer
    /// Tokens in the group since the last added token.
    private var groupCount = 0
    private var groupHasText = false
    private var previousIsSpecial = false
    /// Whether something was decoded before this group, so that a space parts them.
    private var hasEarlierText = false

    init(_ tokenizer: SentencePieceTokenizer, skipSpecialTokens: Bool) {
        self.tokenizer = tokenizer
        self.skipSpecialTokens = skipSpecialTokens
        pieces = SentencePieceDetokenizer(tokenizer.model)
    }

    /// Special tokens get a space before them in legacy mode, so the text before them waits for them.
    private var holdsSegments: Bool { !skipSpecialTokens && tokenizer.isLegacy }

    mutating func push(_ id: Int, into output: inout [UInt8]) {
        if tokenizer.standsApart(id) {
            endGroup(into: &output)
            if hasEarlierText { output.append(UInt8(ascii: " ")) }
            output.append(contentsOf: tokenizer.bytes(of: id))
            hasEarlierText = true
        } else if tokenizer.isSpecial(id) {
            if skipSpecialTokens { return }
            pushSpecial(id, into: &output)
            groupCount += 1
        } else {
            guard id >= 0 && id < tokenizer.model.count else { return }
            pushPiece(id, into: &output)
            groupCount += 1
        }
    }

    mutating func finish(into output: inout [UInt8]) {
        // A last group that decodes to nothing still gets its space.
        if groupCount > 0 {
            endSegment(into: &output)
            if !groupHasText && hasEarlierText { output.append(UInt8(ascii: " ")) }
        }
    }

    private mutating func pushPiece(_ id: Int, into output: inout [UInt8]) {
        var text = tokenizer.model.pieces[id]
        var known = id
        if groupCount == 0 && text.starts(with: SentencePieceModel.spaceSymbol) {
            text = text.dropFirst(SentencePieceModel.spaceSymbol.count)
            known = tokenizer.model.pieces.find(text)
        }
        previousIsSpecial = false
        var decoded: [UInt8] = []
        pieces.push(piece: text, id: known, into: &decoded)
        append(decoded, into: &output)
    }

    private mutating func pushSpecial(_ id: Int, into output: inout [UInt8]) {
        let needsSpace = tokenizer.isLegacy && !previousIsSpecial && groupCount > 0
        if needsSpace { emit([UInt8(ascii: " ")], into: &output) }
        endSegment(into: &output)
        emit(tokenizer.bytes(of: id), into: &output)
        previousIsSpecial = true
    }

    private mutating func append(_ decoded: [UInt8], into output: inout [UInt8]) {
        if holdsSegments {
            segment.append(contentsOf: decoded)
        } else {
            emit(decoded, into: &output)
        }
    }

    /// Ends a text that SentencePiece decodes in one call.
    private mutating func endSegment(into output: inout [UInt8]) {
        var decoded: [UInt8] = []
        pieces.finish(into: &decoded)
        append(decoded, into: &output)
        emit(segment, into: &output)
        segment = []
        pieces = SentencePieceDetokenizer(tokenizer.model)
    }

    private mutating func endGroup(into output: inout [UInt8]) {
        guard groupCount > 0 else { return }
        endSegment(into: &output)
        if groupHasText { hasEarlierText = true }
        (groupCount, groupHasText, previousIsSpecial) = (0, false, false)
    }

    private mutating func emit(_ bytes: [UInt8], into output: inout [UInt8]) {
        guard !bytes.isEmpty else { return }
        if !groupHasText && hasEarlierText { output.append(UInt8(ascii: " ")) }
        groupHasText = true
        output.append(contentsOf: bytes)
    }
}
