import Foundation
import Testing

@testable import AdaEvaluation
@testable import AdaLLaVA

@Suite struct AnalyzerReferenceTests {
    // A mismatch means that costs of the built-in shapes are those of another model than the published one.
    @Test("shapes are the recorded ones") func shapesAreTheRecordedOnes() throws {
        let shapes = try RecordedCosts.load().shapes
        #expect(shapes.count == 2)
        for (name, expected) in shapes {
            let language = try AnalyzedModel.shape(name).configuration.language
            let found = [
                "hidden_size": language.hiddenSize, "intermediate_size": language.intermediateSize,
                "num_hidden_layers": language.numHiddenLayers, "num_attention_heads": language.numAttentionHeads,
                "num_key_value_heads": language.numKeyValueHeads, "vocab_size": language.vocabularySize,
            ]
            #expect(found == expected, "\(name)")
        }
    }

    // A mismatch means that a piece of hardware has another bandwidth or peak than in the published numbers.
    @Test("hardware is the recorded table") func hardwareIsTheRecordedTable() throws {
        let url = RecordedCosts.folder.appendingPathComponent("hardware_params.json")
        let recorded = try JSONDecoder().decode([String: [String: Double]].self, from: Data(contentsOf: url))
        #expect(Set(recorded.keys) == Set(Hardware.table.map(\.name)))
        for hardware in Hardware.table {
            var found = ["bandwidth": hardware.bandwidth, "FP16": hardware.fp16, "onchip_buffer": hardware.onChipBuffer]
            found["INT8"] = hardware.int8
            #expect(differences(found, try #require(recorded[hardware.name])) == [], "\(hardware.name)")
        }
    }

    // A mismatch means that FLOPs, times or memory of a whole request differ from the published experiments' count.
    @Test("every recorded request costs what the reference counts") func everyRecordedRequest() throws {
        let recorded = try RecordedCosts.load()
        #expect(recorded.tasks.count == 288 && recorded.otherSettings.count == 3)
        for (index, entry) in (recorded.tasks + recorded.otherSettings).enumerated() {
            var settings = CostSettings(promptTokens: entry.promptLen, generatedTokens: entry.genLen)
            settings.flashAttention = entry.flashAttention ?? false
            if let bits = entry.settings {
                (settings.batchSize, settings.weightBits, settings.activationBits, settings.keyValueBits) = (
                    bits.batchsize, bits.wBit, bits.aBit, bits.kvBit
                )
            }
            let analysis = try analyze(entry.model, entry.hardware, entry.numHeads, settings)
            let object = try written(CostReport(analysis).json)
            var found: [String: Double] = [:]
            for name in entry.result.keys { found[name] = try #require(object[name] as? Double) }
            #expect(differences(found, entry.result) == [], "request \(index)")
            #expect(entry.result.count == 6)
            if let formatted = entry.formatted { #expect(object["formatted"] as? [String: String] == formatted, "request \(index)") }
        }
    }

    // A mismatch means that the sums over layers, or what memory is for, are not the reference's.
    @Test("sums over layers and memory by use are the reference's") func everyRecordedTotal() throws {
        let recorded = try RecordedCosts.load()
        #expect(recorded.totals.count == 48)
        for (index, entry) in recorded.totals.enumerated() {
            var settings = CostSettings(promptTokens: entry.promptLen)
            settings.flashAttention = entry.flashAttention
            let analysis = try analyze(entry.model, entry.hardware, entry.numHeads, settings)
            for (stage, cost) in [("prefill", analysis.prefill), ("decode", analysis.decode)] {
                let found = try written(CostReport.JSON.Stage(cost)).compactMapValues { $0 as? Double }
                // The recorded decode totals are those of a step that meets the prompt's keys.
                #expect(differences(found, try #require(entry.result[stage])) == [], "total \(index), \(stage)")
            }
        }
    }

    // A mismatch means that one operation of a layer is counted differently, or is said to be bound by the wrong thing.
    @Test("each operation of a layer is counted and bound as in the reference") func everyRecordedLayer() throws {
        let recorded = try RecordedCosts.load()
        #expect(recorded.layers.count == 24)
        for (index, entry) in recorded.layers.enumerated() {
            let model = try AnalyzedModel.shape(entry.model)
            let heads = entry.numHeads ?? model.configuration.language.numAttentionHeads
            var settings = CostSettings(promptTokens: entry.promptLen)
            settings.flashAttention = entry.flashAttention
            let plan = try CostPlan(
                headsPerLayer: Array(repeating: heads, count: model.configuration.language.numHiddenLayers), model: model)
            let formula = try ReferenceFormula(model, Hardware.named(entry.hardware), settings, plan)
            for (stage, cost) in [("prefill", formula.prefill()), ("decode", formula.decode(step: 1))] {
                let expected = try #require(entry.result[stage])
                let operations = try #require(cost.parts.first).operations
                #expect(Set(operations.map(\.name)) == Set(expected.keys))
                for operation in operations {
                    let numbers = [
                        "OPs": operation.operations, "memory_access": operation.traffic.total,
                        "arithmetic_intensity": operation.arithmeticIntensity, "performance": operation.performance,
                        "load_weight": operation.traffic.loadWeight, "load_act": operation.traffic.loadActivation,
                        "store_act": operation.traffic.storeActivation, "load_kv_cache": operation.traffic.loadKeyValue,
                        "store_kv_cache": operation.traffic.storeKeyValue, "inference_time": operation.time,
                    ]
                    let wanted = try #require(expected[operation.name])
                    #expect(differences(numbers, wanted.numbers) == [], "layer \(index), \(stage), \(operation.name)")
                    #expect(operation.bound.rawValue == wanted.bound, "layer \(index), \(stage), \(operation.name)")
                }
            }
        }
    }

    // A mismatch means that a budget given as a fraction costs something else than the plan it leads to.
    @Test("budget costs what its recorded plan costs") func budgetCostsWhatItsRecordedPlanCosts() throws {
        let analysis = try CostAnalysis(
            model: .shape("llava-1.5-7b"), hardware: .named("nvidia_V100"), settings: CostSettings(promptTokens: 600, generatedTokens: 50),
            budget: 0.85)
        // tasks, llava-1.5-7b, nvidia_V100, kind L, latency 0.85, gen_len 50, no flash attention
        #expect(isClose(analysis.request.flops, 7_274_751_285_760))
        #expect(isClose(analysis.request.prefillTime, 0.0638122363530159))
        #expect(isClose(analysis.request.memoryConsumption, 560_330_638_336))
    }

    private func analyze(_ model: String, _ hardware: String, _ heads: [Int], _ settings: CostSettings) throws -> CostAnalysis {
        let model = try AnalyzedModel.shape(model)
        return try CostAnalysis(
            model: model, hardware: .named(hardware), settings: settings, plan: CostPlan(headsPerLayer: heads, model: model))
    }
}
