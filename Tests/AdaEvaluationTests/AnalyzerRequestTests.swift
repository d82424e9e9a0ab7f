import Foundation
import Testing

@testable import AdaEvaluation
@testable import AdaLLaVA

@Suite struct AnalyzerRequestTests {
    private func v100() throws -> Hardware { try Hardware.named("nvidia_V100") }

    // A trap or an infinite number here means that a wrong flag ends the program instead of a message.
    @Test("absurd settings are typed errors", arguments: [
        CostSettings(promptTokens: 0), CostSettings(promptTokens: .max), CostSettings(promptTokens: .min),
        CostSettings(promptTokens: 1, generatedTokens: .max), CostSettings(promptTokens: 1, generatedTokens: 0),
        CostSettings(promptTokens: 1, batchSize: .max), CostSettings(promptTokens: 1, weightBits: 0),
        CostSettings(promptTokens: 1, activationBits: .max), CostSettings(promptTokens: 1, keyValueBits: -1),
        CostSettings(promptTokens: 1, tensorParallel: 0), CostSettings(promptTokens: 1, tensorParallel: .max),
        CostSettings(promptTokens: 1, tensorParallel: 3), CostSettings(promptTokens: 1, images: -1),
    ])
    func absurdSettingsAreTypedErrors(settings: CostSettings) throws {
        for formula in CostFormula.allCases {
            #expect(throws: EvaluationError.self) {
                try CostAnalysis(model: .shape("llava-1.5-7b"), hardware: v100(), settings: settings, budget: 1, formula: formula)
            }
        }
    }

    // An infinite or missing number here means that the largest accepted request cannot be printed.
    @Test("largest request is finite") func largestRequestIsFinite() throws {
        let model = AnalyzedModel(
            name: "huge",
            configuration: ModelConfiguration(
                language: DecoderConfiguration(
                    vocabularySize: 1 << 24, hiddenSize: 1 << 18, intermediateSize: 1 << 20, numHiddenLayers: 4096, numAttentionHeads: 4096)))
        let settings = CostSettings(promptTokens: 1 << 24, generatedTokens: 2, batchSize: 1 << 20, weightBits: 64, activationBits: 64)
        for formula in CostFormula.allCases {
            let analysis = try CostAnalysis(model: model, hardware: v100(), settings: settings, budget: 1, formula: formula)
            #expect(RequestCost.fields.allSatisfy { $0.value(analysis.request).isFinite && $0.value(analysis.request) > 0 })
            let report = CostReport(analysis)
            #expect(throws: Never.self) { try JSONText.data(report.json) }
            let values = report.csv.split(separator: "\n").dropFirst().joined()
            #expect(!values.contains("inf") && !values.contains("nan"))
        }
    }

    // A failure means that a wrong name, plan or budget is accepted, or ends without saying what would be right.
    @Test("wrong names and plans are typed errors") func wrongNamesAndPlansAreTypedErrors() throws {
        let model = try AnalyzedModel.shape("llava-1.5-7b")
        #expect(throws: EvaluationError.self) { try Hardware.named("abacus") }
        #expect(throws: EvaluationError.self) { try AnalyzedModel.shape("gpt-9") }
        #expect(throws: EvaluationError.self) { try CostPlan(headsPerLayer: [32, 32], model: model) }
        #expect(throws: EvaluationError.self) { try CostPlan(headsPerLayer: Array(repeating: 33, count: 32), model: model) }
        #expect(throws: EvaluationError.self) { try CostPlan(headsPerLayer: Array(repeating: .min, count: 32), model: model) }
        #expect(throws: EvaluationError.self) { try CostPlan(.full(layers: 3, heads: 2), model: model) }
        #expect(throws: EvaluationError.self) { try CostPlan(parsing: "300ms", model: model) }
        #expect(throws: BudgetError.self) { try CostPlan(parsing: "1.5", model: model) }
        #expect(throws: BudgetError.self) { try CostPlan(budget: .nan, model: model) }
        #expect(throws: BudgetError.self) { try CostPlan(budget: 0.5, model: tinyModel(adaptive: false)) }
        #expect(throws: EvaluationError.self) { try model.scheduled(type: .heads, rank: 33, prefixLayers: nil) }
        #expect(throws: EvaluationError.self) { try model.scheduled(type: nil, rank: nil, prefixLayers: 32) }
        // Heads without as many groups: only the exact formula can count that.
        let uneven = try CostPlan(
            headsPerLayer: Array(repeating: 32, count: 32), groupsPerLayer: Array(repeating: 8, count: 32), model: model)
        let settings = CostSettings(promptTokens: 8)
        #expect(throws: EvaluationError.self) { try CostAnalysis(model: model, hardware: v100(), settings: settings, plan: uneven) }
        #expect(throws: Never.self) {
            try CostAnalysis(model: model, hardware: v100(), settings: settings, plan: uneven, formula: .exact)
        }
        let eight = CostSettings(promptTokens: 8, weightBits: 8, activationBits: 8)
        #expect(throws: EvaluationError.self) { try CostAnalysis(model: model, hardware: .named("intel_13900k"), settings: eight, budget: 1) }
    }

    // A mismatch means that a plan given in one of its forms is read as another one.
    @Test("plans are read in every form") func plansAreReadInEveryForm() async throws {
        let model = tinyModel()
        let expected = try CostPlan(headsPerLayer: [4, 2], model: model)
        #expect(try CostPlan(argument: "4, 2", model: model) == expected)
        #expect(try CostPlan(argument: "4,-1", model: model).shares[1].isSkipped)
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("plan-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        func read(_ text: String) throws -> CostPlan {
            let file = folder.appendingPathComponent("plan.json")
            try Data(text.utf8).write(to: file)
            return try CostPlan(argument: file.path, model: model)
        }
        #expect(try read("[4, 2]") == expected)
        #expect(try read("{\"attention_heads_per_layer\": [4, 2], \"mlp_groups_per_layer\": [4, 2]}") == expected)
        #expect(try read("{\"answer\": \"\", \"adaptive\": {\"attention_heads_per_layer\": [4, 2], \"mlp_groups_per_layer\": [4, 2]}}") == expected)
        #expect(try read("{\"plan\": [[[1,1,1,1],[1,1,1,1]], [[1,1,0,0],[1,1,0,0]]]}").shares[0] == expected.shares[0])
        // Heads 0 and 2 read both key-value heads; the counted form supposes that heads share them.
        #expect(try read("[[[1,1,1,1],[1,1,1,1]], [[1,0,1,0],[0,0,1,1]]]").shares[1].keyValueHeads == 2)
        for wrong in ["[4, \"2\"]", "[[[1,1],[1,1]]]", "[[[1,1,1,1]]]", "[[[1,1,1,2],[1,1,1,1]],[[0,0,0,0],[0,0,0,0]]]", "{}", "3", "[]"] {
            #expect(throws: EvaluationError.self, "\(wrong)") { try read(wrong) }
        }
        #expect(throws: CheckpointError.self) { try read("[4,") }
        #expect(throws: CheckpointError.self) { try CostPlan(argument: folder.appendingPathComponent("none").path, model: model) }
    }

    // A mismatch means that units of heads are lost or invented when they are spread over the layers.
    @Test("head units are spread whole", arguments: [1, 2, 8, 32], [0.5, 0.61, 0.85, 1])
    func headUnitsAreSpreadWhole(rank: Int, budget: Double) throws {
        let model = try AnalyzedModel.shape("llava-1.5-7b").scheduled(type: .heads, rank: rank, prefixLayers: 16)
        let plan = try CostPlan(budget: budget, model: model)
        let granted = try #require(model.units).granted(fraction: Float(budget))
        #expect(plan.units == granted)
        #expect(plan.shares.reduce(0) { $0 + $1.heads } == 16 * 32 + granted * rank)
        #expect(plan.shares.prefix(16).allSatisfy { $0.heads == 32 })
    }

    // A failure means that more budget is said to cost less, or that --fit answers with a budget that does not fit or is not the largest.
    @Test("fit is the largest budget that fits", arguments: CostFormula.allCases, AdaptiveConfigurationCase.allCases)
    func fitIsTheLargestBudgetThatFits(formula: CostFormula, scheduler: AdaptiveConfigurationCase) throws {
        let model = try AnalyzedModel.shape("llava-1.5-7b").scheduled(type: scheduler.type, rank: 8, prefixLayers: 10)
        let units = try #require(model.units)
        let settings = CostSettings(promptTokens: 300, generatedTokens: 3)
        let hardware = try v100()
        let times = try (0 ... units.total - units.prefix).map { count in
            try CostAnalysis(
                model: model, hardware: hardware, settings: settings, plan: CostPlan(units: count, model: model), formula: formula
            ).timeToFirstToken
        }
        #expect(zip(times, times.dropFirst()).allSatisfy { $0 < $1 })
        var last = 0.0
        for limit in stride(from: times[0] * 0.9, through: (times.last ?? 0) * 1.1, by: (times.last ?? 0) / 37) {
            let fit = try BudgetFit(
                .seconds(limit), goal: .firstToken, model: model, hardware: hardware, settings: settings, formula: formula)
            let expected = times.lastIndex { $0 <= fit.limit / .seconds(1) }
            #expect((fit.budget == nil) == (expected == nil))
            guard let budget = fit.budget, let expected else { continue }
            #expect(fit.analysis.plan.units == expected)
            // What is printed buys what was calculated.
            #expect(units.granted(fraction: Float(budget)) == expected)
            #expect(budget >= last)
            last = budget
        }
        #expect(last == 1)
    }

    // A failure means that a person with too little time is told a budget instead of that none fits.
    @Test("fit says when the floor does not fit") func fitSaysWhenTheFloorDoesNotFit() throws {
        let model = try AnalyzedModel.shape("llava-1.5-13b")
        let fit = try BudgetFit(
            parsing: "1ms", goal: .wholeAnswer, model: model, hardware: v100(), settings: CostSettings(promptTokens: 600, generatedTokens: 5),
            formula: .reference)
        #expect(fit.budget == nil)
        let report = CostReport(fit.analysis, fit: fit)
        #expect(try #require(report.lines.last).contains("even the floor"))
        let object = try #require(written(report.json)["fit"] as? [String: Any])
        #expect(object["fits"] as? Bool == false && object["budget"] is NSNull)
        let plain = try BudgetFit(
            parsing: "1ms", goal: .firstToken, model: .shape("mistral-7b"), hardware: v100(), settings: CostSettings(promptTokens: 600),
            formula: .exact)
        #expect(plain.budget == nil && CostReport(plain.analysis, fit: plain).lines.last?.contains("no scheduler") == true)
        #expect(throws: EvaluationError.self) {
            try BudgetFit(parsing: "0.7", goal: .firstToken, model: model, hardware: v100(), settings: CostSettings(promptTokens: 1), formula: .exact)
        }
    }

    // A failure means that a budget below the floor looks as if it saved something.
    @Test("below the floor is said") func belowTheFloorIsSaid() throws {
        let model = try AnalyzedModel.shape("llava-1.5-7b")
        let settings = CostSettings(promptTokens: 600)
        let below = try CostAnalysis(model: model, hardware: v100(), settings: settings, budget: 0.2)
        let floor = try CostAnalysis(model: model, hardware: v100(), settings: settings, budget: 0.5)
        #expect(below.request == floor.request)
        #expect(CostReport(below).warning?.contains("0.5") == true && CostReport(floor).warning == nil)
    }

    // A mismatch means that the rows of a table do not add up to what the totals say.
    @Test("the rows of a table add up to the totals", arguments: CostFormula.allCases)
    func rowsAddUp(formula: CostFormula) throws {
        let analysis = try CostAnalysis(
            model: .shape("llava-1.5-7b"), hardware: v100(), settings: CostSettings(promptTokens: 100, generatedTokens: 2), budget: 0.7,
            formula: formula)
        for detail in CostReport.Detail.allCases {
            let report = CostReport(analysis, by: detail)
            for (stage, cost) in [("prefill", analysis.prefill), ("decode", analysis.decode)] {
                let rows = report.rows.filter { $0.stage == stage }
                #expect(isClose(rows.reduce(0) { $0 + $1.totals.time }, cost.totals.time))
                #expect(isClose(rows.reduce(0) { $0 + $1.totals.operations }, cost.totals.operations))
            }
            let columns = report.csv.split(separator: "\n").map { $0.split(separator: ",", omittingEmptySubsequences: false).count }
            #expect(Set(columns) == [14] && columns.count == report.rows.count + 1)
        }
        let layers = CostReport(analysis, by: .layer).rows.filter { $0.stage == "decode" && $0.part.hasPrefix("layer") }
        // floor(32 · 0.7) layers run.
        #expect(layers.map(\.part) == (0 ..< 22).map { "layer \($0)" })
    }

    // A mismatch means that an evaluation reports other costs than the analyzer for the same plan.
    @Test("cost reporter agrees with the analysis") func costReporterAgreesWithTheAnalysis() throws {
        let model = tinyModel(type: .layers)
        let plan = ExecutionPlan(headCount: 4, rows: [ExecutionPlan.full(layers: 1, heads: 4).rows[0], .init(heads: [], groups: [])])
        let reporter = AnalyzedCost(model: model, hardware: try v100(), settings: CostSettings(promptTokens: 1), formula: .reference)
        let expected = try CostAnalysis(
            model: model, hardware: v100(), settings: CostSettings(promptTokens: 20, generatedTokens: 4),
            plan: CostPlan(headsPerLayer: [4, -1], model: model))
        #expect(try reporter.cost(plan: plan, promptTokens: 20, imageTokens: 0, generatedTokens: 4) == expected.request)
        #expect(reporter.description.contains("nvidia_V100") && reporter.description.contains("reference"))
    }

    // A failure means that a config.json or a checkpoint is analyzed as another model.
    @Test("models are read from files") func modelsAreReadFromFiles() throws {
        let folder = Fixture.models.appendingPathComponent("scenes-ref")
        let fromConfig = try AnalyzedModel(configuration: folder.appendingPathComponent("config.json"))
        let fromCheckpoint = try AnalyzedModel(checkpoint: folder)
        #expect(fromConfig.configuration.language == fromCheckpoint.configuration.language)
        #expect(fromCheckpoint.configuration.vision != nil && fromCheckpoint.units == BudgetUnits(total: 8, prefix: 4))
        #expect(throws: CheckpointError.self) { try AnalyzedModel(checkpoint: folder.appendingPathComponent("none")) }
    }

    enum Fixture {
        static let models = RecordedCosts.folder.deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("Models")
    }
}

/// Both schedulers, as a test's argument.
enum AdaptiveConfigurationCase: String, CaseIterable {
    case layers, heads

    var type: AdaptiveConfiguration.SchedulerType { self == .layers ? .layers : .heads }
}
