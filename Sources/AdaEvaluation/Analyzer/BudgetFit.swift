import AdaLLaVA

/// The largest budget whose calculated time fits a limit.
package struct BudgetFit: Sendable {
    /// The time that is limited.
    package enum Goal: String, Sendable, CaseIterable {
        case firstToken = "first-token"
        case wholeAnswer = "answer"
    }

    package let limit: Duration
    package let goal: Goal
    /// The budget as a fraction of full compute, rounded up to the fewest decimals that still buy its units; `nil` if not even the floor
    /// fits.
    package let budget: Double?
    /// The analysis at that budget, or at the floor if nothing fits.
    package let analysis: CostAnalysis

    /// Seconds that the analysis gives for the limited time.
    package var seconds: Double { BudgetFit.seconds(analysis, goal) }

    private static func seconds(_ analysis: CostAnalysis, _ goal: Goal) -> Double {
        goal == .firstToken ? analysis.timeToFirstToken : analysis.wholeTime
    }

    /// - Parameter text: a time, such as `300ms` or `1.5s`.
    /// - Throws: `BudgetError`, ``EvaluationError``
    package init(
        parsing text: String, goal: Goal, model: AnalyzedModel, hardware: Hardware, settings: CostSettings, formula: CostFormula
    ) throws {
        guard let budget = try? Budget(parsing: text), case .time(let limits) = budget, let limit = limits.answer, limits == TimeLimits(answer: limit) else {
            // A bare number would be a fraction, or read as milliseconds.
            let unit = Double(text).map { $0 > 0 && $0.isFinite ? ": it has no unit (\(text)ms?)" : "" } ?? ""
            throw EvaluationError.argument(
                name: "--fit", expected: "a time with its unit, such as 300ms or 1.5s", found: "'\(text.prefix(40))'\(unit)")
        }
        try self.init(limit, goal: goal, model: model, hardware: hardware, settings: settings, formula: formula)
    }

    /// - Throws: as ``CostAnalysis`` does.
    package init(
        _ limit: Duration, goal: Goal, model: AnalyzedModel, hardware: Hardware, settings: CostSettings, formula: CostFormula
    ) throws {
        (self.limit, self.goal) = (limit, goal)
        let allowed = limit / .seconds(1)
        func analyze(_ units: Int) throws -> CostAnalysis {
            try CostAnalysis(
                model: model, hardware: hardware, settings: settings, plan: CostPlan(units: units, model: model), formula: formula)
        }
        guard let units = model.units else {
            analysis = try CostAnalysis(model: model, hardware: hardware, settings: settings, budget: 1, formula: formula)
            budget = BudgetFit.seconds(analysis, goal) <= allowed ? 1 : nil
            return
        }
        let fits = try units.most(within: allowed) { try BudgetFit.seconds(analyze($0), goal) }
        analysis = try analyze(fits ?? 0)
        budget = fits.map(units.fraction)
    }
}
