import Foundation
import Testing

@testable import AdaLLaVA

/// Damaged tokenizers: each is either turned away with a typed error or works.
@Suite struct TokenizerFuzzTests {
    private static let sample = "The 2 naïve cats'll see </s>\u{301}中文 <image> 😀\n\n  x"

    /// Encodes and decodes something; streams it; asks for every kind of id.
    private func use(_ tokenizer: any Tokenizer) {
        let ids = tokenizer.encode(Self.sample)
        #expect(ids.allSatisfy { $0 >= 0 && $0 < max(tokenizer.vocabularySize, 1 << 24) })
        var decoder = StreamingDecoder(tokenizer, skipSpecialTokens: false)
        let streamed = (ids + [-1, 0, 1, 2, .max, .min]).map { decoder.push($0) }.joined() + decoder.finish()
        #expect(streamed == tokenizer.decode(ids + [-1, 0, 1, 2, .max, .min], skipSpecialTokens: false))
        for id in [-1, 0, tokenizer.vocabularySize - 1, tokenizer.vocabularySize, .max] {
            _ = tokenizer.bytes(of: id)
            _ = tokenizer.isSpecial(id)
        }
        _ = PromptEncoder(tokenizer).encode([.text("a"), .image, .special("</s>")])
    }

    /// - Returns: whether a tokenizer came of it.
    private func attempt(_ make: () throws -> any Tokenizer) -> Bool {
        do {
            use(try make())
            return true
        } catch {
            #expect(error is any AdaLLaVAError, "\(error)")
            return false
        }
    }

    /// A few random edits: bytes changed, cut out, doubled; numbers and lengths made absurd.
    private func mutated(_ original: [UInt8], _ generator: inout SeededGenerator) -> [UInt8] {
        var bytes = original
        for _ in 0..<Int.random(in: 1...2, using: &generator) where !bytes.isEmpty {
            let at = Int.random(in: 0..<bytes.count, using: &generator)
            let end = min(bytes.count, at + Int.random(in: 1...40, using: &generator))
            switch Int.random(in: -4..<8, using: &generator) {
            case ...0: bytes[at] = UInt8.random(in: 0...255, using: &generator)
            case 1: bytes[at] ^= 1 << UInt8.random(in: 0...7, using: &generator)
            case 2: bytes.removeSubrange(at..<end)
            case 3: bytes.insert(contentsOf: bytes[at..<end], at: at)
            case 4: bytes.removeSubrange(at...)
            case 5: bytes.insert(contentsOf: [UInt8](repeating: 0xFF, count: 9), at: at)
            case 6: bytes.insert(contentsOf: Array("-1e99".utf8), at: at)
            default: bytes.replaceSubrange(at..<end, with: (at..<end).map { _ in UInt8.random(in: 0...255, using: &generator) })
            }
        }
        return bytes
    }

    @Test("tokenizer models never crash") func tokenizerModelsNeverCrash() throws {
        // A crash means that a damaged tokenizer.model stops the program instead of being turned away.
        let originals = try TokenizerFixtures.names.map { try TokenizerFixtures.bytes("\($0)/tokenizer.model") }
        var generator = SeededGenerator(seed: 1)
        var read = 0
        for round in 0..<1500 {
            var settings = TokenizerSettings()
            settings.isLegacy = round % 2 == 0
            let bytes = mutated(originals[round / 2 % 2], &generator)
            if attempt({ try TokenizerLoader.sentencePiece(bytes, settings: settings, file: "fuzz.model") }) { read += 1 }
        }
        // Both outcomes must occur, or the edits test nothing.
        #expect(read > 50 && read < 1450)
    }

    @Test("tokenizer JSON files never crash") func tokenizerJSONsNeverCrash() throws {
        // A crash means that a damaged tokenizer.json stops the program instead of being turned away.
        let folder = TokenizerFixtures.folder.appendingPathComponent("tokenizer-pipelines")
        let names = ["llama3", "splits", "lowercase", "metaspace-first", "gpt2-prefix-space", "inverted"]
        let originals = try names.map { [UInt8](try Data(contentsOf: folder.appendingPathComponent("\($0).json"))) }
            + [try TokenizerFixtures.bytes("tok320/tokenizer.json")]
        var generator = SeededGenerator(seed: 2)
        var read = 0
        for round in 0..<1200 {
            let bytes = mutated(originals[round % originals.count], &generator)
            if attempt({ try TokenizerJSON(bytes, file: "fuzz.json").makeTokenizer() }) { read += 1 }
        }
        #expect(read > 20 && read < 1150, "\(read)")
    }

    @Test("damaged tokenizer settings end in errors") func settingsNeverCrash() throws {
        // A crash means that a damaged tokenizer_config.json stops the program instead of being turned away.
        let model = try TokenizerFixtures.bytes("tok320/tokenizer.model")
        let originals = [
            try TokenizerFixtures.bytes("tok320/tokenizer_config.json"), Array("{\"<a>\": 320, \"<b>\": 7, \"</s>\": 9}".utf8),
        ]
        var generator = SeededGenerator(seed: 3)
        var read = 0
        for round in 0..<300 {
            let bytes = mutated(originals[round % 2], &generator)
            let made = attempt {
                var settings = TokenizerSettings()
                if round % 2 == 0 {
                    try settings.readConfiguration(bytes, file: "fuzz.json")
                    try settings.readSpecialTokensMap(bytes, file: "fuzz.json")
                } else {
                    try settings.readAddedTokens(bytes, file: "fuzz.json")
                }
                return try TokenizerLoader.sentencePiece(model, settings: settings, file: "fuzz.model")
            }
            if made { read += 1 }
        }
        #expect(read > 20 && read < 280)
    }

    @Test("damaged GGUF vocabularies end in errors") func vocabulariesNeverCrash() throws {
        // A crash means that a damaged GGUF vocabulary stops the program instead of being turned away.
        let slow = try TokenizerFixtures.slow("tok320")
        let llama = GGUFVocabulary(
            model: "llama", tokens: (0..<320).map { Array(slow.model.pieces[$0]) }, scores: (0..<320).map { -Float($0) },
            tokenTypes: (0..<320).map { Int(slow.model.kinds[$0].rawValue) }, bosToken: 1, eosToken: 2, unknownToken: 0)
        let letters = (0..<256).map { ByteLevelAlphabet.encoded[$0] }
        let gpt2 = GGUFVocabulary(
            model: "gpt2", pre: "smollm", tokens: letters + ["th", "the", "Ġ2", "<|im_end|>"].map { Array($0.utf8) },
            tokenTypes: [Int](repeating: 1, count: 259) + [3], merges: ["t h", "th e", "Ġ 2"].map { Array($0.utf8) }, eosToken: 259)
        let pres = ["default", "gpt-2", "llama-bpe", "qwen2", "deepseek-llm", "deepseek-coder", "falcon", "gpt-4o", "smollm", "none"]
        var generator = SeededGenerator(seed: 4)
        var read = 0
        for round in 0..<500 {
            var vocabulary = round % 2 == 0 ? llama : gpt2
            if round % 2 == 1 { vocabulary.pre = pres[Int.random(in: 0..<pres.count, using: &generator)] }
            for _ in 0..<Int.random(in: 0...3, using: &generator) { damage(&vocabulary, &generator) }
            if attempt({ try vocabulary.makeTokenizer(file: "fuzz.gguf") }) { read += 1 }
        }
        #expect(read > 50 && read < 450)
    }

    private func damage(_ vocabulary: inout GGUFVocabulary, _ generator: inout SeededGenerator) {
        let id = Int.random(in: 0..<max(1, vocabulary.tokens.count), using: &generator)
        let odd = [-1, 0, 3, 259, 320, 1 << 40, Int.max, Int.min][Int.random(in: 0..<8, using: &generator)]
        guard vocabulary.tokens.indices.contains(id) else { return }
        switch Int.random(in: 0..<12, using: &generator) {
        case 0: vocabulary.tokens[id] = mutated(vocabulary.tokens[id], &generator)
        case 1: vocabulary.tokens[id] = []
        case 2: vocabulary.tokens[id] = vocabulary.tokens[0]
        case 3: vocabulary.tokens.removeSubrange(id...)
        case 4: if vocabulary.tokenTypes.indices.contains(id) { vocabulary.tokenTypes[id] = odd }
        case 5: if vocabulary.scores.indices.contains(id) { vocabulary.scores[id] = [.nan, .infinity, -.infinity, 0][abs(id) % 4] }
        case 6: vocabulary.bosToken = odd
        case 7: vocabulary.eosToken = odd
        case 8: vocabulary.unknownToken = odd
        case 9: vocabulary.merges.append(mutated(Array("th Ġ2".utf8), &generator))
        case 10: (vocabulary.addsSpacePrefix, vocabulary.addsBOS, vocabulary.addsEOS) = (id % 2 == 0, true, true)
        default: vocabulary.tokenTypes = vocabulary.tokens.indices.map { _ in Int.random(in: 0...7, using: &generator) }
        }
    }
}
