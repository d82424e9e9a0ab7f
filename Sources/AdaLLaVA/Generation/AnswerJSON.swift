extension AnswerSummary {
    /// One answer as `ask --json` and `chat --json` print it. Times in milliseconds.
    package struct JSON: Codable, Sendable {
        package var answer: String
        /// Generated ids, the ending one included.
        package var tokens: [Int]
        package var promptTokens: Int
        package var imageTokens: Int
        /// Positions of the prompt that the prefix layers took from the prompt cache.
        package var cachedTokens: Int
        package var finishReason: String
        /// Memory that keys and values took, and how they were stored.
        package var kvBytes: Int
        package var kvType: String
        package var measured: PhaseTimes.JSON
        package var adaptive: Adaptive
        /// Present if tokens could be drafted.
        package var speculation: SpeculationCounts?
        /// `ask` only.
        package var loadingMs: Double?

        enum CodingKeys: String, CodingKey {
            case answer, tokens, measured, adaptive, speculation
            case promptTokens = "prompt_tokens"
            case imageTokens = "image_tokens"
            case cachedTokens = "cached_tokens"
            case finishReason = "finish_reason"
            case kvBytes = "kv_bytes"
            case kvType = "kv_type"
            case loadingMs = "loading_ms"
        }

        /// The budget, the plan, and the prediction.
        package struct Adaptive: Codable, Sendable {
            /// A number for a fraction, a text for times and `auto`.
            package var budget: Budget
            /// Optional units granted; `null` if the model is not adaptive.
            @Nullable package var units: Int?
            @Nullable package var floor: Double?
            package var attentionHeadsPerLayer: [Int]
            package var mlpGroupsPerLayer: [Int]
            /// Present if image tokens were dropped inside the decoder.
            package var imageTokensKept: Int?
            /// The members from here on are present if times were predicted.
            package var predicted: PhaseTimes.JSON?
            package var predictedTokens: Int?
            package var predictedTpotMs: Double?
            package var load: Double?
            /// Each change of the plan during the answer.
            package var changes: [Change]?
            package var calibrated: Bool?

            enum CodingKeys: String, CodingKey {
                case budget, units, floor, predicted, load, changes, calibrated
                case attentionHeadsPerLayer = "attention_heads_per_layer"
                case mlpGroupsPerLayer = "mlp_groups_per_layer"
                case imageTokensKept = "image_tokens_kept"
                case predictedTokens = "predicted_tokens"
                case predictedTpotMs = "predicted_tpot_ms"
            }
        }

        /// Fewer units from a token on.
        package struct Change: Codable, Sendable {
            package var tokens: Int
            package var unitsFrom: Int
            package var unitsTo: Int

            enum CodingKeys: String, CodingKey {
                case tokens
                case unitsFrom = "units_from"
                case unitsTo = "units_to"
            }
        }
    }

    /// - Parameter loading: the time that the model took to load, if it is reported.
    package func json(answer: String, loading: Duration? = nil) -> JSON {
        JSON(
            answer: answer, tokens: tokens, promptTokens: promptTokens, imageTokens: imageTokens, cachedTokens: cachedTokens.prefix,
            finishReason: finish.rawValue, kvBytes: keyValueBytes, kvType: keyValueType.rawValue, measured: measured.json,
            adaptive: JSON.Adaptive(
                budget: budget, units: units, floor: budgetFloor, attentionHeadsPerLayer: plan.headsPerLayer, mlpGroupsPerLayer: plan.groupsPerLayer,
                imageTokensKept: keptImageTokens, predicted: prediction?.times.json, predictedTokens: prediction?.tokens,
                predictedTpotMs: prediction.map { $0.perToken / .milliseconds(1) }, load: prediction?.load,
                changes: prediction?.changes.map { JSON.Change(tokens: $0.tokens, unitsFrom: $0.from, unitsTo: $0.to) }, calibrated: prediction?.isFitted),
            speculation: speculation, loadingMs: loading.map { $0 / .milliseconds(1) })
    }
}

extension PhaseTimes {
    /// Milliseconds of each phase.
    package struct JSON: Codable, Sendable {
        package var encodeMs: Double
        package var prefillMs: Double
        package var decodeMs: Double
        /// Time to the first token.
        package var ttftMs: Double
        package var wholeMs: Double

        enum CodingKeys: String, CodingKey {
            case encodeMs = "encode_ms"
            case prefillMs = "prefill_ms"
            case decodeMs = "decode_ms"
            case ttftMs = "ttft_ms"
            case wholeMs = "whole_ms"
        }
    }

    package var json: JSON {
        JSON(
            encodeMs: encode / .milliseconds(1), prefillMs: prefill / .milliseconds(1), decodeMs: decode / .milliseconds(1),
            ttftMs: timeToFirstToken / .milliseconds(1), wholeMs: whole / .milliseconds(1))
    }
}

extension TraceResult {
    /// The output of `trace`, named as the fixtures' `cases.json` names it.
    package struct JSON: Codable, Sendable {
        package var generatedIDs: [Int]
        @Nullable package var generatedText: String?
        @Nullable package var units: Int?
        /// Position of the latency token.
        @Nullable package var insertPosition: Int?
        package var lengthWithLatencyToken: Int
        package var attentionHeadsPerLayer: [Int]
        package var mlpGroupsPerLayer: [Int]
        /// Shape of each layer's keys after the answer; `null` for layers without any.
        package var keyValueShapes: [[Int]?]
        package var stoppedAtEOS: Bool
        package var measured: PhaseTimes.JSON

        enum CodingKeys: String, CodingKey {
            case units, measured
            case generatedIDs = "generated_ids"
            case generatedText = "generated_text"
            case insertPosition = "insert_position"
            case lengthWithLatencyToken = "length_with_latency_token"
            case attentionHeadsPerLayer = "attention_heads_per_layer"
            case mlpGroupsPerLayer = "mlp_groups_per_layer"
            case keyValueShapes = "kv_cache_shapes_at_end"
            case stoppedAtEOS = "stopped_at_eos"
        }
    }

    package var json: JSON {
        JSON(
            generatedIDs: summary.tokens, generatedText: text, units: summary.units, insertPosition: insertPosition,
            lengthWithLatencyToken: lengthWithLatencyToken, attentionHeadsPerLayer: summary.plan.headsPerLayer,
            mlpGroupsPerLayer: summary.plan.groupsPerLayer, keyValueShapes: keyValueShapes, stoppedAtEOS: summary.finish == .endOfAnswer,
            measured: summary.measured.json)
    }
}
