import AdaLLaVA
import Foundation

/// Logistic regression with a ridge penalty, fitted by Newton's method: the loss is convex, so every start ends in the same weights.
package struct LogisticFit: Sendable {
    /// Inputs standardized to mean 0 and deviation 1, followed by a 1 for the bias.
    private let inputs: [Double]
    private let count: Int
    private let width: Int
    private let scale: Standardization

    /// - Parameter rows: one for each sample, all as long.
    package init(_ rows: [[Float]]) {
        count = rows.count
        let values = rows.first?.count ?? 0
        width = values + 1
        let scale = Standardization(rows, width: values)
        var inputs: [Double] = []
        inputs.reserveCapacity(rows.count * width)
        for row in rows {
            inputs += scale(row)
            inputs.append(1)
        }
        (self.inputs, self.scale) = (inputs, scale)
    }

    /// Weights and bias for the rows as they were given.
    /// - Parameters:
    ///   - isTrue: the target of each row.
    ///   - ridge: half of it times the squared weights is added to the loss; a bias has none.
    package func fit(_ isTrue: [Bool], ridge: Double) -> (weight: [Float], bias: Float) {
        let positives = isTrue.count { $0 }
        // With one class only, there is nothing to fit.
        guard positives > 0, positives < count else {
            let odds = (Double(positives) + 0.5) / (Double(count - positives) + 0.5)
            return ([Float](repeating: 0, count: width - 1), Float(log(odds)))
        }
        var weights = [Double](repeating: 0, count: width)
        weights[width - 1] = log(Double(positives) / Double(count - positives))
        var loss = self.loss(weights, isTrue, ridge)
        for _ in 0 ..< 30 {
            guard let step = newtonStep(weights, isTrue, ridge) else { break }
            var scale = 1.0
            var next = weights, nextLoss = loss
            repeat {
                next = zip(weights, step).map { $0 - scale * $1 }
                nextLoss = self.loss(next, isTrue, ridge)
                scale /= 2
            } while !(nextLoss <= loss) && scale > 1e-6
            guard nextLoss < loss else { break }
            let isDone = loss - nextLoss < 1e-7 * loss
            (weights, loss) = (next, nextLoss)
            if isDone { break }
        }
        let scaled = (0 ..< width - 1).map { weights[$0] / scale.deviation[$0] }
        let bias = weights[width - 1] - zip(scaled, scale.mean).reduce(0) { $0 + $1.0 * $1.1 }
        return (scaled.map { Float($0) }, Float(bias))
    }

    private func logits(_ weights: [Double]) -> [Double] {
        inputs.withUnsafeBufferPointer { inputs in
            weights.withUnsafeBufferPointer { weights in
                (0 ..< count).map { row in
                    var sum = 0.0
                    for index in 0 ..< width { sum += inputs[row * width + index] * weights[index] }
                    return sum
                }
            }
        }
    }

    private func loss(_ weights: [Double], _ isTrue: [Bool], _ ridge: Double) -> Double {
        let data = zip(logits(weights), isTrue).reduce(0) { sum, item in
            let margin = item.1 ? item.0 : -item.0
            return sum + (margin > 0 ? log1p(exp(-margin)) : log1p(exp(margin)) - margin)
        }
        return data + ridge / 2 * weights.dropLast().reduce(0) { $0 + $1 * $1 }
    }

    /// The Hessian's solution for the gradient; `nil` where it has none.
    private func newtonStep(_ weights: [Double], _ isTrue: [Bool], _ ridge: Double) -> [Double]? {
        var gradient = weights.map { $0 * ridge }
        gradient[width - 1] = 0
        var hessian = [Double](repeating: 0, count: width * width)
        for index in 0 ..< width { hessian[index * width + index] = index < width - 1 ? ridge : 1e-9 }
        let logits = logits(weights)
        inputs.withUnsafeBufferPointer { inputs in
            gradient.withUnsafeMutableBufferPointer { gradient in
                hessian.withUnsafeMutableBufferPointer { hessian in
                    for row in 0 ..< count {
                        let probability = 1 / (1 + exp(-logits[row])), error = probability - (isTrue[row] ? 1 : 0)
                        let curvature = probability * (1 - probability), x = row * width
                        for index in 0 ..< width {
                            let value = inputs[x + index]
                            gradient[index] += error * value
                            let scaled = curvature * value, line = index * width
                            for other in 0 ... index { hessian[line + other] += scaled * inputs[x + other] }
                        }
                    }
                }
            }
        }
        return Self.solve(&hessian, gradient, width)
    }

    /// Cholesky: solves `matrix * x = right` for a positive definite matrix, of which the lower half is given.
    static func solve(_ matrix: inout [Double], _ right: [Double], _ size: Int) -> [Double]? {
        var x = right
        let isSolved = matrix.withUnsafeMutableBufferPointer { m in
            for column in 0 ..< size {
                for row in column ..< size {
                    var sum = m[row * size + column]
                    for index in 0 ..< column { sum -= m[row * size + index] * m[column * size + index] }
                    if row == column {
                        guard sum > 0 else { return false }
                        m[row * size + column] = sum.squareRoot()
                    } else {
                        m[row * size + column] = sum / m[column * size + column]
                    }
                }
            }
            for row in 0 ..< size {
                for index in 0 ..< row { x[row] -= m[row * size + index] * x[index] }
                x[row] /= m[row * size + row]
            }
            for row in (0 ..< size).reversed() {
                for index in row + 1 ..< size { x[row] -= m[index * size + row] * x[index] }
                x[row] /= m[row * size + row]
            }
            return true
        }
        return isSolved ? x : nil
    }
}
