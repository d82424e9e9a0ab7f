import AdaImages
import AdaLLaVA
import Foundation

/// One answered sample at one budget: a line of `answers.jsonl`.
package struct SampleRecord: Codable, Sendable, Equatable {
    package let id: String
    /// The question's task if the benchmark gives one (`task` of Scenes and MME), else the benchmark.
    package let task: String?
    /// The image's file, or where in the benchmark's table it is; absent for a question without one.
    package let image: String?
    package let question: String?
    package let budget: Budget
    package let answer: String
    package let references: [String]
    /// How well the answer does on its own, 0 ... 1; absent where the answers are kept by a server.
    package let score: Double?
    package let plan: Plan
    package let measured: Times
    package let cost: RequestCost?
    /// Damage found in the image, which was read anyway; absent if there is none.
    package let imageDamage: String?

    enum CodingKeys: String, CodingKey {
        case id, task, image, question, budget, answer, references, score, plan, measured, cost
        case imageDamage = "image_damage"
    }

    /// The plan that ran.
    package struct Plan: Codable, Sendable, Equatable {
        /// Optional units granted; absent for a model that is not adaptive.
        package let units: Int?
        package let attentionHeadsPerLayer: [Int]
        package let mlpGroupsPerLayer: [Int]
        package let promptTokens: Int
        package let generatedTokens: Int
        package let keyValueBytes: Int
        /// The fraction of all heads and neuron groups that ran.
        package let executedShare: Double

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
    package struct Times: Codable, Sendable, Equatable {
        package let encode: Double
        package let prefill: Double
        package let decode: Double
        package let timeToFirstToken: Double

        enum CodingKeys: String, CodingKey {
            case encode = "encode_ms"
            case prefill = "prefill_ms"
            case decode = "decode_ms"
            case timeToFirstToken = "ttft_ms"
        }
    }

    /// Milliseconds for each token after the first; `nil` if there was only one.
    package var timePerOutputToken: Double? {
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
