import Foundation
import Testing

@testable import AdaLLaVA

/// An answer's text while it grows.
@Suite struct AnswerTextTests {
    private static func processor() throws -> TextProcessor {
        try #require(try TextProcessor(Checkpoint.open(at: Fixtures.models.appendingPathComponent("scenes-ref")), template: nil))
    }

    /// The pieces that come out, token by token, and what `finish` adds.
    private func pieces(_ processor: TextProcessor, _ tokens: [Int], stop: [String] = []) -> (pieces: [String], stopped: Bool) {
        var answer = AnswerText(processor, stop: stop)
        var pieces: [String] = []
        for token in tokens {
            pieces.append(answer.append(token, isEnd: false))
            if answer.isStopped { break }
        }
        pieces.append(answer.finish())
        return (pieces, answer.isStopped)
    }

    static let texts = ["white triangle", "Grüße, 世界! 😀👍🏽 done", "e\u{301}a\u{308} naïve café", "line\nline two three", "\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467}"]

    // A failure means that a reader of the stream sees half a character, or that the pieces do not add up to the answer.
    @Test("streamed text consists of whole characters and adds up to the answer", arguments: texts) func wholeCharacters(text: String) throws {
        let processor = try Self.processor()
        let tokens = processor.tokenizer.encode(text, addSpecialTokens: false)
        let result = pieces(processor, tokens)
        #expect(result.pieces.joined() == processor.decode(tokens))
        #expect(result.pieces.joined() == text)
        #expect(!result.stopped)
        for piece in result.pieces { #expect(!piece.contains("\u{FFFD}")) }
        // The characters outside the vocabulary come as bytes, so some tokens complete nothing.
        if text.unicodeScalars.contains(where: { $0.value > 0xFFFF }) { #expect(result.pieces.dropLast().contains("")) }
    }

    // A failure means that a stop text is missed where it spans tokens, or cuts too much or too little.
    @Test("stop texts are found across tokens", arguments: texts) func everyStopText(text: String) throws {
        let processor = try Self.processor()
        let tokens = processor.tokenizer.encode(text, addSpecialTokens: false)
        let scalars = Array(text.unicodeScalars)
        for start in scalars.indices {
            for length in 1 ... min(7, scalars.count - start) {
                var view = String.UnicodeScalarView()
                view.append(contentsOf: scalars[start ..< start + length])
                let stop = Array(String(view).utf8)
                let result = pieces(processor, tokens, stop: [String(view)])
                let bytes = Array(text.utf8)
                let first = try #require((0 ... bytes.count - stop.count).first { bytes[$0...].starts(with: stop) })
                #expect(result.stopped)
                #expect(Array(result.pieces.joined().utf8) == Array(bytes[..<first]), "\(String(view).debugDescription)")
            }
        }
    }

    // A failure means that text which only looked like the start of a stop text is lost, or that it is shown before that is clear.
    @Test("held back and released") func heldBackAndReleased() throws {
        let processor = try Self.processor()
        let tokens = processor.tokenizer.encode("one two three", addSpecialTokens: false)
        for stop in ["two four", "three!", "e two t!", "threes", "xyz"] {
            let result = pieces(processor, tokens, stop: [stop])
            #expect(!result.stopped)
            #expect(result.pieces.joined() == "one two three")
        }
        // What may be the beginning of the stop text stays back until the answer ends.
        let held = pieces(processor, tokens, stop: ["three!"])
        #expect(held.pieces.dropLast().joined() == "one two ")
        #expect(held.pieces.last == "three")
    }

    // A failure means that of several stop texts only the first listed counts.
    @Test("the earliest of several stop texts counts") func severalStopTexts() throws {
        let processor = try Self.processor()
        let tokens = processor.tokenizer.encode("one two three", addSpecialTokens: false)
        #expect(pieces(processor, tokens, stop: ["three", "two", ""]).pieces.joined() == "one ")
        #expect(pieces(processor, tokens, stop: ["", ""]).pieces.joined() == "one two three")
    }

    // A failure means that text goes on after the end, or that the token which ends an answer shows up in it.
    @Test("nothing follows the end of an answer") func afterTheEnd() throws {
        let processor = try Self.processor()
        let tokens = processor.tokenizer.encode("one two", addSpecialTokens: false)
        var answer = AnswerText(processor, stop: ["one"])
        for token in tokens { #expect(answer.append(token, isEnd: false) == "") }
        #expect(answer.isStopped && answer.finish() == "")

        var ended = AnswerText(processor, stop: [])
        let text = ended.append(tokens[0], isEnd: false) + ended.append(tokens[1], isEnd: true) + ended.finish()
        #expect(text == processor.decode([tokens[0]]))
    }

    // A failure means that an answer which breaks off inside a character traps or swallows what came before it.
    @Test("broken off inside a character") func brokenOffInsideACharacter() throws {
        let processor = try Self.processor()
        let tokens = processor.tokenizer.encode("ok 😀", addSpecialTokens: false).dropLast()
        let result = pieces(processor, Array(tokens), stop: ["zzz"])
        #expect(result.pieces.joined() == processor.decode(Array(tokens)))
        #expect(result.pieces.joined().hasPrefix("ok "))
    }
}
