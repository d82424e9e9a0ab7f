/// A stretch of a prompt as a tokenizer takes it: ordinary text, in which no special token is looked for, or one token by id.
package enum TokenizerSegment: Sendable, Equatable {
    case text(String)
    case token(Int)
}

/// Text to token ids and back.
///
/// Two ways in: ``encode(_:addSpecialTokens:)-(String,_)`` looks for special tokens in the text, as Hugging Face tokenizers do;
/// ``encode(_:addSpecialTokens:)-([TokenizerSegment],_)`` takes text that must stay text (a user's) and tokens given by
/// id, so that a typed `</s>` cannot end a turn.
package protocol Tokenizer: Sendable {
    /// One more than the largest id, added tokens included.
    var vocabularySize: Int { get }
    /// The token that starts a sequence, if the vocabulary has one.
    var bosToken: Int? { get }
    /// The token that ends a sequence, if the vocabulary has one.
    var eosToken: Int? { get }
    /// The token for text that the vocabulary cannot encode, if it has one.
    var unknownToken: Int? { get }
    /// The token that fills up batches, if the vocabulary has one.
    var padToken: Int? { get }
    /// Whether ``encode(_:addSpecialTokens:)`` with `addSpecialTokens` puts ``bosToken`` first.
    var addsBOS: Bool { get }
    /// Tokens after which nothing more is generated: end of sequence, end of turn.
    var endOfGenerationTokens: Set<Int> { get }

    /// Whether `id` is a control token (beginning, end, padding, a turn's mark), which ``decode(_:skipSpecialTokens:)`` can leave out.
    func isSpecial(_ id: Int) -> Bool
    /// The id of a token by its exact text (`</s>`, `<|im_end|>`, a piece of the vocabulary), or `nil`.
    func token(_ text: String) -> Int?
    /// The UTF-8 bytes of `id` inside a text (maybe half a character); empty for ids that do not exist.
    func bytes(of id: Int) -> [UInt8]
    /// Splits a text at the special tokens that are written in it.
    func segments(of text: String) -> [TokenizerSegment]
    /// Splits a text at the added tokens, special or not, that `isToken` holds for.
    func segments(of text: String, where isToken: (Int) -> Bool) -> [TokenizerSegment]
    /// Token ids of text and given tokens in a row. Special tokens are not looked for in text.
    /// - Parameters:
    ///   - addSpecialTokens: put the beginning (and, where the vocabulary says so, the end) of sequence around them.
    ///   - spelling: added tokens that are not looked for either, although they are not special.
    func encode(_ segments: [TokenizerSegment], addSpecialTokens: Bool, spelling: Set<Int>) -> [Int]
    /// The state of one decoding, of ``StreamingDecoder`` and ``decode(_:skipSpecialTokens:)``.
    func makeDetokenizer(skipSpecialTokens: Bool) -> any Detokenizer
}

/// Turns token ids into UTF-8 bytes one id at a time.
///
/// Bytes whose meaning later ids can still change are kept back until ``finish(into:)``.
package protocol Detokenizer: Sendable {
    /// Appends to `output` the text that `id` completes.
    mutating func push(_ id: Int, into output: inout [UInt8])
    /// Appends the bytes that were held back. Nothing is pushed afterwards.
    mutating func finish(into output: inout [UInt8])
}

extension Tokenizer {
    /// Token ids of text and given tokens in a row. Special tokens are not looked for in text.
    package func encode(_ segments: [TokenizerSegment], addSpecialTokens: Bool) -> [Int] {
        encode(segments, addSpecialTokens: addSpecialTokens, spelling: [])
    }

    /// The added tokens, special or not, that are written in a text.
    func addedTokens(in text: String) -> Set<Int> {
        Set(segments(of: text) { _ in true }.compactMap { if case .token(let id) = $0 { id } else { nil } })
    }

    /// Token ids of a text; special tokens written in the text become those tokens.
    package func encode(_ text: String, addSpecialTokens: Bool = true) -> [Int] {
        encode(segments(of: text), addSpecialTokens: addSpecialTokens)
    }

    /// The text of token ids. Bytes that are not UTF-8 become U+FFFD; ids outside the vocabulary are left out.
    package func decode(_ ids: [Int], skipSpecialTokens: Bool = true) -> String {
        var decoder = StreamingDecoder(self, skipSpecialTokens: skipSpecialTokens)
        var output: [UInt8] = []
        for id in ids { decoder.push(id, into: &output) }
        decoder.finish(into: &output)
        return String(decoding: output, as: UTF8.self)
    }
}
