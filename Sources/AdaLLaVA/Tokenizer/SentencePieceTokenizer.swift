/// A LLaMA-style tokenizer over a SentencePiece BPE model, as Hugging Face's `LlamaTokenizer` (the "slow" one, which LLaVA uses)
/// wraps it: added tokens are cut out of the text first, the beginning of sequence is put in front.
package final class SentencePieceTokenizer: Tokenizer {
    /// Settings around the model.
    struct Options: Sendable {
        /// Text that follows a special token gets the dummy space too (`legacy` in tokenizer_config.json; its default there is true).
        var isLegacy = true
        var addsBOS = true
        var addsEOS = false
        var bosToken: Int?
        var eosToken: Int?
        var unknownToken: Int?
        var padToken: Int?
        /// Added tokens, the special ones among the model's own pieces included.
        var addedTokens: [AddedToken] = []
        /// Hugging Face's decoding; otherwise SentencePiece's own.
        var decodesAsHuggingFace = true
        var endOfGeneration: Set<Int> = []
    }

    let model: SentencePieceModel
    let added: AddedTokens
    /// The model as text is encoded with it: outside legacy mode the dummy space is added here, not there.
    private let encoder: SentencePieceModel
    private let options: Options
    /// `<unk>` as text, and its number of pieces; see ``encodeText(_:)``.
    private let unknownText: [UInt8]
    private let unknownTextCount: Int
    package let vocabularySize: Int
    package let endOfGenerationTokens: Set<Int>

    init(model: SentencePieceModel, options: Options) {
        self.model = model
        self.options = options
        let added = AddedTokens(options.addedTokens)
        self.added = added
        var encoder = model
        if !options.isLegacy { encoder.normalization.addsDummyPrefix = false }
        self.encoder = encoder
        let unknownText = options.unknownToken.map { id in
            added[id].map { Array($0.content.utf8) } ?? Array(model.pieces[id])
        }
        self.unknownText = unknownText ?? []
        unknownTextCount = options.isLegacy ? 0 : encoder.pieceCount(unknownText ?? [])
        vocabularySize = max(model.count, added.largestID + 1)
        endOfGenerationTokens = options.endOfGeneration.union(options.eosToken.map { [$0] } ?? [])
    }

    /// Hugging Face's `legacy`: text that follows a special token gets the dummy space too.
    package var isLegacy: Bool { options.isLegacy }
    var addsEOS: Bool { options.addsEOS }
    package var bosToken: Int? { options.bosToken }
    package var eosToken: Int? { options.eosToken }
    package var unknownToken: Int? { options.unknownToken }
    package var padToken: Int? { options.padToken }
    package var addsBOS: Bool { options.addsBOS && options.bosToken != nil }

    package func isSpecial(_ id: Int) -> Bool {
        if let token = added[id] { return token.isSpecial }
        return model.kind(of: id) == .control
    }

    /// Added tokens that decoding sets apart: ordinary ones, and special ones beyond the model's pieces.
    func standsApart(_ id: Int) -> Bool {
        guard let token = added[id] else { return false }
        let named = [options.bosToken, options.eosToken, options.unknownToken, options.padToken]
        return !token.isSpecial || (id >= model.count && !named.contains(id))
    }

    package func token(_ text: String) -> Int? {
        if let id = added.id(of: text) { return id }
        let id = model.pieces.find(Array(text.utf8))
        return id >= 0 ? id : nil
    }

    package func bytes(of id: Int) -> [UInt8] {
        if let token = added[id] { return Array(token.content.utf8) }
        if let byte = model.byte(of: id) { return [byte] }
        var output: [UInt8] = []
        SentencePieceDetokenizer.appendUnescaped(model.pieces[id], to: &output)
        return output
    }

    package func segments(of text: String) -> [TokenizerSegment] {
        added.split(Array(text.utf8), special: true).map(TokenizerSegment.init)
    }

    package func segments(of text: String, where isToken: (Int) -> Bool) -> [TokenizerSegment] {
        added.split(Array(text.utf8), special: true) { isToken($0.id) }.map(TokenizerSegment.init)
    }

    package func encode(_ segments: [TokenizerSegment], addSpecialTokens: Bool, spelling: Set<Int>) -> [Int] {
        var parts = added.parts(of: segments) { !spelling.contains($0.id) }
        let hasPrefix = !options.isLegacy && !parts.isEmpty
        if hasPrefix { addPrefix(to: &parts) }
        var ids: [Int] = []
        if addSpecialTokens, options.addsBOS, let bos = options.bosToken { ids.append(bos) }
        let start = ids.count
        for part in added.stripped(parts) {
            switch part {
            case .token(let id): ids.append(id)
            case .text(let text): ids.append(contentsOf: encodeText(text))
            }
        }
        if hasPrefix, ids.count > start + 1, isSpecial(ids[start + 1]), model.pieces[ids[start]].elementsEqual(SentencePieceModel.spaceSymbol) {
            ids.remove(at: start)
        }
        if addSpecialTokens, options.addsEOS, let eos = options.eosToken { ids.append(eos) }
        return ids
    }

    package func makeDetokenizer(skipSpecialTokens: Bool) -> any Detokenizer {
        if options.decodesAsHuggingFace { return LlamaDetokenizer(self, skipSpecialTokens: skipSpecialTokens) }
        return PlainDetokenizer(tokenizer: self, skipSpecialTokens: skipSpecialTokens, pieces: SentencePieceDetokenizer(model))
    }

    /// Outside legacy mode a text as a whole, not each of its stretches, gets the dummy space; U+2581 in it counts as a space.
    private func addPrefix(to parts: inout [AddedTokens.Part]) {
        let space = SentencePieceModel.spaceSymbol
        parts = parts.map { part in
            guard case .text(let text) = part else { return part }
            return .text(ByteText.replacing(space, with: [UInt8(ascii: " ")], in: text))
        }
        if case .text(let first) = parts[0] {
            parts[0] = .text(space + first)
        } else {
            parts.insert(.text(space), at: 0)
        }
    }

    /// Outside legacy mode a text that begins with a space is encoded after `<unk>`, whose pieces are then dropped, because SentencePiece
    /// could otherwise strip that space.
    private func encodeText(_ text: [UInt8]) -> [Int] {
        guard !options.isLegacy, text.starts(with: SentencePieceModel.spaceSymbol) || text.first == UInt8(ascii: " ") else {
            return encoder.encode(text)
        }
        let ids = encoder.encode(unknownText + text)
        return ids.count >= unknownTextCount ? Array(ids.dropFirst(unknownTextCount)) : ids
    }

    /// SentencePiece's own decoding with special tokens left out or written out.
    private struct PlainDetokenizer: Detokenizer {
        let tokenizer: SentencePieceTokenizer
        let skipSpecialTokens: Bool
        var pieces: SentencePieceDetokenizer

        mutating func push(_ id: Int, into output: inout [UInt8]) {
            let isSpecial = tokenizer.isSpecial(id)
            if isSpecial || tokenizer.added[id] != nil {
                if isSpecial && skipSpecialTokens { return }
                pieces.pushText(tokenizer.bytes(of: id), into: &output)
            } else {
                pieces.push(id, into: &output)
            }
        }

        mutating func finish(into output: inout [UInt8]) { pieces.finish(into: &output) }
    }
}

extension TokenizerSegment {
    init(_ part: AddedTokens.Part) {
        switch part {
        case .text(let text): self = .text(String(decoding: text, as: UTF8.self))
        case .token(let id): self = .token(id)
        }
    }
}

extension AddedTokens {
    /// The segments with neighbouring texts joined and ordinary (not special) added tokens cut out of them.
    func parts(of segments: [TokenizerSegment], where include: (AddedToken) -> Bool = { _ in true }) -> [Part] {
        var parts: [Part] = []
        var text: [UInt8] = []
        for segment in segments {
            switch segment {
            case .text(let more): text.append(contentsOf: more.utf8)
            case .token(let id):
                parts.append(contentsOf: split(text, special: false, where: include))
                text = []
                parts.append(.token(id))
            }
        }
        return parts + split(text, special: false, where: include)
    }
}
