import Foundation
import Testing

@testable import AdaEvaluation
@testable import AdaLLaVA

/// The recorded numbers of the reference's analyzer.
struct RecordedCosts: Decodable {
    struct Request: Decodable {
        let model, hardware: String
        let numHeads: [Int]
        let promptLen, genLen: Int
        let flashAttention: Bool?
        let settings: Bits?
        let result: [String: Double]
        let formatted: [String: String]?

        enum CodingKeys: String, CodingKey {
            case model, hardware, settings, result, formatted
            case numHeads = "num_heads"
            case promptLen = "prompt_len"
            case genLen = "gen_len"
            case flashAttention = "flash_attention"
        }
    }

    struct Bits: Decodable {
        let batchsize, wBit, aBit: Int
        let kvBit: Int?

        enum CodingKeys: String, CodingKey {
            case batchsize
            case wBit = "w_bit"
            case aBit = "a_bit"
            case kvBit = "kv_bit"
        }
    }

    struct Totals: Decodable {
        let model, hardware: String
        let numHeads: [Int]
        let promptLen: Int
        let flashAttention: Bool
        let result: [String: [String: Double]]

        enum CodingKeys: String, CodingKey {
            case model, hardware, result
            case numHeads = "num_heads"
            case promptLen = "prompt_len"
            case flashAttention = "flash_attention"
        }
    }

    struct Layer: Decodable {
        let model, hardware: String
        let numHeads: Int?
        let promptLen: Int
        let flashAttention: Bool
        let result: [String: [String: Operation]]

        enum CodingKeys: String, CodingKey {
            case model, hardware, result
            case numHeads = "num_heads"
            case promptLen = "prompt_len"
            case flashAttention = "flash_attention"
        }
    }

    struct Operation: Decodable {
        let numbers: [String: Double]
        let bound: String

        init(from decoder: any Swift.Decoder) throws {
            let container = try decoder.container(keyedBy: Key.self)
            bound = try container.decode(String.self, forKey: Key(stringValue: "bound"))
            var numbers: [String: Double] = [:]
            for key in container.allKeys where key.stringValue != "bound" { numbers[key.stringValue] = try container.decode(Double.self, forKey: key) }
            self.numbers = numbers
        }

        struct Key: CodingKey {
            let stringValue: String
            var intValue: Int? { nil }
            init(stringValue: String) { self.stringValue = stringValue }
            init?(intValue: Int) { nil }
        }
    }

    let shapes: [String: [String: Int]]
    let tasks: [Request]
    let totals: [Totals]
    let layers: [Layer]
    let otherSettings: [Request]

    enum CodingKeys: String, CodingKey {
        case shapes, tasks, totals, layers
        case otherSettings = "other_settings"
    }

    static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("Fixtures/analyzer")

    static func load() throws -> RecordedCosts {
        try JSONDecoder().decode(RecordedCosts.self, from: Data(contentsOf: folder.appendingPathComponent("analyzer.json")))
    }
}

/// The tolerance that the recorded costs recommend.
func isClose(_ found: Double, _ expected: Double) -> Bool { abs(found - expected) <= 1e-9 * max(abs(found), abs(expected)) }

/// The names at which two sets of numbers differ, with both values; a name on one side only is a difference too.
func differences(_ found: [String: Double], _ expected: [String: Double]) -> [String] {
    Set(found.keys).union(expected.keys).sorted().compactMap { name in
        guard let left = found[name], let right = expected[name] else { return "\(name) on one side only" }
        return isClose(left, right) ? nil : "\(name): found \(left), expected \(right)"
    }
}

/// A model small enough to count by hand: 2 layers, hidden 8, 4 heads of 2 sharing 2 key-value heads, 10 neurons (groups of 3, 3, 2, 2),
/// vocabulary 16.
func tinyModel(adaptive: Bool = true, type: AdaptiveConfiguration.SchedulerType = .heads) -> AnalyzedModel {
    AnalyzedModel(
        name: "tiny",
        configuration: ModelConfiguration(
            language: DecoderConfiguration(
                vocabularySize: 16, hiddenSize: 8, intermediateSize: 10, numHiddenLayers: 2, numAttentionHeads: 4, numKeyValueHeads: 2),
            adaptive: adaptive ? AdaptiveConfiguration(schedulerType: type, schedulerRank: 1, numPrefixLayers: 1) : nil))
}
