import AdaLLaVA

extension CostReport {
    /// The output of `analyze --json`. Request costs have the reference's names (LLM-Viewer). Units are operations, bytes and seconds.
    package struct JSON: JoinedMembers, Sendable {
        /// The six costs of the whole request: `flops`, `avg_flops`, `prefill_flops`, `prefill_time`, `memory_consumption`,
        /// `prefill_memory_consumption`. They are members of the object itself.
        package var request: RequestCost
        package var details: Details

        package init(joining request: RequestCost, _ details: Details) { (self.request, self.details) = (request, details) }

        package var joined: (RequestCost, Details) { (request, details) }

        /// All members except the costs of the request.
        package struct Details: Codable, Sendable {
            /// The request's costs with two or three digits and a unit: `8.0T`.
            package var formatted: [String: String]
            /// `reference` or `exact`.
            package var formula: String
            package var model: String
            package var hardware: HardwareJSON
            package var settings: Settings
            package var imageTokens: Int
            @Nullable package var tokenSelection: String?
            package var imageTokensDropped: Int
            package var attentionHeadsPerLayer: [Int]
            package var mlpGroupsPerLayer: [Int]
            @Nullable package var units: Int?
            @Nullable package var floor: Double?
            package var ttft: Double
            package var decodeTime: Double
            @Nullable package var timePerToken: Double?
            package var totalTime: Double
            /// `encode`, `prefill`, `decode`.
            package var stages: [String: Stage]
            /// Present with `--by layer` and `--by operation`.
            package var rows: [RowJSON]?
            /// Present with `--fit`.
            package var fit: Fit?

            enum CodingKeys: String, CodingKey {
                case formatted, formula, model, hardware, settings, units, floor, ttft, stages, rows, fit
                case imageTokens = "image_tokens"
                case tokenSelection = "token_selection"
                case imageTokensDropped = "image_tokens_dropped"
                case attentionHeadsPerLayer = "attention_heads_per_layer"
                case mlpGroupsPerLayer = "mlp_groups_per_layer"
                case decodeTime = "decode_time"
                case timePerToken = "time_per_token"
                case totalTime = "total_time"
            }
        }

        /// Bytes and operations a second; `null` where the hardware has none.
        package struct HardwareJSON: Codable, Sendable {
            package var name: String
            package var bandwidth: Double
            package var fp16: Double
            @Nullable package var int8: Double?
            @Nullable package var fp32: Double?
            package var onChipBuffer: Double

            enum CodingKeys: String, CodingKey {
                case name, bandwidth
                case fp16 = "FP16"
                case int8 = "INT8"
                case fp32 = "FP32"
                case onChipBuffer = "onchip_buffer"
            }
        }

        package struct Settings: Codable, Sendable {
            package var prompt: Int
            package var generate: Int
            package var batch: Int
            package var weightBits: Double
            package var activationBits: Int
            package var kvBits: Int
            package var flashAttention: Bool
            package var tensorParallel: Int
            package var images: Int

            enum CodingKeys: String, CodingKey {
                case prompt, generate, batch, images
                case weightBits = "weight_bits"
                case activationBits = "activation_bits"
                case kvBits = "kv_bits"
                case flashAttention = "flash_attention"
                case tensorParallel = "tensor_parallel"
            }
        }

        /// Sums of a stage or a row, under the reference's names.
        package struct Totals: Codable, Sendable {
            package var operations: Double
            package var memoryAccess: Double
            package var loadWeight: Double
            package var loadActivation: Double
            package var storeActivation: Double
            package var loadKeyValue: Double
            package var storeKeyValue: Double
            package var inferenceTime: Double

            enum CodingKeys: String, CodingKey {
                case operations = "OPs"
                case memoryAccess = "memory_access"
                case loadWeight = "load_weight"
                case loadActivation = "load_act"
                case storeActivation = "store_act"
                case loadKeyValue = "load_kv_cache"
                case storeKeyValue = "store_kv_cache"
                case inferenceTime = "inference_time"
            }

            init(_ totals: CostTotals) {
                (operations, memoryAccess, inferenceTime) = (totals.operations, totals.traffic.total, totals.time)
                (loadWeight, loadActivation, storeActivation) = (totals.traffic.loadWeight, totals.traffic.loadActivation, totals.traffic.storeActivation)
                (loadKeyValue, storeKeyValue) = (totals.traffic.loadKeyValue, totals.traffic.storeKeyValue)
            }
        }

        /// Totals of a stage, and its memory.
        package struct Stage: JoinedMembers, Sendable {
            /// Members of the object itself.
            package var totals: Totals
            package var memory: Memory

            package struct Memory: Codable, Sendable {
                package var all: Double
                package var temporaryActivations: Double
                package var weights: Double
                package var keyValueCache: Double

                enum CodingKeys: String, CodingKey {
                    case all = "memory_consumption"
                    case temporaryActivations = "memory_consumption_tmp_act"
                    case weights = "memory_consumption_weight"
                    case keyValueCache = "memory_consumption_kv_cache"
                }
            }

            init(_ stage: StageCost) {
                totals = Totals(stage.totals)
                memory = Memory(
                    all: stage.memory.total, temporaryActivations: stage.memory.temporaryActivations, weights: stage.memory.weights,
                    keyValueCache: stage.memory.keyValueCache)
            }

            package init(joining totals: Totals, _ memory: Memory) { (self.totals, self.memory) = (totals, memory) }

            package var joined: (Totals, Memory) { (totals, memory) }
        }

        /// A line of the table.
        package struct RowJSON: JoinedMembers, Sendable {
            /// Members of the object itself.
            package var totals: Totals
            package var place: Place

            package struct Place: Codable, Sendable {
                package var stage: String
                package var part: String
                /// `memory`, `compute`, or `null` for parts that take no time.
                @Nullable package var bound: String?
                /// The members from here on are present with `--by operation`.
                package var operation: String?
                package var intensity: Double?
                package var performance: Nullable<Double>?

                enum CodingKeys: String, CodingKey {
                    case stage, part, bound, operation, performance
                    case intensity = "arithmetic_intensity"
                }
            }

            package init(joining totals: Totals, _ place: Place) { (self.totals, self.place) = (totals, place) }

            package var joined: (Totals, Place) { (totals, place) }
        }

        /// The largest budget whose predicted time is below a limit.
        package struct Fit: Codable, Sendable {
            package var limitMs: Double
            package var goal: String
            package var fits: Bool
            @Nullable package var budget: Double?
            package var predictedMs: Double
            @Nullable package var units: Int?

            enum CodingKeys: String, CodingKey {
                case goal, fits, budget, units
                case limitMs = "limit_ms"
                case predictedMs = "predicted_ms"
            }
        }
    }

    package var json: JSON {
        let (request, plan, settings, hardware) = (analysis.request, analysis.plan, analysis.settings, analysis.hardware)
        let configuration = analysis.model.configuration
        let selection = configuration.llava.map { [$0.tokenSelection.rawValue, $0.fastV?.description].compactMap(\.self).joined(separator: " ") }
        return JSON(
            joining: request,
            JSON.Details(
                formatted: Dictionary(uniqueKeysWithValues: RequestCost.fields.map { ($0.name, CostReport.short($0.value(request))) }),
                formula: analysis.formula.rawValue, model: analysis.model.name,
                hardware: JSON.HardwareJSON(
                    name: hardware.name, bandwidth: hardware.bandwidth, fp16: hardware.fp16, int8: hardware.int8, fp32: hardware.fp32,
                    onChipBuffer: hardware.onChipBuffer),
                settings: JSON.Settings(
                    prompt: settings.promptTokens, generate: settings.generatedTokens, batch: settings.batchSize, weightBits: settings.storedWeightBits,
                    activationBits: settings.activationBits, kvBits: settings.cacheBits, flashAttention: settings.flashAttention,
                    tensorParallel: settings.tensorParallel, images: settings.images),
                imageTokens: settings.promptImageTokens(configuration), tokenSelection: selection,
                imageTokensDropped: settings.drop(configuration)?.tokens ?? 0, attentionHeadsPerLayer: plan.shares.map(\.switches),
                mlpGroupsPerLayer: plan.shares.map(\.groups), units: plan.units, floor: analysis.model.units?.floor, ttft: analysis.timeToFirstToken,
                decodeTime: analysis.decodeTotals.time, timePerToken: analysis.timePerToken, totalTime: analysis.wholeTime,
                stages: Dictionary(uniqueKeysWithValues: stages.map { ($0.name, JSON.Stage($0.cost)) }),
                rows: detail == .total ? nil : rows.map(rowJSON), fit: fit.map(CostReport.fitJSON)))
    }

    private func rowJSON(_ row: Row) -> JSON.RowJSON {
        let isOperation = detail == .operation
        return JSON.RowJSON(
            joining: JSON.Totals(row.totals),
            JSON.RowJSON.Place(
                stage: row.stage, part: row.part, bound: row.bound?.rawValue, operation: isOperation ? row.operation : nil,
                intensity: isOperation ? row.intensity : nil, performance: isOperation ? Nullable(row.performance) : nil))
    }

    private static func fitJSON(_ fit: BudgetFit) -> JSON.Fit {
        JSON.Fit(
            limitMs: fit.limit / .milliseconds(1), goal: fit.goal.rawValue, fits: fit.budget != nil, budget: fit.budget, predictedMs: fit.seconds * 1000,
            units: fit.analysis.plan.units)
    }
}
