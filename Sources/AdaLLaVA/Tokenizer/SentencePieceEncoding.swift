/// SentencePiece's BPE encoding: normalize spaces, cut out user-defined symbols, merge by score, spell the rest in bytes.
extension SentencePieceModel {
    /// Longest stretch that is merged at once; longer texts are cut there.
    private static let longestText = 1 << 28

    /// Token ids of a text without any special token. Control pieces written in it are not recognized.
    func encode(_ text: [UInt8]) -> [Int] {
        var ids: [Int] = []
        for (id, bytes) in encodePieces(text) {
            if let byteIDs, id < 0 || id == unknownID {
                for byte in bytes { ids.append(Int(byteIDs[Int(byte)])) }
            } else {
                ids.append(id)
            }
        }
        return ids
    }

    /// How many pieces SentencePiece returns for a text: byte pieces each count, a run of unknown characters counts once.
    func pieceCount(_ text: [UInt8]) -> Int { encode(text).count }

    private func encodePieces(_ text: [UInt8]) -> [(id: Int, bytes: ArraySlice<UInt8>)] {
        let normalized = normalize(text)
        var result: [(id: Int, bytes: ArraySlice<UInt8>)] = []
        var start = 0
        while start < normalized.count {
            let end = min(start + Self.longestText, normalized.count)
            for piece in merge(Array(normalized[start..<end])) {
                // Neighbouring unknown characters are one unknown piece.
                if byteIDs == nil, piece.id == unknownID, let last = result.last, last.id == unknownID { continue }
                result.append(piece)
            }
            start = end
        }
        return result
    }

    /// The text with its spaces treated as ``Normalization`` says.
    func normalize(_ text: [UInt8]) -> [UInt8] {
        let space = UInt8(ascii: " ")
        var body = text[...]
        if normalization.removesExtraWhitespace {
            body = body.drop { $0 == space }
        }
        guard !body.isEmpty else { return [] }
        let symbol = normalization.escapesWhitespace ? Self.spaceSymbol : [space]
        var output: [UInt8] = []
        output.reserveCapacity(body.count + body.count / 4 + 8)
        if normalization.addsDummyPrefix && !normalization.whitespaceIsSuffix { output.append(contentsOf: symbol) }
        var afterSpace = normalization.removesExtraWhitespace
        for byte in body {
            if byte == space {
                if afterSpace { continue }
                output.append(contentsOf: symbol)
                afterSpace = normalization.removesExtraWhitespace
            } else {
                output.append(byte)
                afterSpace = false
            }
        }
        if normalization.removesExtraWhitespace {
            while output.count >= symbol.count, output.suffix(symbol.count).elementsEqual(symbol) { output.removeLast(symbol.count) }
        }
        if normalization.addsDummyPrefix && normalization.whitespaceIsSuffix { output.append(contentsOf: symbol) }
        return output
    }

    private func merge(_ text: [UInt8]) -> [(id: Int, bytes: ArraySlice<UInt8>)] {
        var symbols = symbols(of: text)
        // Where a piece that may only be used as a step (kind `unused`) was last put together: its left part's length in bytes.
        var unusedSplits: [Int32: Int32] = [:]
        text.withUnsafeBufferPointer { bytes in
            var merger = PairMerger()
            merger.merge(&symbols, by: Ranking(model: self, text: bytes)) { left, _, result in
                if kinds[Int(result)] == .unused { unusedSplits[result] = left.length }
            }
        }
        var result: [(id: Int, bytes: ArraySlice<UInt8>)] = []
        result.reserveCapacity(symbols.count / 2)
        var index = symbols.isEmpty ? -1 : 0
        while index >= 0 {
            let symbol = symbols[index]
            let start = Int(symbol.start)
            resegment(text[start..<start + Int(symbol.length)], unusedSplits, into: &result)
            index = Int(symbol.next)
        }
        return result
    }

    /// One symbol per character or user-defined symbol.
    private func symbols(of text: [UInt8]) -> [MergeSymbol] {
        var symbols: [MergeSymbol] = []
        symbols.reserveCapacity(text.count)
        text.withUnsafeBufferPointer { bytes in
            var position = 0
            while position < bytes.count {
                var end = min(position + max(1, UTF8Shape.expectedLength(bytes[position])), bytes.count)
                var isFrozen = false
                if let symbol = userDefined.longest(in: bytes, at: position) {
                    end = symbol.end
                    isFrozen = true
                }
                symbols.append(
                    MergeSymbol(
                        id: -1, start: Int32(position), length: Int32(end - position), previous: Int32(symbols.count - 1),
                        next: end < bytes.count ? Int32(symbols.count + 1) : -1, isFrozen: isFrozen))
                position = end
            }
        }
        return symbols
    }

    /// Appends a piece, taken apart again as long as it is one that must not be used.
    private func resegment(
        _ bytes: ArraySlice<UInt8>, _ unusedSplits: [Int32: Int32], into result: inout [(id: Int, bytes: ArraySlice<UInt8>)]
    ) {
        var pending = [bytes]
        while let piece = pending.popLast() {
            let id = pieces.find(piece)
            if id >= 0, kinds[id] == .unused, let left = unusedSplits[Int32(id)] {
                pending.append(piece.dropFirst(Int(left)))
                pending.append(piece.prefix(Int(left)))
            } else {
                result.append((id >= 0 ? id : unknownID ?? -1, piece))
            }
        }
    }

    /// Two neighbours may merge if their joined text is a piece of the vocabulary.
    private struct Ranking: PairRanking {
        let model: SentencePieceModel
        let text: UnsafeBufferPointer<UInt8>

        func rank(_ left: MergeSymbol, _ right: MergeSymbol) -> (rank: Int32, result: Int32)? {
            let start = Int(left.start)
            let end = Int(right.start) + Int(right.length)
            let id = model.pieces.find(UnsafeBufferPointer(rebasing: text[start..<end]))
            guard id >= 0 else { return nil }
            switch model.kinds[id] {
            case .normal, .userDefined, .unused: return (model.ranks[id], Int32(truncatingIfNeeded: id))
            case .unknown, .control, .byte: return nil
            }
        }
    }
}
