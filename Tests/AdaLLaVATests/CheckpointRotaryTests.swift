import Foundation
import Testing

@testable import AdaLLaVA

@Suite struct CheckpointRotaryTests {
    /// Eight values a head, base 10000: plain frequencies 1, 0.1, 0.01, 0.001.
    private func configuration(_ scaling: RopeScaling?, theta: Double = 10000, headDim: Int = 8) -> DecoderConfiguration {
        DecoderConfiguration(
            vocabularySize: 8, hiddenSize: headDim * 4, intermediateSize: 8, numHiddenLayers: 1, numAttentionHeads: 4, ropeTheta: theta,
            ropeScaling: scaling, maxPositionEmbeddings: 64)
    }

    private func expect(
        _ scaling: RopeScaling?, length: Int = 1, _ expected: [Double], attention: Double = 1,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let found = try RotaryEmbedding(configuration(scaling)).frequencies(sequenceLength: length)
        #expect(found.inverseFrequencies.count == expected.count, sourceLocation: sourceLocation)
        for (value, wanted) in zip(found.inverseFrequencies, expected) {
            #expect(abs(Double(value) - wanted) <= 2e-6 * wanted, "\(found.inverseFrequencies)", sourceLocation: sourceLocation)
        }
        #expect(abs(Double(found.attentionScaling) - attention) < 1e-6, sourceLocation: sourceLocation)
    }

    @Test("plain and linearly scaled frequencies are transformers'") func plainAndLinear() throws {
        // A failure means that positions are turned by wrong angles in every model.
        try expect(nil, [1, 0.1, 0.01, 0.001])
        try expect(.linear(factor: 4), [0.25, 0.025, 0.0025, 0.00025])
    }

    @Test("dynamic NTK frequencies are transformers'") func dynamic() throws {
        // A failure means that NTK scaling starts too early, or with another base.
        try expect(.dynamic(factor: 2, originalMaxPositionEmbeddings: 64), length: 64, [1, 0.1, 0.01, 0.001])
        // Twice the length: base 10000 · 3^(8/6) = 43267.487; its powers to -1/4, -1/2, -3/4.
        try expect(.dynamic(factor: 2, originalMaxPositionEmbeddings: 64), length: 128, [1, 0.069336127, 0.0048074986, 0.00033333333])
    }

    @Test("Llama 3.1 frequencies are transformers'") func llama3() throws {
        // A failure means that Llama 3.1 and later misplace distant tokens.
        // Wavelengths 6.28, 62.8, 628, 6283 over a context of 256: below 256/4 kept, above 256/1 divided by 8.
        let scaling = RopeScaling.llama3(factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalMaxPositionEmbeddings: 256)
        try expect(scaling, [1, 0.1, 0.00125, 0.000125])
        // Over a context of 128, 62.8 lies between 32 and 128: smooth = (128/62.831853 - 1)/3 = 0.34572776, so 0.1 · (0.65427224/8 + 0.34572776).
        let blended = RopeScaling.llama3(factor: 8, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalMaxPositionEmbeddings: 128)
        try expect(blended, [1, 0.042751179, 0.00125, 0.000125])
    }

    @Test("YaRN frequencies are transformers'") func yarn() throws {
        // A failure means that models stretched by YaRN misplace distant tokens.
        // Bounds 8·ln(64/(β·2π))/(2·ln 10000): β 32 gives -0.497, rounded down and cut to 0; β 1 gives 1.008, rounded up to 2.
        // The ramp over pairs 0…3 is 0, 0.5, 1, 1: kept, half 0.1 and half 0.025, divided by 4.
        try expect(
            .yarn(.init(factor: 4, originalMaxPositionEmbeddings: 64)), [1, 0.0625, 0.0025, 0.00025], attention: 1 + 0.1 * log(4.0))
        try expect(
            .yarn(.init(factor: 4, originalMaxPositionEmbeddings: 64, attentionFactor: 2)), [1, 0.0625, 0.0025, 0.00025], attention: 2)
    }

    @Test("LongRoPE frequencies are transformers'") func longrope() throws {
        // A failure means that LongRoPE models use the factors of the wrong context.
        let scaling = RopeScaling.longrope(
            shortFactor: [1, 1, 2, 2], longFactor: [1, 4, 5, 10], attentionFactor: 1.5, originalMaxPositionEmbeddings: 64)
        try expect(scaling, length: 64, [1, 0.1, 0.005, 0.0005], attention: 1.5)
        try expect(scaling, length: 65, [1, 0.025, 0.002, 0.0001], attention: 1.5)
    }

    @Test("frequency factors of GGUF give Llama 3.1's frequencies") func frequencyFactors() throws {
        // A failure means that Llama 3.1 from GGUF differs from the same model from safetensors.
        let scaled = configuration(
            .llama3(factor: 32, lowFrequencyFactor: 1, highFrequencyFactor: 4, originalMaxPositionEmbeddings: 8192), theta: 500000,
            headDim: 64)
        let factors = try #require(try scaled.rotaryFrequencyFactors())
        #expect(factors.count == 32 && factors.first == 1 && abs((factors.last ?? 0) - 32) < 1e-4)
        let wanted = try RotaryEmbedding(scaled).frequencies(sequenceLength: 1)
        let found = try RotaryEmbedding(configuration(nil, theta: 500000, headDim: 64), frequencyFactors: factors).frequencies(
            sequenceLength: 1)
        for (value, expected) in zip(found.inverseFrequencies, wanted.inverseFrequencies) {
            #expect(abs(value - expected) <= 1e-6 * expected)
        }
        #expect(checkpointError { try RotaryEmbedding(scaled, frequencyFactors: [1]) }?.isConfiguration == true)
        #expect(
            checkpointError { try RotaryEmbedding(scaled, frequencyFactors: [Float](repeating: 0, count: 32)) }?.isConfiguration == true)
        #expect(try configuration(nil).rotaryFrequencyFactors() == nil)
    }

    @Test("the context length follows from the scaling") func contextLength() {
        // A failure means that prompts are refused that the model can take.
        #expect(configuration(nil).contextLength == 64)
        #expect(configuration(.linear(factor: 4)).contextLength == 256)
        #expect(configuration(.dynamic(factor: 2, originalMaxPositionEmbeddings: 64)).contextLength == 128)
        #expect(configuration(.yarn(.init(factor: 4, originalMaxPositionEmbeddings: 64))).contextLength == 256)
        #expect(configuration(.yarn(.init(factor: 4, originalMaxPositionEmbeddings: 16))).contextLength == 64)
    }
}
