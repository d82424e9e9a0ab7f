import Foundation

/// Mistral's `MistralConfig`. In GGUF it is `llama` with a window.
enum MistralDescription: DecoderDescription {
    static let modelType = "mistral"
    static let llavaName = "mistral"
    static let ggufArchitecture = "llama"
    static let ggufIsInterleaved = true
    static let defaults = DecoderDefaults(intermediateSize: 14336, numKeyValueHeads: 8, maxPositionEmbeddings: 4096 * 32)

    static func read(_ fields: ConfigurationFields, _ rope: RopeParameters, into c: inout DecoderConfiguration) throws {
        try requireWholeHeadsAndSiLU(fields, rope, c)
        if !fields.isNull("sliding_window") {
            c.slidingWindow = try fields.integer("sliding_window", in: ConfigurationLimits.positions, missing: 4096)
        }
    }

    static let className = "Mistral"

    static func huggingFaceFields(_ c: DecoderConfiguration) -> [String: JSONValue] { ["sliding_window": JSONValue(c.slidingWindow)] }

    static func read(_ fields: GGUFFields, into c: inout DecoderConfiguration) throws { try LlamaDescription.read(fields, into: &c) }
}
