import AdaLLaVA

/// The largest budget whose calculated time fits a limit.
public struct BudgetFit: Sendable {
    /// What has to fit.
    public enum Goal: String, Sendable, CaseIterable {
        case firstToken = "first-token"
        case wholeAnswer = "answer"
    }

    public let limit: Duration
    public let goal: Goal
    /// The budget as a fraction of full compute, rounded up to the fewest decimals that still buy its units; `nil` if not even the floor
    /// fits.
    public let budget: Double?
    /// The analysis at that budget, or at the floor if nothing fits.
    public let analysis: CostAnalysis

    /// Seconds that the analysis takes for what has to fit.
    public var seconds: Double { BudgetFit.seconds(analysis, goal) }

    private static func seconds(_ analysis: CostAnalysis, _ goal: Goal) -> Double {
        goal == .firstToken ? analysis.timeToFirstToken : analysis.wholeTime
    }

    /// - Parameter text: a time, such as `300ms` or `1.5s`.
    /// - Throws: `BudgetError`, ``EvaluationError``
    public init(
        parsing text: String, goal: Goal, model: AnalyzedModel, hardware: Hardware, settings: CostSettings, formula: CostFormula
    ) throws {
        guard case .time(let limit) = try Budget(parsing: text) else {
            throw EvaluationError.argument(name: "--fit", expected: "a time such as 300ms or 1.5s", found: String(text.prefix(40)))
        }
        try self.init(limit, goal: goal, model: model, hardware: hardware, settings: settings, formula: formula)
    }

    /// Time never falls as units are added, so the units are found by bisection.
    /// - Throws: as ``CostAnalysis`` does.
    public init(
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
        var (fits, tooMany) = (0, units.total - units.prefix + 1)
        var best = try analyze(0)
        guard BudgetFit.seconds(best, goal) <= allowed else {
            (analysis, budget) = (best, nil)
            return
        }
        while tooMany - fits > 1 {
            let middle = (fits + tooMany) / 2
            let found = try analyze(middle)
            if BudgetFit.seconds(found, goal) <= allowed { (fits, best) = (middle, found) } else { tooMany = middle }
        }
        analysis = best
        budget = BudgetFit.fraction(buying: fits, units)
    }

    /// The smallest fraction with few decimals that grants exactly so many units.
    static func fraction(buying count: Int, _ units: BudgetUnits) -> Double {
        let exact = Double(units.prefix + count) / Double(units.total)
        for scale in [100.0, 1e3, 1e4, 1e5, 1e6, 1e7] {
            let rounded = min(1, (exact * scale).rounded(.up) / scale)
            if rounded > 0, units.granted(fraction: Float(rounded)) == count { return rounded }
        }
        return exact
    }
}
