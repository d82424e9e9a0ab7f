import AdaImages
import AdaLLaVA
import Foundation

/// One answered sample at one budget: a line of `answers.jsonl`.
public struct SampleRecord: Codable, Sendable, Equatable {
    public let id: String
    /// What the question asks for, where the benchmark says so (`task` of Scenes and MME), else the benchmark.
    public let task: String?
    /// The image's file, or where in the benchmark's table it is; absent for a question without one.
    public let image: String?
    public let question: String?
    public let budget: Budget
    public let answer: String
    public let references: [String]
    /// How well the answer does on its own, 0 ... 1; absent where the answers are kept by a server.
    public let score: Double?
    public let plan: Plan
    public let measured: Times
    public let cost: RequestCost?
    /// Damage found in the image, which was read anyway; absent if there is none.
    public let imageDamage: String?

    enum CodingKeys: String, CodingKey {
        case id, task, image, question, budget, answer, references, score, plan, measured, cost
        case imageDamage = "image_damage"
    }

    /// What ran.
    public struct Plan: Codable, Sendable, Equatable {
        /// Optional units granted; absent for a model that is not adaptive.
        public let units: Int?
        public let attentionHeadsPerLayer: [Int]
        public let mlpGroupsPerLayer: [Int]
        public let promptTokens: Int
        public let generatedTokens: Int
        public let keyValueBytes: Int
        /// The share of all heads and neuron groups that ran.
        public let executedShare: Double

        enum CodingKeys: String, CodingKey {
            case units
            case attentionHeadsPerLayer = "attention_heads_per_layer"
            case mlpGroupsPerLayer = "mlp_groups_per_layer"
            case promptTokens = "prompt_tokens"
            case generatedTokens = "generated_tokens"
            case keyValueBytes = "kv_bytes"
            case executedShare = "executed_share"
        }
    }

    /// Milliseconds of each phase.
    public struct Times: Codable, Sendable, Equatable {
        public let encode: Double
        public let prefill: Double
        public let decode: Double
        public let timeToFirstToken: Double

        enum CodingKeys: String, CodingKey {
            case encode = "encode_ms"
            case prefill = "prefill_ms"
            case decode = "decode_ms"
            case timeToFirstToken = "ttft_ms"
        }
    }

    /// Milliseconds for each token after the first; `nil` if there was only one.
    public var timePerOutputToken: Double? {
        plan.generatedTokens > 1 ? measured.decode / Double(plan.generatedTokens - 1) : nil
    }

    struct Key: Hashable {
        let id: String
        let budget: Budget
    }

    var key: Key { Key(id: id, budget: budget) }

    init(
        _ sample: BenchmarkSample, task: String, budget: Budget, response: ModelResponse, score: Double?, cost: RequestCost?, damage: ImageDamage?
    ) {
        (id, self.budget, answer, references) = (sample.id, budget, response.text, sample.references)
        (self.task, image, question) = (task, sample.image?.name, sample.question)
        (self.score, self.cost, imageDamage) = (score, cost, damage?.description)
        let (heads, groups) = (response.plan.headsPerLayer, response.plan.groupsPerLayer)
        let switches = 2 * response.plan.rows.count * response.plan.headCount
        plan = Plan(
            units: response.units, attentionHeadsPerLayer: heads, mlpGroupsPerLayer: groups, promptTokens: response.promptTokens,
            generatedTokens: response.generatedTokens, keyValueBytes: response.keyValueBytes,
            executedShare: switches == 0 ? 1 : Double((heads + groups).reduce(0, +)) / Double(switches))
        measured = Times(
            encode: response.measured.encode / .milliseconds(1), prefill: response.measured.prefill / .milliseconds(1),
            decode: response.measured.decode / .milliseconds(1), timeToFirstToken: response.measured.timeToFirstToken / .milliseconds(1))
    }
}
