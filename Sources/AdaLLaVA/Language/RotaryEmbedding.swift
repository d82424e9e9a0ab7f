import Foundation

/// The frequencies of the rotary position embedding (RoPE, Su et al., 2021), changed for longer contexts as ``RopeScaling`` says.
/// The numbers are those of Hugging Face's `ROPE_INIT_FUNCTIONS`, computed in float32 as there.
///
/// The value pair `k` of a head at position `p` is turned by `p · inverseFrequencies[k]`.
package struct RotaryEmbedding: Sendable {
    /// The frequencies for a sequence of some length.
    package struct Frequencies: Sendable, Equatable {
        /// One for every pair of a head's rotated values: `[rotaryDim / 2]`.
        package let inverseFrequencies: [Float]
        /// Factor of cosines and sines; 1 except for YaRN and LongRoPE.
        package let attentionScaling: Float
    }

    private let rotaryDim: Int
    private let theta: Double
    private let scaling: RopeScaling?
    private let frequencyFactors: [Float]?

    /// - Parameter frequencyFactors: divisors of the frequencies, `[rotaryDim / 2]`: GGUF's `rope_freqs.weight`.
    /// - Throws: ``CheckpointError/configuration(field:expected:found:file:)`` if the factors are not as many as the frequencies, or
    ///   not positive.
    package init(_ configuration: DecoderConfiguration, frequencyFactors: [Float]? = nil) throws {
        if let factors = frequencyFactors {
            guard factors.count == configuration.rotaryDim / 2, factors.allSatisfy({ $0.isFinite && $0 > 0 }) else {
                throw CheckpointError.configuration(
                    field: "rope_freqs.weight", expected: "\(configuration.rotaryDim / 2) positive numbers",
                    found: "\(factors.count) numbers", file: "the checkpoint")
            }
        }
        rotaryDim = configuration.rotaryDim
        theta = configuration.ropeTheta
        scaling = configuration.ropeScaling
        self.frequencyFactors = frequencyFactors
    }

    /// Frequencies of another base, without the scaling of longer contexts.
    init(_ configuration: DecoderConfiguration, plainBase: Double) throws {
        var plain = configuration
        (plain.ropeTheta, plain.ropeScaling) = (plainBase, nil)
        try self.init(plain)
    }

    /// Whether the frequencies change with the length of the sequence, so that they must be asked for again when it grows.
    package var dependsOnSequenceLength: Bool {
        switch scaling {
        case .dynamic, .longrope: true
        default: false
        }
    }

    /// The frequencies for a sequence of `sequenceLength` positions, prompt and answer.
    package func frequencies(sequenceLength: Int) -> Frequencies {
        let (inverse, attention) = scaled(sequenceLength: sequenceLength)
        guard let frequencyFactors else { return Frequencies(inverseFrequencies: inverse, attentionScaling: attention) }
        return Frequencies(inverseFrequencies: zip(inverse, frequencyFactors).map { $0 / $1 }, attentionScaling: attention)
    }

    private func scaled(sequenceLength: Int) -> ([Float], Float) {
        switch scaling {
        case nil: (plain(base: theta), 1)
        case .linear(let factor): (plain(base: theta).map { $0 / Float(factor) }, 1)
        case .dynamic(let factor, let original): (plain(base: dynamicBase(factor, original, sequenceLength)), 1)
        case .llama3(let factor, let low, let high, let original): (llama3(factor, low, high, Double(original)), 1)
        case .yarn(let parameters): (yarn(parameters), Float(parameters.attentionFactor))
        case .longrope(let short, let long, let attention, let original):
            (longrope(sequenceLength > original ? long : short), Float(attention))
        }
    }

    /// base^(2k / rotaryDim)
    private func powers(base: Double) -> [Float] {
        stride(from: 0, to: rotaryDim, by: 2).map { pow(Float(base), Float($0) / Float(rotaryDim)) }
    }

    private func plain(base: Double) -> [Float] { powers(base: base).map { 1 / $0 } }

    private func dynamicBase(_ factor: Double, _ original: Int, _ sequenceLength: Int) -> Double {
        let length = Double(max(sequenceLength, original)) / Double(original)
        let stretch = factor * length - (factor - 1)
        return theta * pow(stretch, Double(rotaryDim) / Double(rotaryDim - 2))
    }

    private func llama3(_ factor: Double, _ low: Double, _ high: Double, _ original: Double) -> [Float] {
        plain(base: theta).map { inverse in
            let wavelength = 2 * Float.pi / inverse
            if wavelength < Float(original / high) { return inverse }
            if wavelength > Float(original / low) { return inverse / Float(factor) }
            let smooth = (Float(original) / wavelength - Float(low)) / Float(high - low)
            return (1 - smooth) * inverse / Float(factor) + smooth * inverse
        }
    }

    private func yarn(_ parameters: RopeScaling.YaRN) -> [Float] {
        // The dimension whose wave turns `rotations` times over the original context.
        func dimension(_ rotations: Double) -> Double {
            Double(rotaryDim) * log(Double(parameters.originalMaxPositionEmbeddings) / (rotations * 2 * .pi)) / (2 * log(theta))
        }
        var low = dimension(parameters.betaFast)
        var high = dimension(parameters.betaSlow)
        if parameters.truncate { (low, high) = (low.rounded(.down), high.rounded(.up)) }
        (low, high) = (max(low, 0), min(high, Double(rotaryDim - 1)))
        if low == high { high += 0.001 }

        return powers(base: theta).enumerated().map { index, power in
            let ramp = min(max((Float(index) - Float(low)) / Float(high - low), 0), 1)
            let kept = 1 - ramp
            return 1 / (Float(parameters.factor) * power) * (1 - kept) + 1 / power * kept
        }
    }

    private func longrope(_ factors: [Double]) -> [Float] {
        zip(factors, powers(base: theta)).map { 1 / (Float($0) * $1) }
    }
}

extension DecoderConfiguration {
    /// GGUF's `rope_freqs.weight` for Llama 3.1's scaling: plain frequency over scaled frequency, `[headDim / 2]`.
    /// `nil` for every other scaling.
    package func rotaryFrequencyFactors() throws -> [Float]? {
        guard case .llama3 = ropeScaling else { return nil }
        var plain = self
        plain.ropeScaling = nil
        let scaled = try RotaryEmbedding(self).frequencies(sequenceLength: 1).inverseFrequencies
        return zip(try RotaryEmbedding(plain).frequencies(sequenceLength: 1).inverseFrequencies, scaled).map { $0 / $1 }
    }
}
