import Foundation
import Testing

@testable import AdaLLaVA

/// Reads the recorded tokenizer cases.
enum TokenizerFixtures {
    static let folder: URL = {
        var url = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        while url.path != "/" {
            let fixtures = url.appendingPathComponent("Fixtures")
            if FileManager.default.fileExists(atPath: fixtures.path) { return fixtures }
            url.deleteLastPathComponent()
        }
        return url
    }()

    static let names = ["tok320", "tok2000"]

    static func url(_ path: String) -> URL { folder.appendingPathComponent("tokenizer/\(path)") }

    static func bytes(_ path: String) throws -> [UInt8] { [UInt8](try Data(contentsOf: url(path))) }

    static func json(_ path: String) throws -> ByteJSON { try ByteJSON(parsing: bytes(path), file: path) }

    static func slow(_ name: String, legacy: Bool = true) throws -> SentencePieceTokenizer {
        var settings = TokenizerSettings()
        try settings.readConfiguration(bytes("\(name)/tokenizer_config.json"), file: name)
        settings.isLegacy = legacy
        return try TokenizerLoader.sentencePiece(bytes("\(name)/tokenizer.model"), settings: settings, file: name)
    }

    static func fast(_ name: String) throws -> BytePairTokenizer {
        let loaded = try TokenizerLoader.load(folder: url(name), source: .tokenizerJSON)
        return try #require(loaded.tokenizer as? BytePairTokenizer)
    }
}

extension ByteJSON {
    func list(_ key: String) throws -> [ByteJSON] { try #require(self[key]?.array) }
    func ids(_ key: String) throws -> [Int] { try list(key).map { try #require($0.int) } }
    func string(_ key: String) throws -> String { try #require(self[key]?.text) }
    func flag(_ key: String) throws -> Bool { try #require(self[key]?.bool as Bool?) }
}

@Suite struct TokenizerTests {
    @Test("encodes as the reference", arguments: TokenizerFixtures.names)
    func encodesAsTheReference(_ name: String) throws {
        // A mismatch means that prompts reach the model as other ids than it was trained on.
        let legacy = try TokenizerFixtures.slow(name)
        let modern = try TokenizerFixtures.slow(name, legacy: false)
        let fast = try TokenizerFixtures.fast(name)
        let cases = try TokenizerFixtures.json("\(name)/cases.json").list("strings")
        #expect(cases.count == 129)
        for row in cases {
            let text = try row.string("text")
            #expect(legacy.model.encode(Array(text.utf8)) == (try row.ids("sp_ids")), "SentencePiece, \(text.debugDescription)")
            #expect(legacy.encode(text) == (try row.ids("slow_legacy_true_ids")), "legacy, \(text.debugDescription)")
            #expect(modern.encode(text) == (try row.ids("slow_legacy_false_ids")), "not legacy, \(text.debugDescription)")
            #expect(fast.encode(text) == (try row.ids("fast_ids")), "fast, \(text.debugDescription)")
        }
    }

    @Test("decodes as the reference", arguments: TokenizerFixtures.names)
    func decodesAsTheReference(_ name: String) throws {
        // A mismatch means that answers show other text than the reference: lost spaces, stray special tokens.
        let slow = try TokenizerFixtures.slow(name)
        let fast = try TokenizerFixtures.fast(name)
        for row in try TokenizerFixtures.json("\(name)/cases.json").list("strings") {
            let ids = try row.ids("slow_legacy_true_ids")
            #expect(Self.plainDecode(slow.model, try row.ids("sp_ids")) == (try row.string("sp_decoded")))
            #expect(slow.decode(ids) == (try row.string("slow_legacy_decoded")))
            #expect(slow.decode(ids, skipSpecialTokens: false) == (try row.string("slow_legacy_decoded_keep_special")))
            #expect(fast.decode(try row.ids("fast_ids")) == (try row.string("fast_decoded")))
        }
    }

    @Test("decodes broken bytes as the reference", arguments: TokenizerFixtures.names)
    func decodesBrokenBytesAsTheReference(_ name: String) throws {
        // A mismatch means that token sequences that are no UTF-8 are shown otherwise than in the reference.
        let slow = try TokenizerFixtures.slow(name)
        let fast = try TokenizerFixtures.fast(name)
        for row in try TokenizerFixtures.json("\(name)/cases.json").list("decode_only") {
            let ids = try row.ids("ids")
            #expect(Self.plainDecode(slow.model, ids) == (try row.string("sp_decoded")), "\(ids)")
            #expect(slow.decode(ids) == (try row.string("slow_decoded")), "\(ids)")
            #expect(slow.decode(ids, skipSpecialTokens: false) == (try row.string("slow_decoded_keep_special")), "\(ids)")
            #expect(fast.decode(ids) == (try row.string("fast_decoded")), "\(ids)")
            for tokenizer in [slow, fast] as [any Tokenizer] {
                for skip in [true, false] {
                    var decoder = StreamingDecoder(tokenizer, skipSpecialTokens: skip)
                    let streamed = ids.map { decoder.push($0) }.joined() + decoder.finish()
                    #expect(streamed == tokenizer.decode(ids, skipSpecialTokens: skip))
                }
            }
        }
    }

    @Test("streamed tokens decode to whole characters", arguments: TokenizerFixtures.names)
    func streamsWholeCharacters(_ name: String) throws {
        // A mismatch means that a streamed answer shows half characters, or not the text that the reference decodes.
        for tokenizer in [try TokenizerFixtures.slow(name), try TokenizerFixtures.fast(name)] as [any Tokenizer] {
            for row in try TokenizerFixtures.json("\(name)/cases.json").list("streaming") {
                let prefixes = try row.list("decoded_prefixes").map { try #require($0.text) }
                var decoder = StreamingDecoder(tokenizer)
                var shown = ""
                for (count, id) in try row.ids("ids").enumerated() {
                    let piece = decoder.push(id)
                    #expect(!piece.unicodeScalars.contains("\u{FFFD}"))
                    shown += piece
                    let settled = String(prefixes[count + 1].unicodeScalars.prefix { $0 != "\u{FFFD}" })
                    if tokenizer is SentencePieceTokenizer {
                        #expect(shown == settled)
                    } else {
                        // Its byte tokens count as a run: known only once the run is over.
                        #expect(settled.hasPrefix(shown))
                    }
                }
                #expect(shown + decoder.finish() == prefixes.last)
            }
        }
    }

    @Test("encodes image prompts as the reference", arguments: TokenizerFixtures.names)
    func encodesImagePromptsAsTheReference(_ name: String) throws {
        // A mismatch means that images land elsewhere in the sequence, or that text beside them is spelled otherwise.
        for (legacy, key) in [(true, "ids"), (false, "ids_legacy_false")] {
            let tokenizer = try TokenizerFixtures.slow(name, legacy: legacy)
            for row in try TokenizerFixtures.json("\(name)/cases.json").list("image_prompts") {
                #expect(PromptEncoder(tokenizer).encode(prompt: try row.string("prompt")) == (try row.ids(key)))
            }
        }
    }

    @Test("renders conversations as the reference", arguments: TokenizerFixtures.names)
    func rendersConversationsAsTheReference(_ name: String) throws {
        // A mismatch means that a chat reaches the model in another form than LLaVA's conversation.py gives it.
        let cases = try TokenizerFixtures.json("\(name)/cases.json").list("conversations")
        #expect(cases.count == 21)
        for row in cases {
            let template = try ChatTemplate.named(try row.string("template"))
            let turns = try row.list("turns")
            let messages = turns.enumerated().compactMap { index, turn in
                turn.text.map { ChatMessage(index % 2 == 0 ? .user : .assistant, marked: $0) }
            }
            let segments = try template.render(messages, opensAnswer: turns.last?.isNull ?? false)
            #expect(ChatTemplate.text(of: segments) == (try row.string("prompt")))
            for (legacy, key) in [(true, "ids"), (false, "ids_legacy_false")] {
                let encoder = PromptEncoder(try TokenizerFixtures.slow(name, legacy: legacy))
                #expect(encoder.encode(prompt: try row.string("prompt")) == (try row.ids(key)), "\(template.name)")
                #expect(encoder.encode(segments) == (try row.ids(key)), "\(template.name), from segments")
            }
        }
    }

    @Test("masks labels as the reference") func masksLabelsAsTheReference() throws {
        // A mismatch means that training scores a question's tokens, or leaves an answer's out.
        let rows = try TokenizerFixtures.json("label_masking.json").list("rows")
        #expect(rows.count == 32)
        for row in rows {
            let tokenizer = try TokenizerFixtures.slow(try row.string("tokenizer"), legacy: try row.flag("legacy"))
            let turns = try row.list("turns").map { try #require($0.text) }
            let conversation = TrainingConversation(turns: turns).withImagesInFront
            #expect(conversation.turns == (try row.list("turns_after_image_move").map { try #require($0.text) }))
            let result = try conversation.labels(with: tokenizer, hasImage: try row.flag("has_image"))
            #expect(result.inputIDs == (try row.ids("input_ids")))
            #expect(result.labels == (try row.ids("labels")))
            #expect(result.lengthMismatch == (try row.flag("length_mismatch_warning")))
        }
    }

    private static func plainDecode(_ model: SentencePieceModel, _ ids: [Int]) -> String {
        var decoder = SentencePieceDetokenizer(model)
        var output: [UInt8] = []
        for id in ids { decoder.push(id, into: &output) }
        decoder.finish(into: &output)
        return String(decoding: output, as: UTF8.self)
    }
}
