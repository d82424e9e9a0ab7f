import Foundation
import Testing

@testable import AdaLLaVA

/// GGUF vocabularies against the ids that llama.cpp records beside them.
@Suite struct TokenizerVocabularyTests {
    static let committed: [URL] = ["llama-spm", "gpt-2"].map {
        TokenizerFixtures.folder.appendingPathComponent("vocabularies/ggml-vocab-\($0).gguf")
    }

    /// The larger ones, where a folder is named.
    static let others: [URL] = {
        guard let path = ProcessInfo.processInfo.environment["ADALLAVA_VOCABULARIES"] else { return [] }
        let known = [
            "llama-bpe", "qwen2", "starcoder", "refact", "command-r", "mpt", "deepseek-llm", "deepseek-coder", "falcon", "phi-3",
        ]
        return known.map { URL(fileURLWithPath: path).appendingPathComponent("ggml-vocab-\($0).gguf") }
            .filter { FileManager.default.fileExists(atPath: $0.path) }
    }()

    @Test("GGUF vocabularies give the recorded tokens", arguments: committed + others)
    func encodesAsRecorded(_ url: URL) throws {
        // A mismatch means that a model from such a GGUF file is asked in other tokens than it was trained on.
        let tokenizer = try VocabularyFile(url).vocabulary.makeTokenizer(file: url.lastPathComponent)
        let inputs = String(decoding: try Data(contentsOf: url.appendingPathExtension("inp")), as: UTF8.self)
        let outputs = String(decoding: try Data(contentsOf: url.appendingPathExtension("out")), as: UTF8.self)
        let texts = ByteText.split(inputs, by: "\n__ggml_vocab_test__\n")
        let rows = ByteText.split(outputs, by: "\n").map { $0.split(separator: " ").compactMap { Int($0) } }
        #expect(texts.count > 40)
        for (text, ids) in zip(texts, rows) {
            #expect(tokenizer.encode([.text(text)], addSpecialTokens: false) == ids, "\(url.lastPathComponent), \(text.debugDescription)")
            let decoded = tokenizer.decode(ids)
            #expect(decoded == text || decoded.hasSuffix(text), "\(url.lastPathComponent), \(text.debugDescription)")
        }
    }
}
