import Foundation
import Testing

@testable import AdaLLaVA

@Suite struct TokenizerErrorTests {
    private static let byteLevelTokens = (0..<256).map { ByteLevelAlphabet.encoded[$0] }

    /// One field of a protobuf message with a length.
    private func field(_ number: UInt8, _ bytes: [UInt8]) -> [UInt8] {
        var length = bytes.count
        var output = [number << 3 | 2]
        repeat {
            output.append(UInt8(length & 0x7F) | (length > 0x7F ? 0x80 : 0))
            length >>= 7
        } while length > 0
        return output + bytes
    }

    private func piece(_ text: String, kind: UInt8 = 1, score: Float = 0) -> [UInt8] {
        let bits = (0..<4).map { UInt8(truncatingIfNeeded: score.bitPattern >> UInt32(8 * $0)) }
        return field(1, field(1, Array(text.utf8)) + [0x15] + bits + [0x18, kind])
    }

    private func message(_ body: () throws -> Any) -> String {
        do {
            _ = try body()
            return "no error"
        } catch let error as CheckpointError {
            return error.description
        } catch {
            return "another error: \(error)"
        }
    }

    @Test("tells what is wrong with a tokenizer model") func tellsWhatIsWrongWithATokenizerModel() throws {
        // A mismatch means that a damaged tokenizer.model is read as if it were whole, or that the message does not say what is wrong.
        let trainer: [UInt8] = [0x18, 2]
        let unknown = piece("<unk>", kind: 2)
        func read(_ bytes: [UInt8]) -> String { message { try SentencePieceModel(tokenizerModel: bytes, file: "t.model") } }
        #expect(read([]).contains("t.model") && read([]) != "no error")
        #expect(read(unknown + piece("a") + field(2, trainer)) == "no error")
        #expect(read(piece("a") + field(2, trainer)).contains("no unknown piece"))
        #expect(read(unknown + piece("") + field(2, trainer)).contains("piece 1 is empty"))
        #expect(read(unknown + piece("a", score: .nan) + field(2, trainer)).contains("not a number"))
        #expect(read(unknown + piece("a", kind: 9) + field(2, trainer)).contains("unknown type 9"))
        #expect(read(unknown + piece("a") + field(2, [0x18, 1])).contains("unigram"))
        #expect(read(unknown + piece("a") + field(2, trainer) + field(3, field(1, Array("nmt_nfkc".utf8)) + field(2, [1, 2, 3]))).contains("nmt_nfkc"))
        #expect(read(unknown + piece("a") + field(2, trainer + [0x98, 0x02, 1])).contains("256 byte pieces"))
        #expect(read([0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F]).contains("are left"))
    }

    @Test("merges unused pieces only as steps") func mergesUnusedPiecesOnlyAsSteps() throws {
        // A mismatch means that pieces marked unused are given out instead of what they were put together from.
        let trainer: [UInt8] = [0x18, 2]
        let normalizer: [UInt8] = [0x18, 0, 0x20, 0, 0x28, 1]
        let bytes =
            piece("<unk>", kind: 2) + piece("a") + piece("b") + piece("ab", kind: 5, score: -1) + piece("abb", score: -2)
            + piece("[X]", kind: 4) + field(2, trainer) + field(3, normalizer)
        let model = try SentencePieceModel(tokenizerModel: bytes, file: "t.model")
        #expect(model.encode(Array("ab".utf8)) == [1, 2])
        #expect(model.encode(Array("abb".utf8)) == [4])
        #expect(model.encode(Array("a[X]b".utf8)) == [1, 5, 2])
        // A run of unknown characters is one unknown piece.
        #expect(model.encode(Array("aзжb".utf8)) == [1, 0, 2])
    }

    @Test("tells what is wrong with a tokenizer JSON") func tellsWhatIsWrongWithATokenizerJSON() throws {
        // A mismatch means that a tokenizer.json that is not understood is read all the same.
        func read(_ json: String) -> String { message { try TokenizerJSON(Array(json.utf8), file: "t.json").makeTokenizer() } }
        func model(_ fields: String) -> String { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}\(fields)}" }
        #expect(read(model("")) == "no error")
        #expect(read("{}").contains("model"))
        #expect(read("{\"model\":{\"type\":\"Unigram\"}}").contains("Unigram"))
        #expect(read("{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}").contains("empty"))
        #expect(read("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}") == "no error")
        #expect(read("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}").contains("two tokens have the id 0"))
        #expect(read("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}").contains("-1"))
        #expect(read("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1e300},\"merges\":[]}}").contains("expected 0 to"))
        #expect(read("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\",\"z\"]]}}").contains("merge 0"))
        #expect(read("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\",3]]}}").contains("merge 0"))
        #expect(read(model(",\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"}")).contains("BertPreTokenizer"))
        #expect(read(model(",\"normalizer\":{\"type\":\"Precompiled\"}")).contains("Precompiled"))
        #expect(read(model(",\"decoder\":{\"type\":\"WordPiece\"}")).contains("WordPiece"))
        #expect(read(model(",\"post_processor\":{\"type\":\"Odd\"}")).contains("Odd"))
        #expect(read(model(",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a\"},\"behavior\":\"Isolated\"}")).contains("(a"))
        #expect(read(String(repeating: "[", count: 100_000)).contains("nested deeper"))
        #expect(read("{\"model\": nul").contains("JSON, byte"))
        // Composed and decomposed accents are two tokens, though Swift holds the texts equal.
        #expect(read("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\u{E9}\":0,\"e\u{301}\":1},\"merges\":[]}}") == "no error")
    }

    @Test("tells what is wrong with a GGUF vocabulary") func tellsWhatIsWrongWithAGGUFVocabulary() throws {
        // A mismatch means that a GGUF file's damaged vocabulary is used, or the message does not name the field.
        func read(_ change: (inout GGUFVocabulary) -> Void) -> String {
            var vocabulary = GGUFVocabulary(model: "gpt2", pre: "gpt-2", tokens: Self.byteLevelTokens)
            change(&vocabulary)
            return message { try vocabulary.makeTokenizer(file: "m.gguf") }
        }
        #expect(read { _ in } == "no error")
        #expect(read { $0.tokens = [] }.contains("tokenizer.ggml.tokens"))
        #expect(read { $0.model = "bert" }.contains("\"bert\""))
        #expect(read { $0.pre = "novel" }.contains("\"novel\""))
        #expect(read { $0.tokens.append(Self.byteLevelTokens[65]) } == "no error")
        #expect(read { $0.tokenTypes = [1] }.contains("token_type"))
        #expect(read { $0.eosToken = 256 }.contains("eos_token_id"))
        #expect(read { $0.bosToken = -1 }.contains("bos_token_id"))
        #expect(read { $0.merges = [Array("ab".utf8)] }.contains("merge 0"))
        #expect(read { $0.model = "llama" }.contains("scores"))
        #expect(
            read {
                $0.model = "llama"
                $0.scores = [Float](repeating: .nan, count: 256)
            }.contains("not a number"))
    }

    @Test("tells which files are missing") func tellsWhichFilesAreMissing() throws {
        // A mismatch means that a folder without a tokenizer fails later and elsewhere.
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("tokenizer-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        #expect(message { try TokenizerLoader.load(folder: folder) }.contains("tokenizer.model or tokenizer.json"))
        try Data().write(to: folder.appendingPathComponent("tokenizer.json"))
        #expect(message { try TokenizerLoader.load(folder: folder) }.contains("JSON, byte"))
        #expect(message { try TokenizerLoader.load(folder: folder, source: .sentencePiece) }.contains("expected tokenizer.model"))
    }

    @Test("reads added tokens of a folder") func readsAddedTokensOfAFolder() throws {
        // A mismatch means that tokens a checkpoint adds to its vocabulary are spelled out instead, or get other ids.
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("tokenizer-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try FileManager.default.copyItem(at: TokenizerFixtures.url("tok320/tokenizer.model"), to: folder.appendingPathComponent("tokenizer.model"))
        try Data("{\"<im_patch>\": 320, \"<im_start>\": 321}".utf8).write(to: folder.appendingPathComponent("added_tokens.json"))
        try Data("{\"pad_token\": {\"content\": \"<pad>\"}, \"chat_template\": \"{{ x }}\"}".utf8)
            .write(to: folder.appendingPathComponent("tokenizer_config.json"))
        let loaded = try TokenizerLoader.load(folder: folder)
        let tokenizer = loaded.tokenizer
        #expect(loaded.chatTemplate == "{{ x }}")
        #expect(tokenizer.padToken == 322)
        #expect(tokenizer.vocabularySize == 323)
        #expect(tokenizer.encode("a<im_start>a<pad>") == [1, 261, 321, 261, 322])
        #expect(tokenizer.encode([.text("a<im_start>a<pad>")], addSpecialTokens: false).prefix(3) == [261, 321, 261])
        #expect(!tokenizer.encode([.text("a<pad>")], addSpecialTokens: false).contains(322))
        // What transformers 4.37.2 gives for the same folder.
        #expect(tokenizer.decode([1, 261, 321, 261, 322]) == "a <im_start> a")
        #expect(tokenizer.decode([1, 261, 321, 261, 322], skipSpecialTokens: false) == "<s>a <im_start>  a<pad>")
        #expect(tokenizer.decode([321, 280, 321]) == "<im_start> <im_start>")
        #expect(tokenizer.decode([321, 280]) == "<im_start> ")
        #expect(tokenizer.decode([261, 322, 261, 2, 261], skipSpecialTokens: false) == " a<pad> a</s>a")
        #expect(tokenizer.bytes(of: 243) == [0xF0] && tokenizer.bytes(of: 261) == Array(" a".utf8))
        #expect(tokenizer.endOfGenerationTokens == [2])
        try Data("{\"pad_token\": \"<pad>\", \"legacy\": false}".utf8).write(to: folder.appendingPathComponent("tokenizer_config.json"))
        let modern = try TokenizerLoader.load(folder: folder).tokenizer
        let expected = [
            ("a<im_start>a<pad> b", [1, 261, 321, 284, 322, 280, 300]), ("<im_start>a", [1, 280, 321, 284]), ("</s>a", [1, 2, 284]),
            ("</s> a", [1, 2, 261]), ("  \u{2581}a b", [1, 259, 259, 284, 280, 300]),
            ("\n x</s>\n y", [1, 280, 13, 280, 311, 2, 13, 280, 301]), ("<im_start>", [1, 280, 321]),
        ]
        for (text, ids) in expected { #expect(modern.encode(text) == ids, "\(text.debugDescription)") }
    }

    @Test("encodes a long text without a space") func encodesALongTextWithoutASpace() throws {
        // A hang means that merging takes quadratic time, so that a long paste stops the engine.
        let text = String(repeating: "antidisestablishmentarianism", count: 8_000)
        let slow = try TokenizerFixtures.slow("tok2000")
        #expect(slow.decode(slow.encode(text)) == text)
        let fast = try TokenizerFixtures.fast("tok2000")
        #expect(fast.decode(fast.encode(text)) == text)
    }
}
