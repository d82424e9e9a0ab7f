import AdaLLaVA
import Foundation

extension CostPlan {
    /// Everything runs.
    package init(whole model: AnalyzedModel) { self.init(whole: model.configuration) }

    /// A plan that was made for a request.
    /// - Throws: ``EvaluationError/argument(name:expected:found:)`` if it is another model's.
    package init(_ plan: ExecutionPlan, model: AnalyzedModel) throws {
        let space = model.configuration.switchSpace
        let all = 0 ..< space.switchesPerLayer
        guard plan.rows.count == space.layers.count, plan.headCount == all.count,
            plan.rows.allSatisfy({ $0.heads.allSatisfy(all.contains) && $0.groups.allSatisfy(all.contains) })
        else {
            throw EvaluationError.argument(
                name: "plan", expected: "\(space.layers.count) layers of \(all.count) heads, as \(model.name) has",
                found: "\(plan.rows.count) layers of \(plan.headCount)")
        }
        self.init(plan, of: model.configuration)
    }

    /// The plan that a fraction of full compute buys. Which switches a scheduler would choose depends on the input; for the cost only
    /// their number matters with whole layers, and with heads the units are spread evenly over the layers after the prefix.
    /// - Throws: `BudgetError`
    package init(budget: Double, model: AnalyzedModel) throws {
        guard budget > 0, budget <= 1 else { throw BudgetError.outOfRange(budget) }
        guard let units = model.units else {
            guard budget == 1 else { throw BudgetError.notAdaptive(budget: budget, model: model.name) }
            self.init(whole: model)
            return
        }
        self.init(units: units.granted(fraction: Float(budget)), model: model, isBelowFloor: budget < units.floor)
    }

    /// - Parameter text: a fraction as people write it, `0.85` or `85%`.
    /// - Throws: `BudgetError`, ``EvaluationError``
    package init(parsing text: String, model: AnalyzedModel) throws {
        guard case .fraction(let budget) = try Budget(parsing: text) else {
            throw EvaluationError.argument(
                name: "--budget", expected: "a fraction of full compute such as 0.85; --fit finds the budget for a time",
                found: String(text.prefix(40)))
        }
        try self.init(budget: budget, model: model)
    }

    /// - Parameter units: units beyond the prefix, at most those that there are.
    init(units: Int, model: AnalyzedModel, isBelowFloor: Bool = false) {
        self.init(units: units, of: model.configuration, isBelowFloor: isBelowFloor)
    }

    /// A plan given by counts: for each layer how many heads and groups run. A layer with -1 or 0 is dropped, as in the reference's lists.
    /// - Throws: ``EvaluationError/argument(name:expected:found:)``
    package init(headsPerLayer: [Int], groupsPerLayer: [Int]? = nil, model: AnalyzedModel) throws {
        let space = model.configuration.switchSpace
        let groups = groupsPerLayer ?? headsPerLayer
        for counts in [headsPerLayer, groups] {
            guard counts.count == space.layers.count else {
                throw EvaluationError.argument(
                    name: "--plan", expected: "\(space.layers.count) numbers, one for each layer", found: "\(counts.count)")
            }
            for (layer, count) in counts.enumerated() where !(-1 ... space.switchesPerLayer).contains(count) {
                throw EvaluationError.argument(
                    name: "--plan, layer \(layer)", expected: "-1 (dropped) to \(space.switchesPerLayer)", found: "\(count)")
            }
        }
        self.init(counts: zip(headsPerLayer, groups).map { (max(0, $0), max(0, $1)) }, of: model.configuration)
    }

    /// Reads the argument of `--plan`: numbers separated by commas (heads of each layer, -1 for a dropped one), or a JSON file with such a
    /// list, with `attention_heads_per_layer` and `mlp_groups_per_layer` as `ask --json` and `trace` print them, or with a mask
    /// `[layers][2][heads]` of zeros and ones.
    /// - Throws: ``EvaluationError``, `CheckpointError`
    package init(argument text: String, model: AnalyzedModel) throws {
        let numbers = text.split(separator: ",").map { Int($0.trimmingCharacters(in: .whitespaces)) }
        if !numbers.isEmpty, numbers.allSatisfy({ $0 != nil }) {
            try self.init(headsPerLayer: numbers.compactMap { $0 }, model: model)
            return
        }
        let file = URL(systemPath: text)
        let json = try JSONValue.read(contentsOf: file, needed: "--plan: a list of numbers, or a JSON file with a plan")
        let plan = PlanFile(file: file.path)
        let counts = json["adaptive"] ?? json
        if let heads = counts["attention_heads_per_layer"] {
            try self.init(
                headsPerLayer: plan.counts(heads, "attention_heads_per_layer"),
                groupsPerLayer: counts["mlp_groups_per_layer"].map { try plan.counts($0, "mlp_groups_per_layer") }, model: model)
            return
        }
        let list = json["plan"] ?? json
        if case .array(let layers) = list, case .array = layers.first {
            try self.init(plan.mask(layers, heads: model.configuration.switchSpace.switchesPerLayer), model: model)
        } else {
            try self.init(headsPerLayer: plan.counts(list, "the file"), model: model)
        }
    }
}

/// A plan's JSON, checked.
private struct PlanFile {
    let file: String

    private func failure(_ place: String, _ expected: String, _ found: JSONValue) -> EvaluationError {
        .data(file: file, at: place, expected: expected, found: found.summary)
    }

    func counts(_ value: JSONValue, _ name: String) throws -> [Int] {
        guard case .array(let elements) = value else { throw failure(name, "a list of whole numbers, one for each layer", value) }
        return try elements.enumerated().map { index, element in
            guard case .integer(let count) = element else { throw failure("\(name)[\(index)]", "a whole number", element) }
            return count
        }
    }

    func mask(_ layers: [JSONValue], heads: Int) throws -> ExecutionPlan {
        let rows = try layers.enumerated().map { index, layer in
            guard case .array(let pair) = layer, pair.count == 2 else {
                throw failure("layer \(index)", "a row of heads and a row of neuron groups", layer)
            }
            let (first, second) = (try indices(pair[0], heads, "layer \(index), heads"), try indices(pair[1], heads, "layer \(index), groups"))
            return ExecutionPlan.Row(heads: first, groups: second)
        }
        return ExecutionPlan(headCount: heads, rows: rows)
    }

    private func indices(_ row: JSONValue, _ count: Int, _ place: String) throws -> [Int] {
        guard case .array(let switches) = row, switches.count == count else { throw failure(place, "\(count) zeros and ones", row) }
        return try switches.indices.filter { index in
            switch switches[index] {
            case .integer(1), .number(1), .bool(true): true
            case .integer(0), .number(0), .bool(false): false
            default: throw failure("\(place)[\(index)]", "0 or 1", switches[index])
            }
        }
    }
}
