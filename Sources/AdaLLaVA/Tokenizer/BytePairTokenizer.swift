/// A byte-pair tokenizer: the pipeline of Hugging Face's tokenizer.json, which GGUF's `gpt2` vocabularies are a case of.
///
/// Added tokens are cut out; each text between them is normalized, split into words, and every word merged.
package final class BytePairTokenizer: Tokenizer {
    struct Options: Sendable {
        var normalizers: [TextNormalizer] = []
        var preTokenizers: [PreTokenizer] = []
        /// Empty: tokens are joined with spaces.
        var decoders: [TokenDecoder] = []
        var addedTokens: [AddedToken] = []
        /// Put around a sequence when special tokens are wanted.
        var prefix: [Int] = []
        var suffix: [Int] = []
        var bosToken: Int?
        var eosToken: Int?
        var unknownToken: Int?
        var padToken: Int?
        var endOfGeneration: Set<Int> = []
    }

    let model: BytePairModel
    let options: Options
    private let added: AddedTokens
    /// Ordinary added tokens that are looked for after normalization, with their texts normalized.
    private let normalizedAdded: AddedTokens
    private let isByteLevel: Bool
    package let vocabularySize: Int
    package let endOfGenerationTokens: Set<Int>

    init(model: BytePairModel, options: Options) {
        self.model = model
        self.options = options
        added = AddedTokens(options.addedTokens)
        normalizedAdded = AddedTokens(
            options.addedTokens.filter { $0.isNormalized && !$0.isSpecial }.map { token in
                var token = token
                let content = Self.normalize(Array(token.content.utf8), options.normalizers)
                token.content = String(decoding: content, as: UTF8.self)
                return token
            })
        isByteLevel = options.decoders.contains { if case .byteLevel = $0 { true } else { false } }
        vocabularySize = max(model.pieces.count, added.largestID + 1)
        endOfGenerationTokens = options.endOfGeneration.union(options.eosToken.map { [$0] } ?? [])
    }

    package var bosToken: Int? { options.bosToken }
    package var eosToken: Int? { options.eosToken }
    package var unknownToken: Int? { options.unknownToken }
    package var padToken: Int? { options.padToken }
    package var addsBOS: Bool { options.bosToken.map { options.prefix.contains($0) } ?? false }

    package func isSpecial(_ id: Int) -> Bool { added.isSpecial(id) }

    package func token(_ text: String) -> Int? {
        if let id = added.id(of: text) { return id }
        let id = model.pieces.find(Array(text.utf8))
        return id >= 0 ? id : nil
    }

    package func bytes(of id: Int) -> [UInt8] {
        if let token = added[id] { return Array(token.content.utf8) }
        let piece = model.pieces[id]
        if isByteLevel { return ByteLevelAlphabet.decode(piece) ?? Array(piece) }
        if let byte = SentencePieceModel.byteValue(piece) { return [byte] }
        var output: [UInt8] = []
        SentencePieceDetokenizer.appendUnescaped(piece, to: &output)
        return output
    }

    package func segments(of text: String) -> [TokenizerSegment] {
        added.split(Array(text.utf8), special: true) { $0.isSpecial || !$0.isNormalized }.map(TokenizerSegment.init)
    }

    package func segments(of text: String, where isToken: (Int) -> Bool) -> [TokenizerSegment] {
        added.split(Array(text.utf8), special: true) { isToken($0.id) }.map(TokenizerSegment.init)
    }

    package func encode(_ segments: [TokenizerSegment], addSpecialTokens: Bool, spelling: Set<Int>) -> [Int] {
        var ids = addSpecialTokens ? options.prefix : []
        var merger = PairMerger()
        var symbols: [MergeSymbol] = []
        for (index, part) in added.stripped(added.parts(of: segments) { !$0.isNormalized && !spelling.contains($0.id) }).enumerated() {
            switch part {
            case .token(let id): ids.append(id)
            case .text(let text):
                let normalized = normalize(text)
                for part in normalizedAdded.stripped(normalizedAdded.split(normalized, special: false) { !spelling.contains($0.id) }) {
                    switch part {
                    case .token(let id): ids.append(id)
                    case .text(let text):
                        var words = PreTokens(text, isAtStart: index == 0)
                        for step in options.preTokenizers { step.apply(&words) }
                        for word in words.ranges { model.encode(words.bytes[word], with: &merger, symbols: &symbols, into: &ids) }
                    }
                }
            }
        }
        return addSpecialTokens ? ids + options.suffix : ids
    }

    private func normalize(_ text: [UInt8]) -> [UInt8] { Self.normalize(text, options.normalizers) }

    /// Real normalizers hardly make text longer; steps that do so again and again are not followed further.
    private static func normalize(_ text: [UInt8], _ steps: [TextNormalizer]) -> [UInt8] {
        var normalized = text
        for step in steps {
            guard normalized.count / 16 <= text.count + 4096 else { break }
            normalized = step.apply(normalized)
        }
        return normalized
    }

    package func makeDetokenizer(skipSpecialTokens: Bool) -> any Detokenizer {
        PipelineDetokenizer(tokenizer: self, skipSpecialTokens: skipSpecialTokens, steps: options.decoders)
    }

    /// Sends every token through the decoder's steps.
    private struct PipelineDetokenizer: Detokenizer {
        let tokenizer: BytePairTokenizer
        let skipSpecialTokens: Bool
        var steps: [TokenDecoder]
        var isFirst = true

        mutating func push(_ id: Int, into output: inout [UInt8]) {
            if skipSpecialTokens && tokenizer.isSpecial(id) { return }
            let token: [UInt8]
            if let added = tokenizer.added[id] {
                token = Array(added.content.utf8)
                if tokenizer.isByteLevel && steps.count == 1 {
                    output.append(contentsOf: token)
                    return
                }
            } else {
                guard id >= 0, id < tokenizer.model.pieces.count else { return }
                token = Array(tokenizer.model.pieces[id])
            }
            guard !token.isEmpty else { return }
            if steps.isEmpty && !isFirst { output.append(UInt8(ascii: " ")) }
            isFirst = false
            run([token], from: 0, into: &output)
        }

        mutating func finish(into output: inout [UInt8]) {
            for index in steps.indices {
                run(steps[index].finish(), from: index + 1, into: &output)
            }
        }

        private mutating func run(_ tokens: [[UInt8]], from first: Int, into output: inout [UInt8]) {
            var tokens = tokens
            for index in first..<max(first, steps.count) {
                // As for normalizers: no real decoder makes a token this long.
                guard tokens.reduce(0, { $0 + $1.count }) < 1 << 20 else { break }
                tokens = tokens.flatMap { steps[index].push($0) }
            }
            for token in tokens { output.append(contentsOf: token) }
        }
    }
}
