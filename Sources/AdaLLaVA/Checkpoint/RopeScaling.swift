import Foundation

/// How the frequencies of the rotary position embedding are changed for contexts longer than those the model was first trained
/// on, with the names and meanings of Hugging Face's `rope_scaling` / `rope_parameters`.
package enum RopeScaling: Sendable, Equatable {
    /// All frequencies divided by `factor` (position interpolation).
    case linear(factor: Double)
    /// A larger base once the sequence outgrows `originalMaxPositionEmbeddings` (NTK-aware, dynamic).
    case dynamic(factor: Double, originalMaxPositionEmbeddings: Int)
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, those between blended.
    case llama3(factor: Double, lowFrequencyFactor: Double, highFrequencyFactor: Double, originalMaxPositionEmbeddings: Int)
    /// YaRN (Peng et al., 2023).
    case yarn(YaRN)
    /// LongRoPE (Ding et al., 2024): a factor for every frequency, one list up to the original context and one beyond.
    case longrope(shortFactor: [Double], longFactor: [Double], attentionFactor: Double, originalMaxPositionEmbeddings: Int)

    /// YaRN's parameters.
    package struct YaRN: Sendable, Equatable {
        /// How many times the original context.
        package var factor: Double
        /// Positions of the context that the model was trained with first.
        package var originalMaxPositionEmbeddings: Int
        /// Rotations over the original context above which a frequency is kept.
        package var betaFast: Double
        /// Rotations over the original context below which a frequency is divided by `factor`.
        package var betaSlow: Double
        /// Factor of cosines and sines.
        package var attentionFactor: Double
        /// Whether the bounds of the blended frequencies are rounded to whole dimensions.
        package var truncate: Bool

        /// YaRN's defaults.
        package init(
            factor: Double, originalMaxPositionEmbeddings: Int, betaFast: Double = 32, betaSlow: Double = 1,
            attentionFactor: Double? = nil, truncate: Bool = true
        ) {
            self.factor = factor
            self.originalMaxPositionEmbeddings = originalMaxPositionEmbeddings
            self.betaFast = betaFast
            self.betaSlow = betaSlow
            self.attentionFactor = attentionFactor ?? Self.magnitude(factor)
            self.truncate = truncate
        }

        /// 0.1 · scale · ln(factor) + 1: how much longer contexts flatten attention, as fitted by YaRN's authors.
        static func magnitude(_ factor: Double, scale: Double = 1) -> Double {
            factor <= 1 ? 1 : 0.1 * scale * log(factor) + 1
        }
    }

    /// - Throws: ``CheckpointError/configuration(field:expected:found:file:)``
    func validate(rotaryDim: Int, maxPositionEmbeddings: Int, file: String) throws {
        func invalid(_ field: String, _ expected: String, _ found: String) -> CheckpointError {
            .configuration(field: "rope_scaling.\(field)", expected: expected, found: found, file: file)
        }
        switch self {
        case .dynamic where rotaryDim < 4:
            throw invalid("rope_type", "another type than dynamic for \(rotaryDim) rotated values of a head", "dynamic")
        case .llama3(_, let low, let high, _) where high <= low:
            throw invalid("high_freq_factor", "more than low_freq_factor \(low)", "\(high)")
        case .yarn(let yarn) where yarn.betaFast <= yarn.betaSlow:
            throw invalid("beta_fast", "more than beta_slow \(yarn.betaSlow)", "\(yarn.betaFast)")
        case .longrope(let short, let long, _, _) where short.count != rotaryDim / 2 || long.count != rotaryDim / 2:
            throw invalid("short_factor and long_factor", "\(rotaryDim / 2) factors each", "\(short.count) and \(long.count)")
        default: break
        }
    }
}

/// The rotary embedding's part of a Hugging Face configuration.
struct RopeParameters {
    let theta: Double
    let scaling: RopeScaling?
    /// The fraction of a head's values that is rotated; `nil` if the file has none.
    let partialFactor: Double?
    /// Pairs of a head that each axis turns in turn (`mrope_section`).
    let sections: [Int]

    private static let factors = 1e-3...1e6

    /// Valid range of a base.
    static let bases = 1.0...1e12

    init(huggingFace fields: ConfigurationFields, maxPositionEmbeddings: Int, missingTheta: Double) throws {
        // Version 5 of transformers writes rope_parameters, base included, where layers differ one for each kind of layer; earlier ones rope_theta
        // and rope_scaling.
        let written = try fields.optionalObject("rope_parameters")
        let parameters = try written?.optionalObject(DecoderLayerKind.attention.rawValue) ?? written ?? fields.optionalObject("rope_scaling")
        let bases = Self.bases
        theta = try parameters?.optionalNumber("rope_theta", in: bases) ?? fields.number("rope_theta", in: bases, missing: missingTheta)
        partialFactor = try parameters?.optionalNumber("partial_rotary_factor", in: 0...1) ?? fields.optionalNumber("partial_rotary_factor", in: 0...1)
        sections = try parameters?.optionalNumbers("mrope_section", counts: 1...64, in: 1...4096)?.map { Int($0) } ?? []
        guard let parameters else {
            scaling = nil
            return
        }
        let type = try parameters.optionalString("rope_type") ?? parameters.optionalString("type") ?? "default"
        let originals = ConfigurationLimits.positions
        let original =
            try parameters.optionalInteger("original_max_position_embeddings", in: originals)
            ?? fields.optionalInteger("original_max_position_embeddings", in: originals)
        switch type {
        case "default": scaling = nil
        // Qwen2-VL's name of sections without scaling.
        case "mrope" where !sections.isEmpty: scaling = nil
        case "linear": scaling = .linear(factor: try parameters.number("factor", in: Self.factors, missing: nil))
        case "dynamic":
            scaling = .dynamic(
                factor: try parameters.number("factor", in: Self.factors, missing: nil),
                originalMaxPositionEmbeddings: maxPositionEmbeddings)
        case "llama3":
            guard let original else { throw parameters.invalid("original_max_position_embeddings", expected: "a number of positions") }
            scaling = .llama3(
                factor: try parameters.number("factor", in: Self.factors, missing: nil),
                lowFrequencyFactor: try parameters.number("low_freq_factor", in: Self.factors, missing: nil),
                highFrequencyFactor: try parameters.number("high_freq_factor", in: Self.factors, missing: nil),
                originalMaxPositionEmbeddings: original)
        case "yarn": scaling = .yarn(try Self.yarn(parameters, original: original, maxPositionEmbeddings: maxPositionEmbeddings))
        case "longrope", "su":
            scaling = try Self.longrope(parameters, original: original, maxPositionEmbeddings: maxPositionEmbeddings)
        default:
            throw CheckpointError.unsupported(
                what: "the rope_type \"\(type.prefix(40))\"", file: fields.file,
                hint: "known are default, linear, dynamic, llama3, yarn, longrope")
        }
    }

    private static func yarn(_ parameters: ConfigurationFields, original: Int?, maxPositionEmbeddings: Int) throws -> RopeScaling.YaRN {
        let given = try parameters.optionalNumber("factor", in: factors)
        let factor = given ?? original.map { Double(maxPositionEmbeddings) / Double($0) } ?? 1
        var attentionFactor = try parameters.optionalNumber("attention_factor", in: factors)
        if attentionFactor == nil,
            let scale = try parameters.optionalNumber("mscale", in: 0...1e6), scale != 0,
            let allDimensions = try parameters.optionalNumber("mscale_all_dim", in: 0...1e6), allDimensions != 0
        {
            attentionFactor = RopeScaling.YaRN.magnitude(factor, scale: scale) / RopeScaling.YaRN.magnitude(factor, scale: allDimensions)
        }
        return RopeScaling.YaRN(
            factor: factor, originalMaxPositionEmbeddings: original ?? maxPositionEmbeddings,
            betaFast: try parameters.number("beta_fast", in: factors, missing: 32),
            betaSlow: try parameters.number("beta_slow", in: factors, missing: 1),
            attentionFactor: attentionFactor, truncate: try parameters.bool("truncate", missing: true))
    }

    private static func longrope(_ parameters: ConfigurationFields, original: Int?, maxPositionEmbeddings: Int) throws -> RopeScaling {
        func list(_ name: String) throws -> [Double] {
            guard let list = try parameters.optionalNumbers(name, counts: 1...4096, in: factors) else {
                throw parameters.invalid(name, expected: "a list of factors")
            }
            return list
        }
        let given = try parameters.optionalNumber("factor", in: factors)
        let factor = given ?? original.map { Double(maxPositionEmbeddings) / Double($0) } ?? 1
        let context = original ?? maxPositionEmbeddings
        let attentionFactor =
            try parameters.optionalNumber("attention_factor", in: factors)
            ?? (factor <= 1 || context < 2 ? 1 : (1 + log(factor) / log(Double(context))).squareRoot())
        return .longrope(
            shortFactor: try list("short_factor"), longFactor: try list("long_factor"), attentionFactor: attentionFactor,
            originalMaxPositionEmbeddings: context)
    }
}
