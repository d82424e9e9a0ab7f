/// The pre-tokenizers that GGUF files name in `tokenizer.ggml.pre`, each a list of patterns whose matches are cut out in turn.
struct GGUFPreTokenizer: Sendable {
    let steps: [PreTokenizer]
    /// A word that is a token is that token, whatever the merges say (`ignore_merges` in these models' tokenizer.json).
    let ignoresMerges: Bool
    /// The default of adding the beginning of sequence, if the file has no such field.
    let addsBOS: Bool

    /// - Throws: ``CheckpointError/unsupported(what:file:hint:)`` for names that are not known.
    init(named name: String, file: String) throws {
        guard let patterns = Self.patterns[name] else {
            throw CheckpointError.unsupported(
                what: "tokenizer.ggml.pre \"\(name)\"", file: file, hint: "known are \(Self.patterns.keys.sorted().joined(separator: ", "))")
        }
        do {
            steps = try patterns.map { .split(try SplitPattern(regex: $0), .isolated, inverted: false) }
        } catch let error as RegularExpression.Unsupported {
            throw CheckpointError.unsupported(what: "the pattern \(error.pattern)", file: file, hint: "it does not compile here")
        }
        let isLlama3 = Self.llama3Names.contains(name)
        ignoresMerges = isLlama3
        addsBOS = isLlama3
    }

    /// The patterns of a name; none for a name that is not known.
    static func patterns(named name: String) -> [String] { patterns[name] ?? [] }

    private static let gpt2 = ["'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"]
    private static let digitsAlone = ["\\p{N}"] + gpt2
    private static let contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
    private static let words = "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
    private static let others = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
    private static let llama3 = [contractions + words + "\\p{N}{1,3}" + others]
    private static let llama3Names = ["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"]
    private static let qwen2 = [contractions + words + "\\p{N}" + others]
    private static let gpt4o = [
        "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
            + "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
            + "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
    ]
    private static let chinese = "[一-龥ࠀ-一가-퟿]+"
    private static let deepseekCoder = ["[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", chinese, "\\p{N}"]
    /// DeepSeek's letters: cased letters only, so that other scripts go their own way.
    private static let deepseekLLM = [
        "[\r\n]", "\\s?[\(casedLetters)]+", "\\s?[!-/:-~\\uFF01-\\uFF0F\\uFF1A-\\uFF5E\\u2018-\\u201F\\u3000-\\u3002]+", "\\s+$", chinese, "\\p{N}+",
    ]
    private static let casedLetters =
        "A-Za-z\\u00B5\\u00C0-\\u00D6\\u00D8-\\u00F6\\u00F8-\\u01BA\\u01BC-\\u01BF\\u01C4-\\u0293\\u0295-\\u02AF\\u0370-\\u0373"
        + "\\u0376\\u0377\\u037B-\\u037D\\u037F\\u0386\\u0388-\\u038A\\u038C\\u038E-\\u03A1\\u03A3-\\u03F5\\u03F7-\\u0481"
        + "\\u048A-\\u052F\\u0531-\\u0556\\u10A0-\\u10C5\\u13A0-\\u13F5\\u13F8-\\u13FD\\u1C90-\\u1CBA\\u1CBD-\\u1CBF"
        + "\\u1D00-\\u1D2B\\u1D6B-\\u1D77\\u1D79-\\u1D9A\\u1E00-\\u1F15\\u1F18-\\u1F1D\\u1F20-\\u1F45\\u1F48-\\u1F4D"
        + "\\u1F50-\\u1F57\\u1F59\\u1F5B\\u1F5D\\u1F5F-\\u1F7D\\u1F80-\\u1FB4\\u1FB6-\\u1FBC\\u1FBE\\u1FC2-\\u1FC4\\u1FC6-\\u1FCC"
        + "\\u1FD0-\\u1FD3\\u1FD6-\\u1FDB\\u1FE0-\\u1FEC\\u1FF2-\\u1FF4\\u1FF6-\\u1FFC\\u2102\\u2107\\u210A-\\u2113\\u2115"
        + "\\u2119-\\u211D\\u2124\\u2126\\u2128\\u212A-\\u212D\\u212F-\\u2134\\u2139\\u213C-\\u213F\\u2145-\\u2149\\u214E\\u2183"
        + "\\u2184\\u2C00-\\u2C7B\\u2C7E-\\u2CE4\\u2CEB-\\u2CEE\\u2CF2\\u2CF3\\uA640-\\uA66D\\uA680-\\uA69B\\uA722-\\uA76F"
        + "\\uA771-\\uA787\\uA78B-\\uA78E\\uAB70-\\uABBF\\uFB00-\\uFB06\\uFB13-\\uFB17\\uFF21-\\uFF3A\\uFF41-\\uFF5A"
        + "\\U00010400-\\U0001044F\\U000104B0-\\U000104D3\\U000104D8-\\U000104FB\\U00010C80-\\U00010CB2\\U00010CC0-\\U00010CF2"
        + "\\U000118A0-\\U000118DF\\U0001E900-\\U0001E943"
    private static let falcon = ["[\\p{P}\\$\\+<=>\\^~\\|`]+"] + gpt2 + ["[0-9][0-9][0-9]"]
    /// The pattern of files without a name of their own.
    private static let fallback = ["[\\p{P}\\$\\+<=>\\^~\\|]+"] + gpt2 + ["\\p{N}+", "[0-9][0-9][0-9]"]

    private static let patterns: [String: [String]] = {
        let families: [([String], [String])] = [
            (["default"], fallback),
            (["gpt-2", "mpt", "olmo", "jais", "phi-2", "trillion", "granite-docling"], gpt2),
            (["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"], digitsAlone),
            (llama3Names, llama3),
            (["dbrx", "smaug-bpe", "chatglm-bpe", "glm4"], llama3),
            (["qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan"], qwen2),
            (["gpt-4o", "llama4"], gpt4o),
            (["deepseek-llm"], deepseekLLM), (["deepseek-coder"], deepseekCoder), (["falcon"], falcon),
        ]
        var patterns: [String: [String]] = [:]
        for (names, family) in families {
            for name in names { patterns[name] = family }
        }
        return patterns
    }()
}
