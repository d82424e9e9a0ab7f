import AdaLLaVA

/// The calculated cost of a request: FLOPs, bytes, memory and roofline times, by stage, layer and operation.
///
///     let analysis = try CostAnalysis(
///         model: .shape("llava-1.5-7b"), hardware: .named("nvidia_V100"), settings: CostSettings(promptTokens: 600, generatedTokens: 50),
///         budget: 0.85)
///     analysis.request.flops
package struct CostAnalysis: Sendable {
    package let model: AnalyzedModel
    package let hardware: Hardware
    package let settings: CostSettings
    package let plan: CostPlan
    package let formula: CostFormula

    /// Encoding the images; `nil` without images and under the reference's formula, which knows none.
    package let encode: StageCost?
    package let prefill: StageCost
    /// The first decode step.
    package let decode: StageCost
    /// The sum over all decode steps.
    package let decodeTotals: CostTotals
    /// The reference's numbers of the request. Images are not in them.
    package let request: RequestCost

    /// - Throws: ``EvaluationError/argument(name:expected:found:)`` for settings out of range, or that the formula cannot express.
    package init(
        model: AnalyzedModel, hardware: Hardware, settings: CostSettings, plan: CostPlan, formula: CostFormula = .reference
    ) throws {
        try settings.validate(for: model)
        (self.model, self.hardware, self.settings, self.plan, self.formula) = (model, hardware, settings, plan, formula)
        let costing = try CostAnalysis.costing(model, hardware, settings, plan, formula)
        encode = costing.encode()
        let prefill = costing.prefill()
        self.prefill = prefill
        decode = costing.decode(step: 1)
        var totals = CostTotals()
        var memory = 0.0
        var last: StageCost?
        for step in 1 ..< max(1, settings.generatedTokens) {
            let stage = costing.decode(step: step)
            totals = totals + stage.totals
            memory += stage.memory.total
            last = stage
        }
        decodeTotals = totals
        let prompt = prefill.totals
        let flops = prompt.operations + totals.operations
        request = RequestCost(
            flops: flops, averageFlops: flops / Double(settings.generatedTokens), prefillFlops: prompt.operations, prefillTime: prompt.time,
            memoryConsumption: costing.memory(prefill: prefill, decode: (memory, last)),
            prefillMemoryConsumption: prefill.memory.total)
    }

    /// - Parameter budget: a fraction of full compute.
    /// - Throws: as above, and `BudgetError`.
    package init(
        model: AnalyzedModel, hardware: Hardware, settings: CostSettings, budget: Double, formula: CostFormula = .reference
    ) throws {
        try self.init(
            model: model, hardware: hardware, settings: settings, plan: CostPlan(budget: budget, model: model), formula: formula)
    }

    private static func costing(
        _ model: AnalyzedModel, _ hardware: Hardware, _ settings: CostSettings, _ plan: CostPlan, _ formula: CostFormula
    ) throws -> any StageCosting {
        switch formula {
        case .reference: try ReferenceFormula(model, hardware, settings, plan)
        case .exact: ExactFormula(model, hardware, settings, plan)
        }
    }

    /// Seconds until the first token: encoding and prefill.
    package var timeToFirstToken: Double { (encode?.totals.time ?? 0) + request.prefillTime }

    /// Seconds of the whole answer.
    package var wholeTime: Double { timeToFirstToken + decodeTotals.time }

    /// Mean seconds of a decode step; `nil` when one token is all.
    package var timePerToken: Double? {
        settings.generatedTokens > 1 ? decodeTotals.time / Double(settings.generatedTokens - 1) : nil
    }
}

/// Costs each answered request of an evaluation with the analyzer.
package struct AnalyzedCost: CostReporter {
    package let model: AnalyzedModel
    package let hardware: Hardware
    /// Prompt and generated tokens are each request's own.
    package let settings: CostSettings
    package let formula: CostFormula

    package init(model: AnalyzedModel, hardware: Hardware, settings: CostSettings, formula: CostFormula = .reference) {
        (self.model, self.hardware, self.settings, self.formula) = (model, hardware, settings, formula)
    }

    package var description: String {
        "\(model.name) on \(hardware.name), \(formula.rawValue) formula, weights \(CostReport.bits(settings.storedWeightBits)), activations \(settings.activationBits), "
            + "KV \(settings.cacheBits) bits\(settings.flashAttention ? ", flash attention" : ""), batch \(settings.batchSize), "
            + "\(settings.tensorParallel) devices"
    }

    package func cost(plan: ExecutionPlan, promptTokens: Int, imageTokens: Int, generatedTokens: Int) throws -> RequestCost {
        var settings = settings
        // An answer that ended at once still took its prompt.
        (settings.promptTokens, settings.imageTokens, settings.generatedTokens) = (promptTokens, imageTokens, max(1, generatedTokens))
        return try CostAnalysis(
            model: model, hardware: hardware, settings: settings, plan: CostPlan(plan, model: model), formula: formula
        ).request
    }
}
