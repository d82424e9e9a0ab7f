import Foundation
import Testing

@testable import AdaLLaVA

/// tokenizer.json pipelines against Hugging Face's `tokenizers` library, and the hand-written word patterns against ICU.
@Suite struct TokenizerPipelineTests {
    @Test("ends only at special tokens") func endsOnlyAtSpecialTokens() throws {
        // A failure means that an answer ends at a piece of text that looks like another model's end of turn.
        func tokenizer(special: Bool) throws -> BytePairTokenizer {
            let added = special ? #"{"id": 2, "content": "<|end|>", "special": true}"# : ""
            let json = #"{"added_tokens": [\#(added)], "model": {"type": "BPE", "vocab": {"a": 0, "</s>": 1, "<|end|>": 2}, "merges": []}}"#
            var settings = TokenizerSettings()
            settings.isPresent = true
            return try TokenizerJSON(Array(json.utf8), file: "t").makeTokenizer(settings: settings)
        }
        #expect(try tokenizer(special: false).endOfGenerationTokens == [])
        #expect(try tokenizer(special: true).endOfGenerationTokens == [2])
    }

    @Test("tokenizer.json pipelines give Hugging Face's tokens") func matchesHuggingFace() throws {
        // A mismatch means that some model's tokenizer.json is read otherwise than the library it was made with reads it.
        let folder = TokenizerFixtures.folder.appendingPathComponent("tokenizer-pipelines")
        let cases = try #require(ByteJSON(parsing: [UInt8](Data(contentsOf: folder.appendingPathComponent("cases.json"))), file: "cases.json").array)
        #expect(cases.count == 11)
        for entry in cases {
            let name = try entry.string("name")
            let file = folder.appendingPathComponent("\(name).json")
            let tokenizer = try TokenizerJSON([UInt8](Data(contentsOf: file)), file: name).makeTokenizer()
            for row in try entry.list("rows") {
                let text = try row.string("text")
                let ids = try row.ids("ids")
                let found = tokenizer.encode(text)
                #expect(found == ids, "\(name): \(text.debugDescription)")
                let decoded = tokenizer.decode(ids)
                #expect(decoded.isIdentical(try row.string("decoded")), "\(name): \(text.debugDescription), \(decoded.debugDescription)")
                let kept = tokenizer.decode(ids, skipSpecialTokens: false)
                #expect(kept.isIdentical(try row.string("kept")), "\(name): \(text.debugDescription), \(kept.debugDescription)")
            }
        }
    }

    /// Scalars of every class that the patterns tell apart, and some that look alike.
    private static let alphabet: [String] = [
        " ", " ", " ", "\n", "\r", "\t", "\u{0B}", "\u{85}", "\u{A0}", "\u{2028}", "\u{3000}", "'", "'s", "'S", "'ll", "'Re", "'vE", "\u{17F}",
        "a", "b", "E", "S", "é", "e\u{301}", "中", "文", "ß", "ǅ", "ʰ", "ا", "1", "2", "٣", "½", "Ⅷ", "²", "!", "?", ".", "_", "-", "«", "$", "+",
        "\u{200D}", "😀", "👨‍👩‍👧", "\u{301}", "\u{FE0F}", "\u{0}", "\u{7F}",
    ]

    @Test("scanners match their expressions", arguments: [
        "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
        "\\p{N}", "\\p{N}{1,3}", "\\p{N}+",
    ])
    func scannersMatchTheirExpressions(_ pattern: String) throws {
        // A mismatch means that a hand-written pattern splits some text elsewhere than the expression it stands for.
        let scanner = try #require(WordScanner(pattern: pattern))
        let expression = try RegularExpression(pattern)
        var generator = SeededGenerator(seed: 11)
        for _ in 0..<2000 {
            let length = Int.random(in: 0...24, using: &generator)
            let text = (0..<length).map { _ in Self.alphabet[Int.random(in: 0..<Self.alphabet.count, using: &generator)] }.joined()
            let bytes = Array(text.utf8)
            var (scanned, matched): ([Range<Int>], [Range<Int>]) = ([], [])
            scanner.forEach(in: UnicodeText(bytes[...])) { range, isMatch in if isMatch { scanned.append(range) } }
            expression.forEach(in: bytes[...]) { range, isMatch in if isMatch { matched.append(range) } }
            #expect(scanned == matched, "\(text.unicodeScalars.map { String($0.value, radix: 16) })")
        }
    }

    @Test("gives up on endless expressions") func givesUpOnEndlessExpressions() throws {
        // A hang here means that a hostile tokenizer.json can stop the engine with a pattern that backtracks without end.
        let expression = try RegularExpression("(a+a+)+b")
        var end = 0
        expression.forEach(in: ArraySlice(repeating: UInt8(ascii: "a"), count: 200)) { range, _ in end = range.upperBound }
        #expect(end == 200)
    }
}

extension String {
    /// Equal scalar by scalar; `==` holds composed and decomposed accents equal.
    fileprivate func isIdentical(_ other: String) -> Bool { utf8.elementsEqual(other.utf8) }
}
