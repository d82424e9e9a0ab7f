import AdaLLaVA

extension PlanReport {
    /// The output of `explain --json`.
    package struct JSON: Codable, Sendable {
        package var model: String
        package var data: String
        package var prefixLayers: Int
        package var damagedImages: Int
        package var budgets: [Result]
        package var examples: [Example]
        /// Present with `--oracle`.
        package var oracle: PlanOracle.JSON?
        /// Present for a model with a budget head.
        package var auto: BudgetStudy.JSON?

        enum CodingKeys: String, CodingKey {
            case model, data, budgets, examples, oracle, auto
            case prefixLayers = "prefix_layers"
            case damagedImages = "damaged_images"
        }

        /// One budget. Dictionaries are by the source of the plan: `own`, `swapped`, `random`, `fixed`.
        package struct Result: Codable, Sendable {
            package var budget: Double
            package var samples: Int
            package var distinctPlans: Int
            package var switches: Int
            package var changedPlans: [String: Double]
            package var changedAnswers: [String: Double]
            package var units: Int?
            /// Present for two or more samples.
            package var meanHamming: Double?
            /// `[layers][2][switches]`: attention, MLP.
            package var switchFrequencies: [[[Double]]]?
            /// Present if the samples can be scored one by one.
            package var accuracy: [String: Double]?
            package var gainOfOwn: [String: PairedDifference]?

            enum CodingKeys: String, CodingKey {
                case budget, samples, switches, units, accuracy
                case distinctPlans = "distinct_plans"
                case changedPlans = "changed_plans"
                case changedAnswers = "changed_answers"
                case meanHamming = "mean_hamming"
                case switchFrequencies = "switch_frequencies"
                case gainOfOwn = "gain_of_own"
            }
        }

        /// An input that the page shows by itself.
        package struct Example: Codable, Sendable {
            package var id: String
            package var question: String
            package var attention: [Attention]

            package struct Attention: Codable, Sendable {
                package var budget: Double
                package var layers: [Layer]
            }

            /// Shares of the latency token's attention.
            package struct Layer: Codable, Sendable {
                package var layer: Int
                package var image: Double
                package var latencyToken: Double

                enum CodingKeys: String, CodingKey {
                    case layer, image
                    case latencyToken = "latency_token"
                }
            }
        }
    }
}
