import AdaLLaVA
import Foundation

/// What of one decoder layer runs, in the counts that its cost depends on.
public struct LayerShare: Sendable, Hashable {
    public let heads: Int
    /// Heads of keys and values that some kept head reads.
    public let keyValueHeads: Int
    /// MLP neuron groups, and the neurons in them.
    public let groups: Int
    public let neurons: Int

    public var isSkipped: Bool { heads == 0 && groups == 0 }

    init(_ row: ExecutionPlan.Row, _ language: LlamaConfiguration) {
        let perKeyValueHead = max(1, language.numAttentionHeads / max(1, language.numKeyValueHeads))
        heads = row.heads.count
        keyValueHeads = Set(row.heads.map { $0 / perKeyValueHead }).count
        groups = row.groups.count
        neurons = row.groups.reduce(0) {
            $0 + ExecutionPlan.neurons(group: $1, of: language.numAttentionHeads, intermediateSize: language.intermediateSize).count
        }
    }

    /// So many heads and groups, the first ones: where only counts are known, keys and values are shared as well as they can be.
    init(heads: Int, groups: Int, _ language: LlamaConfiguration) {
        self.init(ExecutionPlan.Row(heads: Array(0 ..< heads), groups: Array(0 ..< groups)), language)
    }
}

/// The shares of all decoder layers.
public struct CostPlan: Sendable, Equatable {
    public let shares: [LayerShare]
    /// Units beyond the prefix that a budget granted; `nil` for a plan given as such.
    public let units: Int?

    /// Whether the budget asked for less than the prefix layers cost, which always run.
    public let isBelowFloor: Bool

    init(shares: [LayerShare], units: Int? = nil, isBelowFloor: Bool = false) {
        (self.shares, self.units, self.isBelowFloor) = (shares, units, isBelowFloor)
    }

    /// Everything runs.
    public init(whole model: AnalyzedModel) {
        let language = model.configuration.language
        let share = LayerShare(heads: language.numAttentionHeads, groups: language.numAttentionHeads, language)
        self.init(shares: Array(repeating: share, count: language.numHiddenLayers), units: model.units.map { $0.total - $0.prefix })
    }

    /// A plan that was made for a request.
    /// - Throws: ``EvaluationError/argument(name:expected:found:)`` if it is another model's.
    public init(_ plan: ExecutionPlan, model: AnalyzedModel) throws {
        let language = model.configuration.language
        let all = 0 ..< language.numAttentionHeads
        guard plan.rows.count == language.numHiddenLayers, plan.headCount == language.numAttentionHeads,
            plan.rows.allSatisfy({ $0.heads.allSatisfy(all.contains) && $0.groups.allSatisfy(all.contains) })
        else {
            throw EvaluationError.argument(
                name: "plan", expected: "\(language.numHiddenLayers) layers of \(language.numAttentionHeads) heads, as \(model.name) has",
                found: "\(plan.rows.count) layers of \(plan.headCount)")
        }
        self.init(shares: plan.rows.map { LayerShare($0, language) })
    }

    /// The plan that a fraction of full compute buys. Which switches a scheduler would choose depends on the input; for the cost only
    /// their number matters with whole layers, and with heads the units are spread evenly over the layers after the prefix.
    /// - Throws: `BudgetError`
    public init(budget: Double, model: AnalyzedModel) throws {
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
    public init(parsing text: String, model: AnalyzedModel) throws {
        guard case .fraction(let budget) = try Budget(parsing: text) else {
            throw EvaluationError.argument(
                name: "--budget", expected: "a fraction of full compute such as 0.85; --fit finds the budget for a time",
                found: String(text.prefix(40)))
        }
        try self.init(budget: budget, model: model)
    }

    /// - Parameter units: units beyond the prefix, at most those that there are.
    init(units: Int, model: AnalyzedModel, isBelowFloor: Bool = false) {
        let language = model.configuration.language
        guard let adaptive = model.configuration.adaptive else {
            self.init(whole: model)
            return
        }
        let heads = language.numAttentionHeads
        let optional = language.numHiddenLayers - adaptive.numPrefixLayers
        let whole = LayerShare(heads: heads, groups: heads, language)
        let prefix = Array(repeating: whole, count: adaptive.numPrefixLayers)
        let rest: [LayerShare]
        switch adaptive.schedulerType {
        case .layers:
            let off = LayerShare(heads: 0, groups: 0, language)
            rest = (0 ..< optional).map { $0 < units ? whole : off }
        case .heads:
            // A layer takes units until its heads are all on; the last unit of a layer may find fewer than `rank` heads left.
            rest = (0 ..< optional).map { layer in
                let count = min(heads, (units / optional + (layer < units % optional ? 1 : 0)) * adaptive.schedulerRank)
                return LayerShare(heads: count, groups: count, language)
            }
        }
        self.init(shares: prefix + rest, units: units, isBelowFloor: isBelowFloor)
    }

    /// A plan given by counts: for each layer how many heads and groups run. A layer with -1 or 0 is dropped, as in the reference's lists.
    /// - Throws: ``EvaluationError/argument(name:expected:found:)``
    public init(headsPerLayer: [Int], groupsPerLayer: [Int]? = nil, model: AnalyzedModel) throws {
        let language = model.configuration.language
        let groups = groupsPerLayer ?? headsPerLayer
        for counts in [headsPerLayer, groups] {
            guard counts.count == language.numHiddenLayers else {
                throw EvaluationError.argument(
                    name: "--plan", expected: "\(language.numHiddenLayers) numbers, one for each layer", found: "\(counts.count)")
            }
            for (layer, count) in counts.enumerated() where !(-1 ... language.numAttentionHeads).contains(count) {
                throw EvaluationError.argument(
                    name: "--plan, layer \(layer)", expected: "-1 (dropped) to \(language.numAttentionHeads)", found: "\(count)")
            }
        }
        self.init(shares: zip(headsPerLayer, groups).map { LayerShare(heads: max(0, $0), groups: max(0, $1), language) })
    }

    /// Reads what `--plan` names: numbers with commas between them (heads of each layer, -1 for a dropped one), or a JSON file with such a
    /// list, with `attention_heads_per_layer` and `mlp_groups_per_layer` as `ask --json` and `trace` print them, or with a mask
    /// `[layers][2][heads]` of zeros and ones.
    /// - Throws: ``EvaluationError``, `CheckpointError`
    public init(argument text: String, model: AnalyzedModel) throws {
        let numbers = text.split(separator: ",").map { Int($0.trimmingCharacters(in: .whitespaces)) }
        if !numbers.isEmpty, numbers.allSatisfy({ $0 != nil }) {
            try self.init(headsPerLayer: numbers.compactMap { $0 }, model: model)
            return
        }
        let file = URL(fileURLWithPath: text)
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
            try self.init(plan.mask(layers, heads: model.configuration.language.numAttentionHeads), model: model)
        } else {
            try self.init(headsPerLayer: plan.counts(list, "the file"), model: model)
        }
    }

    /// Layers of which the same share runs, each share once, in the order of their first layer; dropped layers are left out.
    var kinds: [(share: LayerShare, layers: [Int])] {
        var kinds: [(share: LayerShare, layers: [Int])] = []
        var places: [LayerShare: Int] = [:]
        for (layer, share) in shares.enumerated() where !share.isSkipped {
            if let place = places[share] {
                kinds[place].layers.append(layer)
            } else {
                places[share] = kinds.count
                kinds.append((share, [layer]))
            }
        }
        return kinds
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
