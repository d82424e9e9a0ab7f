import AdaLLaVA
import Foundation

/// Fits a budget head to labels, and measures its gain.
package enum BudgetHeadFit {
    /// Penalties that are tried; the calibration labels decide.
    static let ridges = [3.0, 30, 300, 3000]

    /// Prices of compute at which a head is calibrated: nothing, then evenly in logarithms.
    static let prices: [Float] = [0] + (0 ... 60).map { Float(0.002 * pow(2000, Double($0) / 60)) }

    /// Fits heads to labels, with penalties of ``ridges`` and with a hidden layer, takes the one that predicts the calibration labels best, and measures its
    /// curve on them.
    /// - Parameters:
    ///   - calibration: labels of other inputs, set by set. The loss at a price is that on the set that loses most, so it holds on each of them.
    ///   - usesText: whether the head sees the question alone, as the baseline does.
    ///   - perceptron: how the head with a hidden layer is trained; `nil` leaves it out.
    /// - Throws: ``EvaluationError`` for too few labels, or labels of different models.
    package static func fit(_ labels: BudgetLabels, calibration: [BudgetLabels], usesText: Bool = false) throws -> BudgetHead {
        try fit(labels, calibration: calibration, usesText: usesText, perceptron: PerceptronFit())
    }

    static func fit(_ labels: BudgetLabels, calibration sets: [BudgetLabels], usesText: Bool = false, perceptron: PerceptronFit?) throws -> BudgetHead {
        guard var calibration = sets.first, labels.count > 1, sets.allSatisfy({ $0.count > 1 }) else {
            let least = min(labels.count, sets.map(\.count).min() ?? 0)
            throw EvaluationError.argument(name: "--labels", expected: "labels of several inputs", found: "\(least)")
        }
        for set in sets.dropFirst() { try calibration.append(set) }
        guard labels.units == calibration.units, labels.states[0].count == calibration.states[0].count else {
            throw EvaluationError.argument(name: "--calibration", expected: "labels of the model that --labels are of", found: "those of another one")
        }
        let states = usesText ? labels.textStates : labels.states
        let fit = LogisticFit(states), least = labels.leastUnits
        var heads = ridges.map { ridge in
            let rows = (0 ..< labels.optional).map { count in fit.fit(least.map { $0 <= count }, ridge: ridge) }
            return BudgetHead(weight: rows.map(\.weight), bias: rows.map(\.bias))
        }
        if let perceptron {
            heads.append(perceptron.fit(labels.samples(usesText: usesText), heldOut: calibration.samples(usesText: usesText)))
        }
        let losses = heads.map { logLoss($0, calibration, usesText: usesText) }
        guard let best = losses.indices.min(by: { losses[$0] < losses[$1] }) else { return heads[0] }
        var head = heads[best]
        head.curve = curve(of: head, on: sets, usesText: usesText)
        return head
    }

    /// Writes a head next to a checkpoint's weights, and then adds it to `config.json`.
    /// - Throws: ``EvaluationError`` for a checkpoint that is no folder of an adaptive model of the head's shape, `CheckpointError` for one that cannot be written.
    package static func add(_ head: BudgetHead, to checkpoint: Checkpoint) throws {
        let config = checkpoint.folder.appendingPathComponent("config.json")
        guard checkpoint.ggufMetadata == nil, let units = checkpoint.configuration.budgetUnits,
            head.bias.count == units.total - units.prefix, (head.hidden?.weight ?? head.weight).first?.count == checkpoint.configuration.language.hiddenSize,
            case .object(var members) = try JSONValue.read(contentsOf: config)
        else {
            throw EvaluationError.argument(
                name: "--model", expected: "the folder of the adaptive model that the labels are of", found: checkpoint.folder.path)
        }
        try SafetensorsWriter.write(head.tensors, to: checkpoint.folder.appendingPathComponent(BudgetHead.fileName))
        members["budget_head"] = .bool(true)
        let data = try JSONText.data(JSONValue.object(members), isPretty: true)
        try RunFiles.write(data, to: config)
    }

    /// Mean negative log likelihood of all thresholds.
    static func logLoss(_ head: BudgetHead, _ labels: BudgetLabels, usesText: Bool) -> Double {
        let states = usesText ? labels.textStates : labels.states
        let losses = zip(states, labels.leastUnits).map { state, least in
            head.likelihoods(state).dropLast().enumerated().reduce(0.0) { sum, item in
                let likelihood = min(max(Double(item.element), 1e-6), 1 - 1e-6)
                return sum - log(least <= item.offset ? likelihood : 1 - likelihood)
            }
        }
        return losses.mean ?? 0
    }

    /// At each price the loss on the set that loses most, and the mean budget over all inputs.
    static func curve(of head: BudgetHead, on sets: [BudgetLabels], usesText: Bool = false) -> [BudgetHead.Point] {
        let choices = sets.map { BudgetChoice(head, $0, usesText: usesText) }, inputs = sets.reduce(0) { $0 + $1.count }
        return prices.map { price in
            let chosen = choices.map { $0.units(price: price) }
            let losses = zip(sets, chosen).map { $0.fullAccuracy - $0.accuracy($1) }
            let mean = zip(sets, chosen).reduce(0) { $0 + $1.0.mean($1.1) * Double($1.0.count) } / Double(max(inputs, 1))
            return BudgetHead.Point(price: price, loss: Float(losses.max() ?? 0), mean: Float(mean))
        }
    }
}

extension BudgetLabels {
    /// Samples to fit a head to, one for each input, with a label for each threshold.
    fileprivate func samples(usesText: Bool) -> [PerceptronFit.Sample] {
        zip(usesText ? textStates : states, leastUnits).map { state, least in (state, (0 ..< optional).map { least <= $0 }) }
    }

    /// The mean score where input `i` is answered with `units[i]` optional units.
    package func accuracy(_ units: [Int]) -> Double { zip(scores, units).map { Double($0[$1]) }.mean ?? 0 }

    /// The mean score where all inputs are answered with as many.
    package func accuracy(fixed optional: Int) -> Double { scores.map { Double($0[optional]) }.mean ?? 0 }

    package var fullAccuracy: Double { accuracy(fixed: optional) }

    /// The mean fraction of the full model's units.
    package func mean(_ units: [Int]) -> Double { units.map(share).mean ?? 0 }

    /// For each input the fewest units with its best score: the bound of any prediction.
    package var oracle: [Int] { scores.map { scores in scores.firstIndex(of: scores.max() ?? 0) ?? 0 } }
}

/// A head's outputs for some inputs, kept so that many prices can be tried.
struct BudgetChoice {
    private let likelihoods: [[Float]]
    private let labels: BudgetLabels

    init(_ head: BudgetHead, _ labels: BudgetLabels, usesText: Bool = false) {
        likelihoods = (usesText ? labels.textStates : labels.states).map(head.likelihoods)
        self.labels = labels
    }

    func units(price: Float) -> [Int] { likelihoods.map { BudgetHead.choose($0, price: price, of: labels.units) } }

    /// The units at the price whose mean is closest to `mean` from above, so that a comparison never gets less compute than `auto`.
    func units(mean: Double) -> [Int] {
        var (low, high): (Float, Float) = (0, 64)
        for _ in 0 ..< 40 {
            let middle = (low + high) / 2
            if labels.mean(units(price: middle)) >= mean { low = middle } else { high = middle }
        }
        return units(price: low)
    }
}

extension BudgetHeadFit {
    /// The output of `auto fit --json`.
    package struct JSON: Codable, Sendable {
        package var inputs: Int
        /// Inputs that the head was calibrated on.
        package var calibration: Int
        package var curve: [Point]
        package var tests: [Test]

        /// A price of units, and the loss of accuracy and the mean budget at it.
        package struct Point: Codable, Sendable {
            package var price: Double
            package var loss: Double
            package var mean: Double
        }

        package struct Test: Codable, Sendable {
            /// The file of labels.
            package var labels: String
            package var study: BudgetStudy.JSON
        }

        package init(_ head: BudgetHead, inputs: Int, calibration: Int, studies: [(name: String, study: BudgetStudy)]) {
            (self.inputs, self.calibration) = (inputs, calibration)
            curve = head.curve.map { Point(price: Double($0.price), loss: Double($0.loss), mean: Double($0.mean)) }
            tests = studies.map { Test(labels: $0.name, study: $0.study.json) }
        }
    }
}
