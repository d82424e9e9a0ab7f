import AdaLLaVA
import Foundation

/// Fits a budget head with a hidden layer: Adam with decoupled weight decay on the mean log loss of all thresholds, dropout on inputs and hidden values, and
/// the epoch that predicts held-out labels best. Several such networks, from different starts, become one head whose logits are their mean.
struct PerceptronFit {
    var hidden = 64
    var members = 3
    var epochs = 40
    /// Epochs without a better one after which a network is finished.
    var patience = 8
    var batch = 128
    var learningRate: Float = 2e-3
    var weightDecay: Float = 0.03
    var inputDropout: Float = 0.1, hiddenDropout: Float = 0.3

    /// One sample: the head's input, and for each threshold whether so many units are enough.
    typealias Sample = (state: [Float], isEnough: [Bool])

    /// - Parameters:
    ///   - samples: at least one, all of the same widths.
    ///   - heldOut: samples whose loss chooses the epoch.
    func fit(_ samples: [Sample], heldOut: [Sample], seed: UInt64 = 1) -> BudgetHead {
        let width = samples[0].state.count, outputs = samples[0].isEnough.count
        let scale = Standardization(samples.map(\.state), width: width)
        let inputs = samples.flatMap { scale($0.state).map { Float($0) } }, held = heldOut.flatMap { scale($0.state).map { Float($0) } }
        var head = BudgetHead(hidden: BudgetHead.HiddenLayer(weight: [], bias: []), weight: Array(repeating: [], count: outputs), bias: Array(repeating: 0, count: outputs))
        for member in 0 ..< members {
            var network = Network(inputs: width, hidden: hidden, outputs: outputs, seed: seed &* 1009 &+ UInt64(member))
            let trained = train(&network, inputs, samples.map(\.isEnough), held, heldOut.map(\.isEnough))
            // The first layer reads rows as they are: the scale becomes part of it.
            let rows = trained.rows(of: scale)
            head.hidden?.weight += rows.weight
            head.hidden?.bias += rows.bias
            for output in 0 ..< outputs {
                head.weight[output] += (0 ..< hidden).map { trained.second[$0 * outputs + output] / Float(members) }
                head.bias[output] += trained.secondBias[output] / Float(members)
            }
        }
        return head
    }

    private func train(_ network: inout Network, _ inputs: [Float], _ labels: [[Bool]], _ held: [Float], _ heldLabels: [[Bool]]) -> Network {
        var best = network, bestLoss = Double.infinity, bestEpoch = 0
        var optimizer = Adam(network), random = SplitMix64(seed: UInt64(network.seed) ^ 0x9E37)
        var order = Array(labels.indices)
        for epoch in 0 ..< epochs {
            order.shuffle(using: &random)
            for first in stride(from: 0, to: order.count, by: batch) {
                let rows = order[first ..< min(first + batch, order.count)]
                let gradient = network.gradient(inputs, labels, rows, inputDropout: inputDropout, hiddenDropout: hiddenDropout, &random)
                optimizer.step(&network, gradient, learningRate: learningRate, weightDecay: weightDecay)
            }
            let loss = network.loss(held, heldLabels)
            if loss < bestLoss { (best, bestLoss, bestEpoch) = (network, loss, epoch) }
            if epoch - bestEpoch >= patience { break }
        }
        return best
    }

    /// Two layers with SiLU between them. Weights are stored input by input, so that the innermost loops run over outputs.
    struct Network {
        let inputs, hidden, outputs: Int
        let seed: UInt64
        /// `[inputs][hidden]`, `[hidden]`, `[hidden][outputs]`, `[outputs]`
        var first, firstBias, second, secondBias: [Float]

        init(inputs: Int, hidden: Int, outputs: Int, seed: UInt64) {
            (self.inputs, self.hidden, self.outputs, self.seed) = (inputs, hidden, outputs, seed)
            var random = SplitMix64(seed: seed)
            func uniform(_ count: Int, _ fanIn: Int) -> [Float] { (0 ..< count).map { _ in Float(random.unit() * 2 - 1) / Float(max(fanIn, 1)).squareRoot() } }
            first = uniform(inputs * hidden, inputs)
            firstBias = [Float](repeating: 0, count: hidden)
            second = uniform(hidden * outputs, hidden)
            secondBias = [Float](repeating: 0, count: outputs)
        }

        /// The first layer for rows before standardization, `[hidden][inputs]`.
        func rows(of scale: Standardization) -> (weight: [[Float]], bias: [Float]) {
            let weight = (0 ..< hidden).map { unit in (0 ..< inputs).map { first[$0 * hidden + unit] / Float(scale.deviation[$0]) } }
            let bias = weight.indices.map { unit in zip(weight[unit], scale.mean).reduce(firstBias[unit]) { $0 - $1.0 * Float($1.1) } }
            return (weight, bias)
        }

        private func preactivations(_ x: UnsafePointer<Float>, _ out: UnsafeMutablePointer<Float>) {
            first.withUnsafeBufferPointer { first in
                for unit in 0 ..< hidden { out[unit] = firstBias[unit] }
                for input in 0 ..< inputs where x[input] != 0 {
                    let value = x[input], row = input * hidden
                    for unit in 0 ..< hidden { out[unit] += value * first[row + unit] }
                }
            }
        }

        private func logits(_ values: [Float]) -> [Float] {
            var logits = secondBias
            for unit in 0 ..< hidden { for output in 0 ..< outputs { logits[output] += values[unit] * second[unit * outputs + output] } }
            return logits
        }

        /// Mean log loss of all rows and thresholds.
        func loss(_ rows: [Float], _ labels: [[Bool]]) -> Double {
            var sum = 0.0, values = [Float](repeating: 0, count: hidden)
            rows.withUnsafeBufferPointer { rows in
                guard let base = rows.baseAddress else { return }
                for (row, isEnough) in labels.enumerated() {
                    values.withUnsafeMutableBufferPointer { if let out = $0.baseAddress { preactivations(base + row * inputs, out) } }
                    let logits = logits(values.map { $0 / (1 + exp(-$0)) })
                    for output in 0 ..< outputs {
                        let margin = Double(isEnough[output] ? logits[output] : -logits[output])
                        sum += margin > 0 ? log1p(exp(-margin)) : log1p(exp(margin)) - margin
                    }
                }
            }
            return sum / Double(max(labels.count * outputs, 1))
        }

        /// The gradient of the mean loss of some rows, as a network.
        func gradient(
            _ rows: [Float], _ labels: [[Bool]], _ chosen: ArraySlice<Int>, inputDropout: Float, hiddenDropout: Float, _ random: inout SplitMix64
        ) -> Network {
            var gradient = self
            gradient.first = [Float](repeating: 0, count: first.count)
            gradient.firstBias = [Float](repeating: 0, count: hidden)
            gradient.second = [Float](repeating: 0, count: second.count)
            gradient.secondBias = [Float](repeating: 0, count: outputs)
            var x = [Float](repeating: 0, count: inputs), before = [Float](repeating: 0, count: hidden), back = before
            let share = 1 / Float(max(chosen.count * outputs, 1))
            for row in chosen {
                for input in 0 ..< inputs {
                    x[input] = Float(random.unit()) < inputDropout ? 0 : rows[row * inputs + input] / (1 - inputDropout)
                }
                x.withUnsafeBufferPointer { x in
                    before.withUnsafeMutableBufferPointer { if let x = x.baseAddress, let out = $0.baseAddress { preactivations(x, out) } }
                }
                let kept = (0 ..< hidden).map { _ in Float(random.unit()) < hiddenDropout ? 0 : 1 / (1 - hiddenDropout) }
                let sigmoid = before.map { 1 / (1 + exp(-$0)) }
                let values = (0 ..< hidden).map { before[$0] * sigmoid[$0] * kept[$0] }
                let logits = logits(values)
                let errors = (0 ..< outputs).map { output in (1 / (1 + exp(-logits[output])) - (labels[row][output] ? 1 : 0)) * share }
                for output in 0 ..< outputs { gradient.secondBias[output] += errors[output] }
                for unit in 0 ..< hidden {
                    var sum: Float = 0
                    for output in 0 ..< outputs {
                        gradient.second[unit * outputs + output] += values[unit] * errors[output]
                        sum += second[unit * outputs + output] * errors[output]
                    }
                    back[unit] = sum * kept[unit] * sigmoid[unit] * (1 + before[unit] * (1 - sigmoid[unit]))
                    gradient.firstBias[unit] += back[unit]
                }
                gradient.first.withUnsafeMutableBufferPointer { first in
                    back.withUnsafeBufferPointer { back in
                        for input in 0 ..< inputs where x[input] != 0 {
                            let value = x[input], line = input * hidden
                            for unit in 0 ..< hidden { first[line + unit] += value * back[unit] }
                        }
                    }
                }
            }
            return gradient
        }
    }

    /// Adam (Kingma and Ba, 2015) with decoupled weight decay (Loshchilov and Hutter, 2019) on the weights, none on biases.
    private struct Adam {
        private var steps: Float = 0
        private var mean: [[Float]], square: [[Float]]
        private static var parameters: [WritableKeyPath<Network, [Float]>] { [\.first, \.firstBias, \.second, \.secondBias] }
        private static let decayed = [true, false, true, false]

        init(_ network: Network) {
            mean = Adam.parameters.map { [Float](repeating: 0, count: network[keyPath: $0].count) }
            square = mean
        }

        mutating func step(_ network: inout Network, _ gradient: Network, learningRate: Float, weightDecay: Float) {
            steps += 1
            let (meanScale, squareScale) = (1 / (1 - pow(0.9, steps)), 1 / (1 - pow(0.999, steps)))
            for (index, path) in Adam.parameters.enumerated() {
                let slope = gradient[keyPath: path], decay = Adam.decayed[index] ? learningRate * weightDecay : 0
                var values = network[keyPath: path]
                for place in values.indices {
                    mean[index][place] = 0.9 * mean[index][place] + 0.1 * slope[place]
                    square[index][place] = 0.999 * square[index][place] + 0.001 * slope[place] * slope[place]
                    values[place] -= decay * values[place] + learningRate * meanScale * mean[index][place] / ((squareScale * square[index][place]).squareRoot() + 1e-8)
                }
                network[keyPath: path] = values
            }
        }
    }
}
