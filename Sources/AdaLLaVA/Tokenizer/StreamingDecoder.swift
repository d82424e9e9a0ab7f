/// Decodes an answer while it is being generated.
///
///     var decoder = StreamingDecoder(tokenizer)
///     for id in ids { print(decoder.push(id), terminator: "") }
///     print(decoder.finish())
///
/// Never returns half a character: bytes that later tokens can complete are kept back. All that is returned, joined, is exactly
/// `tokenizer.decode(ids)`, because that is how `decode` works.
package struct StreamingDecoder: Sendable {
    private var detokenizer: any Detokenizer
    private var characters = UTF8Assembler(replacing: .maximalSubparts)

    /// - Parameter skipSpecialTokens: leave control tokens out of the text.
    package init(_ tokenizer: some Tokenizer, skipSpecialTokens: Bool = true) {
        detokenizer = tokenizer.makeDetokenizer(skipSpecialTokens: skipSpecialTokens)
    }

    /// The text that `id` completes, often empty.
    package mutating func push(_ id: Int) -> String {
        var output: [UInt8] = []
        push(id, into: &output)
        return String(decoding: output, as: UTF8.self)
    }

    /// The bytes that were held back, with U+FFFD for broken characters. The decoder is done afterwards.
    package mutating func finish() -> String {
        var output: [UInt8] = []
        finish(into: &output)
        return String(decoding: output, as: UTF8.self)
    }

    mutating func push(_ id: Int, into output: inout [UInt8]) {
        var raw: [UInt8] = []
        detokenizer.push(id, into: &raw)
        characters.push(raw, into: &output)
    }

    mutating func finish(into output: inout [UInt8]) {
        var raw: [UInt8] = []
        detokenizer.finish(into: &raw)
        characters.push(raw, into: &output)
        characters.finish(into: &output)
    }
}
