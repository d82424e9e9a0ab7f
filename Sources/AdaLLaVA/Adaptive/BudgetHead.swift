import Foundation

/// Predicts how many units an input needs: from the last prompt row after the prefix layers, for each number of optional units, the probability that the
/// answer is as good as the full model's with so many or more. An ordinal logistic regression with a weight vector for each threshold, on the row itself
/// or on a hidden layer with SiLU; not part of the reference.
///
/// Tensors: `scheduler.budget_head.weight` `[units, inputs]` and `.bias` `[units]` (all units are always enough, so they have no row); `.hidden.weight`
/// `[inputs, hidden]` and `.hidden.bias` `[inputs]` where there is a hidden layer, without which `inputs` are `hidden`; and `.curve` `[points, 3]`: a price of
/// compute, and the accuracy lost and the mean fraction of compute at that price on the inputs that calibrated it.
package struct BudgetHead: Sendable, Equatable {
    /// Calibration results at one price.
    package struct Point: Sendable, Equatable {
        /// How much likelihood of a good answer a whole model's compute has to be worth.
        package var price: Float
        /// Mean score of the full model minus that at this price.
        package var loss: Float
        /// Mean fraction of the full model's units that ran, the prefix included.
        package var mean: Float

        package init(price: Float, loss: Float, mean: Float) { (self.price, self.loss, self.mean) = (price, loss, mean) }
    }

    /// A layer between the row and the thresholds: `[inputs][hidden]` and `[inputs]`.
    package struct HiddenLayer: Sendable, Equatable {
        package var weight: [[Float]]
        package var bias: [Float]

        package init(weight: [[Float]], bias: [Float]) { (self.weight, self.bias) = (weight, bias) }
    }

    /// `nil`: the thresholds read the row itself.
    package var hidden: HiddenLayer?
    /// `[units][inputs]`
    package var weight: [[Float]]
    package var bias: [Float]
    package var curve: [Point]

    package init(hidden: HiddenLayer? = nil, weight: [[Float]], bias: [Float], curve: [Point] = []) {
        (self.hidden, self.weight, self.bias, self.curve) = (hidden, weight, bias, curve)
    }

    static let prefix = "scheduler.budget_head."

    /// The file of the tensors, next to a checkpoint's weights.
    package static let fileName = WeightFiles.budgetHead

    /// - Throws: ``CheckpointError`` for tensors that are missing or of another shape.
    init(_ source: any TensorSource, units: BudgetUnits, hiddenSize: Int) throws {
        let optional = units.total - units.prefix
        var inputs = hiddenSize
        if let stored = source.find(Self.prefix + "hidden.weight") {
            guard stored.shape.count == 2, let rows = stored.shape.first, rows > 0 else {
                throw CheckpointError.shape(tensor: stored.name, expected: [1, hiddenSize], found: stored.shape, file: stored.file.path)
            }
            let matrix = try Tensor(matrix: stored, rows: rows, columns: hiddenSize)
            let bias = try Tensor(vector: source.tensor(Self.prefix + "hidden.bias"), count: rows)
            (hidden, inputs) = (HiddenLayer(weight: (0 ..< rows).map(matrix.row), bias: bias.row(0)), rows)
        }
        let matrix = try Tensor(matrix: source.tensor(Self.prefix + "weight"), rows: optional, columns: inputs)
        weight = (0 ..< optional).map(matrix.row)
        bias = try Tensor(vector: source.tensor(Self.prefix + "bias"), count: optional).row(0)
        let stored = try source.tensor(Self.prefix + "curve")
        guard stored.shape.count == 2, let points = stored.shape.first, points > 0, stored.shape[1] == 3 else {
            throw CheckpointError.shape(tensor: stored.name, expected: [1, 3], found: stored.shape, file: stored.file.path)
        }
        let values = try Tensor(matrix: stored, rows: points, columns: 3)
        curve = (0 ..< points).map { Point(price: values.row($0)[0], loss: values.row($0)[1], mean: values.row($0)[2]) }
    }

    /// The tensors of a checkpoint, row-major.
    package var tensors: [(name: String, shape: [Int], values: [Float])] {
        let layer = hidden.map { hidden in
            [
                (Self.prefix + "hidden.weight", [hidden.weight.count, hidden.weight.first?.count ?? 0], hidden.weight.flatMap(\.self)),
                (Self.prefix + "hidden.bias", [hidden.bias.count], hidden.bias),
            ]
        }
        return (layer ?? []) + [
            (Self.prefix + "weight", [weight.count, weight.first?.count ?? 0], weight.flatMap(\.self)), (Self.prefix + "bias", [bias.count], bias),
            (Self.prefix + "curve", [curve.count, 3], curve.flatMap { [$0.price, $0.loss, $0.mean] }),
        ]
    }

    /// How likely the answer stays as good as the full model's from 0, 1, … optional units on; rising, and 1 for all units.
    /// - Parameter state: the last prompt row after the prefix layers, without a norm.
    package func likelihoods(_ state: [Float]) -> [Float] {
        let inputs = hidden.map { hidden in Self.product(hidden.weight, state, hidden.bias).map { $0 / (1 + exp(-$0)) } } ?? state
        var highest: Float = 0
        let some = Self.product(weight, inputs, bias).map { logit in
            highest = max(highest, 1 / (1 + exp(-logit)))
            return highest
        }
        return some + [1]
    }

    private static func product(_ matrix: [[Float]], _ vector: [Float], _ bias: [Float]) -> [Float] {
        zip(matrix, bias).map { row, bias in zip(row, vector).reduce(bias) { $0 + $1.0 * $1.1 } }
    }

    /// The optional units whose likelihood of a good answer, less the price of their compute, is highest; the fewest of equals. Everything where a
    /// state is not a number.
    package static func choose(_ likelihoods: [Float], price: Float, of units: BudgetUnits) -> Int {
        var best = (units: units.total - units.prefix, value: -Float.infinity)
        for (count, likelihood) in likelihoods.enumerated() {
            let value = likelihood - price * Float(units.prefix + count) / Float(units.total)
            if value > best.value { best = (count, value) }
        }
        return best.units
    }

    /// The price at which the calibration met the budget; 0, which runs nearly everything, if none did.
    package func price(for budget: AutomaticBudget) -> Float {
        switch budget {
        case .within(let loss):
            // A loss that one price keeps and a lower one does not is luck of the sample: nothing above the first that is too much counts.
            let kept = curve.sorted { $0.price < $1.price }.prefix { Double($0.loss) <= loss }
            return kept.last?.price ?? 0
        case .mean(let mean):
            return curve.filter { Double($0.mean) <= mean + 1e-6 }.max { ($0.mean, -$0.price) < ($1.mean, -$1.price) }?.price ?? curve.map(\.price).max() ?? 0
        }
    }

    func units(_ state: [Float], _ budget: AutomaticBudget, of units: BudgetUnits) -> Int {
        Self.choose(likelihoods(state), price: price(for: budget), of: units)
    }
}
