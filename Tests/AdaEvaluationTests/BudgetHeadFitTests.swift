import Foundation
import Testing

@testable import AdaEvaluation
@testable import AdaLLaVA

/// What a budget head is fitted to, the fit, and what it is worth.
@Suite struct BudgetHeadFitTests {
    private static let units = BudgetUnits(total: 4, prefix: 1)

    /// Inputs whose first value says how many units they need, and whose text says nothing.
    private static func labels(_ count: Int, seed: UInt64) -> BudgetLabels {
        var random = SplitMix64(seed: seed)
        var labels = BudgetLabels(units: units)
        for _ in 0 ..< count {
            let need = random.index(below: 4)
            let state = [Float(need) + Float(random.unit()) * 0.4, Float(random.unit())]
            labels.add(state: state, textState: [Float(random.unit()), Float(random.unit())], scores: (0 ... 3).map { $0 >= need ? 1 : 0 })
        }
        return labels
    }

    @Test("the least units are those from which the score never falls below the full one")
    func leastUnits() {
        var labels = BudgetLabels(units: Self.units)
        for scores: [Float] in [[1, 1, 1, 1], [0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [0, 0, 0, 0], [1, 0, 1, 0]] {
            labels.add(state: [0], textState: [0], scores: scores)
        }
        // A wrong answer of the full model cannot be lost.
        #expect(labels.leastUnits == [0, 1, 2, 3, 0, 0])
        #expect(labels.oracle == [0, 1, 0, 0, 0, 0] && labels.share(2) == 0.75)
    }

    @Test("the fit is at the minimum of a convex loss, and finds the weights that made its data")
    func fitIsTheMinimum() throws {
        var random = SplitMix64(seed: 2)
        let rows = (0 ..< 4000).map { _ in [Float(random.unit() * 4 - 2), Float(random.unit() * 40 - 20), 7] }
        let isTrue = rows.map { row in random.unit() < 1 / (1 + exp(-Double(1.5 * row[0] - 0.1 * row[1] + 0.5))) }
        let found = LogisticFit(rows).fit(isTrue, ridge: 0.01)
        #expect(abs(found.weight[0] - 1.5) < 0.15 && abs(found.weight[1] + 0.1) < 0.01)
        func loss(_ weight: [Float], _ bias: Float) -> Double {
            zip(rows, isTrue).reduce(0) { sum, item in
                let logit = Double(zip(weight, item.0).reduce(bias) { $0 + $1.0 * $1.1 })
                return sum + log1p(exp(item.1 ? -logit : logit))
            }
        }
        let least = loss(found.weight, found.bias)
        for (index, step) in [(0, 0.02), (0, -0.02), (1, 0.002), (1, -0.002)] {
            var weight = found.weight
            weight[index] += Float(step)
            #expect(loss(weight, found.bias) > least)
        }
        // Nothing to tell apart: the likelihood alone.
        let always = LogisticFit(rows).fit(rows.map { _ in true }, ridge: 1)
        #expect(always.weight == [0, 0, 0] && always.bias > 8)
    }

    @Test("a head that can see what inputs need keeps the accuracy at less compute; shuffled budgets and the text alone do not")
    func headIsWorthItsCompute() throws {
        let head = try BudgetHeadFit.fit(Self.labels(600, seed: 1), calibration: [Self.labels(300, seed: 2)])
        let test = Self.labels(400, seed: 3)
        let textHead = try BudgetHeadFit.fit(Self.labels(600, seed: 1), calibration: [Self.labels(300, seed: 2)], usesText: true)
        let study = BudgetStudy(head, on: test, textHead: textHead)
        #expect(study.full == 1 && study.fixed.map(\.mean) == [0.25, 0.5, 0.75, 1])
        #expect(abs(study.oracle.mean - 0.625) < 0.05 && study.oracle.accuracy == 1)
        #expect(study.standard.own.accuracy > 0.99 && study.standard.own.mean < 0.7)
        #expect(study.leastFixed(within: 0.005)?.mean == 1)
        #expect(try #require(study.standard.overShuffled).low > 0.15 && #require(study.standard.overText).low > 0.1)
        #expect(try #require(study.standard.text).mean >= study.standard.own.mean)
        // Prices fall from left to right of the curve, means rise.
        #expect(zip(head.curve, head.curve.dropFirst()).allSatisfy { $0.price < $1.price && $0.mean >= $1.mean })
        #expect(study.json.fixed.count == 4)
        #expect(study.table.contains("auto itself"))
    }

    @Test("a hidden layer is taken where the need is no linear function of the state, and its gradient is the loss's")
    func hiddenLayer() throws {
        func labels(_ count: Int, seed: UInt64) -> BudgetLabels {
            var random = SplitMix64(seed: seed), labels = BudgetLabels(units: Self.units)
            for _ in 0 ..< count {
                let state = [Float(random.unit() * 4 - 2), Float(random.unit() * 40 - 20)]
                // Only where both values have one sign the answer needs everything.
                let need = state[0] * state[1] > 0 ? 3 : 0
                labels.add(state: state, textState: [0, 0], scores: (0 ... 3).map { $0 >= need ? 1 : 0 })
            }
            return labels
        }
        var perceptron = PerceptronFit(hidden: 16, members: 2)
        perceptron.learningRate = 1e-2
        let calibration = [labels(300, seed: 2), labels(200, seed: 4)]
        let head = try BudgetHeadFit.fit(labels(1200, seed: 1), calibration: calibration, perceptron: perceptron)
        #expect(head.hidden?.weight.count == 32 && head.weight.allSatisfy { $0.count == 32 })
        let test = labels(400, seed: 3), linear = try BudgetHeadFit.fit(labels(1200, seed: 1), calibration: calibration, perceptron: nil)
        #expect(linear.hidden == nil)
        let (own, plain) = (BudgetStudy(head, on: test), BudgetStudy(linear, on: test))
        #expect(own.standard.own.accuracy > 0.97 && own.standard.own.mean < 0.72 && plain.standard.own.mean > 0.9)
        // The loss of a curve's point is that of the set that loses most.
        for point in head.curve {
            let losses = calibration.map { set in set.fullAccuracy - set.accuracy(BudgetChoice(head, set).units(price: point.price)) }
            #expect(abs(Double(point.loss) - (losses.max() ?? 0)) < 1e-6)
        }
        var network = PerceptronFit.Network(inputs: 2, hidden: 3, outputs: 2, seed: 5), random = SplitMix64(seed: 6)
        let rows: [Float] = [0.3, -1.2, 0.8, 0.1], isEnough = [[true, false], [false, false]]
        let gradient = network.gradient(rows, isEnough, [0, 1], inputDropout: 0, hiddenDropout: 0, &random)
        for path in [\PerceptronFit.Network.first, \.firstBias, \.second, \.secondBias] {
            for place in network[keyPath: path].indices {
                let value = network[keyPath: path][place], step: Float = 1e-2
                network[keyPath: path][place] = value + step
                let above = network.loss(rows, isEnough)
                network[keyPath: path][place] = value - step
                let below = network.loss(rows, isEnough)
                network[keyPath: path][place] = value
                #expect(abs(Double(gradient[keyPath: path][place]) - (above - below) / Double(2 * step)) < 1e-4)
            }
        }
    }

    @Test("labels are read back as they were written; other files and other models are refused")
    func files() async throws {
        try await Samples.withFolder { folder in
            let file = folder.appendingPathComponent("labels.safetensors")
            let labels = Self.labels(7, seed: 5)
            try labels.write(to: file)
            #expect(try BudgetLabels(contentsOf: file) == labels)
            var other = BudgetLabels(units: BudgetUnits(total: 8, prefix: 4))
            other.add(state: [1, 2], textState: [1, 2], scores: [1, 1, 1, 1, 1])
            var both = labels
            #expect(throws: EvaluationError.self) { try both.append(other) }
            #expect(throws: EvaluationError.self) { try BudgetHeadFit.fit(labels, calibration: [other]) }
            for tensors: [(name: String, shape: [Int], values: [Float])] in [
                [("states", [1, 1], [0])], [("units", [2], [1, 4]), ("states", [1, 1], [0])], [("units", [2], [.nan, 1])],
                [("units", [2], [4, 1]), ("states", [2, 1], [0, 0]), ("text_states", [2, 1], [0, 0]), ("scores", [2, 3], [0, 0, 0, 0, 0, 0])],
            ] {
                try SafetensorsWriter.write(tensors, to: file)
                #expect(throws: CheckpointError.self) { try BudgetLabels(contentsOf: file) }
            }
        }
    }
}
