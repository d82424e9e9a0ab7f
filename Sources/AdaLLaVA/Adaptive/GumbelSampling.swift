import Foundation

/// One draw without replacement, and its straight-through gradient (Gumbel-Softmax: Jang et al. and Maddison et al., ICLR 2017).
///
/// With logits `l`, Gumbel noise `g` and temperature `τ`, over the entries not taken before:
///
///     score  = (l + g) / τ          −∞ where taken
///     hard   = 1 at the `top` highest scores (the first index wins a tie), 0 elsewhere
///     soft   = softmax(score)
///
/// Forward, the draw is `hard`; backward, it is `soft`. So the gradient of `Σ w · draw` with respect to the logits is
///
///     gradient = soft · (w − Σ soft · w) / τ
///
/// Without noise the scores are the logits themselves: the choice made at inference.
package struct GumbelDraw: Sendable, Equatable {
    /// Divisor of logits and noise.
    package let temperature: Float
    /// −∞ where nothing can be drawn.
    package let scores: [Float]
    /// The drawn indices, best first: `top` of them, fewer if fewer were left.
    package let chosen: [Int]

    /// - Parameters:
    ///   - logits: one for each entry. An entry whose score is −∞ or not a number is never drawn.
    ///   - taken: entries that cannot be drawn again, as many as logits.
    ///   - noise: Gumbel noise, as many values as logits; `nil` takes the highest logits.
    ///   - temperature: above 0; not used without noise.
    ///   - top: how many entries to draw at once.
    /// - Precondition: `taken` and `noise` have as many entries as `logits`.
    package init(logits: [Float], taken: [Bool], noise: [Float]? = nil, temperature: Float = GumbelDraw.defaultTemperature, top: Int = 1) {
        precondition(taken.count == logits.count && noise.map { $0.count == logits.count } ?? true, "one entry for each logit")
        var scores = logits
        if let noise { for index in scores.indices { scores[index] = (logits[index] + noise[index]) / temperature } }
        for index in scores.indices where taken[index] { scores[index] = -.infinity }
        self.temperature = noise == nil ? 1 : temperature
        self.scores = scores
        chosen = GumbelDraw.highest(top, of: scores)
    }

    /// The temperature that AdaLLaVA trains with.
    package static let defaultTemperature: Float = 5

    /// 1 for drawn entries, 0 elsewhere.
    package var hard: [Float] {
        var hard = [Float](repeating: 0, count: scores.count)
        for index in chosen { hard[index] = 1 }
        return hard
    }

    /// The softmax of the scores, 0 where taken; all zeros when nothing was left to draw.
    package var soft: [Float] { softInDouble.map { Float($0) } }

    /// The gradient of `Σ weight · draw` with respect to the logits.
    /// - Parameter weight: the gradient with respect to the draw, one value for each logit.
    package func gradient(_ weight: [Float]) -> [Float] { gradient(weight.map { Double($0) }).map { Float($0) } }

    // Gradients of many draws are added up, so everything after the choice is computed in double: this is the reference of the trainer's
    // tests.

    func gradient(_ weight: [Double]) -> [Double] {
        precondition(weight.count == scores.count, "one weight for each logit")
        let soft = softInDouble
        let mean = zip(soft, weight).reduce(0) { $0 + $1.0 * $1.1 }
        return zip(soft, weight).map { $0 * ($1 - mean) / Double(temperature) }
    }

    private var softInDouble: [Double] {
        guard let best = chosen.first.map({ Double(scores[$0]) }) else { return [Double](repeating: 0, count: scores.count) }
        let powers = scores.map { exp(Double($0) - best) }
        let sum = powers.reduce(0, +)
        return powers.map { $0 / sum }
    }

    private static func highest(_ count: Int, of scores: [Float]) -> [Int] {
        var left = scores
        var chosen: [Int] = []
        for _ in 0 ..< max(count, 0) {
            var best: Int?
            var bestScore = -Float.infinity
            for (index, score) in left.enumerated() where score > bestScore { (best, bestScore) = (index, score) }
            guard let best else { break }
            chosen.append(best)
            left[best] = -.infinity
        }
        return chosen
    }
}

/// Variant L: as many draws as units, one layer each, none twice (AdaLLaVA, section 3.3).
///
/// The sample is the sum of the draws, and so is its gradient: which entries were taken is not differentiated.
package struct GumbelLayerSampling: Sendable {
    /// The draws in order, one a unit.
    package let draws: [GumbelDraw]
    /// 1 for a layer that stays, one value for each logit.
    package let sample: [Float]

    /// - Parameters:
    ///   - logits: one for each layer after the prefix.
    ///   - count: units to spend; stops early when every layer is taken.
    ///   - noise: one row for each draw, `[count][logits]`; `nil` at inference.
    /// - Precondition: rows of noise suffice and are as long as `logits`.
    package init(logits: [Float], draws count: Int, noise: [[Float]]? = nil, temperature: Float = GumbelDraw.defaultTemperature) {
        precondition(noise.map { $0.count >= count } ?? true, "one row of noise for each draw")
        var taken = [Bool](repeating: false, count: logits.count)
        var draws: [GumbelDraw] = []
        for round in 0 ..< max(count, 0) {
            let draw = GumbelDraw(logits: logits, taken: taken, noise: noise?[round], temperature: temperature)
            guard let layer = draw.chosen.first else { break }
            taken[layer] = true
            draws.append(draw)
        }
        self.draws = draws
        sample = taken.map { $0 ? 1 : 0 }
    }

    /// The gradient of `Σ weight · sample` with respect to the logits.
    /// - Parameter weight: one value for each logit: the gradients of all switches of a layer, added up.
    package func gradient(_ weight: [Float]) -> [Float] {
        let weight = weight.map { Double($0) }
        var gradient = [Double](repeating: 0, count: weight.count)
        for draw in draws { gradient = zip(gradient, draw.gradient(weight)).map { $0 + $1 } }
        return gradient.map { Float($0) }
    }
}

/// Variant H: each unit draws a layer, then `rank` attention heads and `rank` MLP groups of it (AdaLLaVA, section 3.3).
///
/// A round draws one entry among all that are left, heads and groups of every layer alike, and so chooses its layer. Call `s` the
/// draw's weight summed over each layer's entries (1 for the chosen layer), `l` the logits, `[layers, 2 · heads]`, and `h` the draws
/// among the heads and among the groups of the layer, whose logits are `Σᵢ sᵢ lᵢ`. The round adds `s ⊗ h` to the sample.
///
/// Backward, with `w` the gradient of the sample and `c` the chosen layer, a round adds to the gradient of the logits
///
///     u             = GumbelDraw.gradient(w[c]), of the two draws side by side, `[2 · heads]`
///     gradient[c]  += u                                      through the logits that were drawn from
///     gradient     += GumbelDraw.gradient(v) of the layer's draw, with, for every entry j of layer i,
///     v[i, j]       = Σₖ w[i, k] h[k] + Σₖ l[i, k] u[k]      through s ⊗ h, and through Σᵢ sᵢ lᵢ
///
/// Which entries were taken is not differentiated.
package struct GumbelHeadSampling: Sendable {
    /// Gumbel noise of one round.
    package struct Noise: Sendable {
        /// For the draw of a layer, `[layers · 2 · heads]`.
        package let layer: [Float]
        /// For the draw of attention heads, `[heads]`.
        package let attention: [Float]
        /// For the draw of MLP groups, `[heads]`.
        package let mlp: [Float]

        /// Noise given by value, ready to be added to the logits.
        package init(layer: [Float], attention: [Float], mlp: [Float]) { (self.layer, self.attention, self.mlp) = (layer, attention, mlp) }
    }

    /// The result of one unit.
    package struct Round: Sendable {
        /// The draw that picked the layer, over all entries.
        package let entry: GumbelDraw
        /// The layer that was drawn, counted from the first one after the prefix.
        package let layer: Int
        /// The draws in that layer, `heads` entries each.
        package let attention, mlp: GumbelDraw
    }

    /// Attention heads of a layer.
    package let heads: Int
    /// The rounds in order, one a unit.
    package let rounds: [Round]
    /// 1 for a switch that is on, `[layers · 2 · heads]`: for each layer the attention heads, then the MLP groups.
    package let sample: [Float]
    private let logits: [Float]

    /// - Parameters:
    ///   - logits: `[layers · 2 · heads]`, for each layer after the prefix the attention heads, then the MLP groups.
    ///   - heads: attention heads, and as many MLP groups, of a layer.
    ///   - rank: how many of each a unit turns on.
    ///   - count: units to spend; stops early when everything is on.
    ///   - noise: one for each round; `nil` takes the highest logits, whose `sample` inference gets from ``greedySample(logits:heads:rank:draws:)``.
    /// - Precondition: `logits` are whole layers, and there is noise for every round.
    package init(
        logits: [Float], heads: Int, rank: Int, draws count: Int, noise: [Noise]? = nil, temperature: Float = GumbelDraw.defaultTemperature
    ) {
        precondition(heads > 0 && logits.count.isMultiple(of: 2 * heads), "2 · \(heads) logits for each layer")
        precondition(noise.map { $0.count >= count } ?? true, "noise for each round")
        var taken = [Bool](repeating: false, count: logits.count)
        var rounds: [Round] = []
        for round in 0 ..< max(count, 0) {
            let noise = noise?[round]
            let entry = GumbelDraw(logits: logits, taken: taken, noise: noise?.layer, temperature: temperature)
            guard let first = entry.chosen.first else { break }
            let layer = first / (2 * heads)
            func draw(from start: Int, _ noise: [Float]?) -> GumbelDraw {
                let range = start ..< start + heads
                let draw = GumbelDraw(
                    logits: Array(logits[range]), taken: Array(taken[range]), noise: noise, temperature: temperature, top: rank)
                for index in draw.chosen { taken[start + index] = true }
                return draw
            }
            let start = layer * 2 * heads
            let attention = draw(from: start, noise?.attention)
            let mlp = draw(from: start + heads, noise?.mlp)
            rounds.append(Round(entry: entry, layer: layer, attention: attention, mlp: mlp))
        }
        (self.heads, self.rounds, self.logits) = (heads, rounds, logits)
        sample = taken.map { $0 ? 1 : 0 }
    }

    /// The `sample` of a selection without noise, which inference computes for every request. It keeps each layer's highest remaining logit, so a unit
    /// reads the layers and the entries of one layer instead of all entries several times.
    static func greedySample(logits: [Float], heads: Int, rank: Int, draws count: Int) -> [Float] {
        precondition(heads > 0 && logits.count.isMultiple(of: 2 * heads), "2 · \(heads) logits for each layer")
        let width = 2 * heads, layers = logits.count / width
        var left = logits
        return left.withUnsafeMutableBufferPointer { left in
            /// The first of the highest values, `nil` where all are −∞ or not numbers.
            func highest(_ range: Range<Int>) -> Int? {
                var best: Int?, bestScore = -Float.infinity
                for index in range where left[index] > bestScore { (best, bestScore) = (index, left[index]) }
                return best
            }
            var sample = [Float](repeating: 0, count: left.count)
            func score(_ layer: Int) -> Float { highest(layer * width ..< (layer + 1) * width).map { left[$0] } ?? -.infinity }
            var scores = (0 ..< layers).map { score($0) }
            for _ in 0 ..< max(count, 0) {
                guard let best = scores.max(), best > -.infinity, let layer = scores.firstIndex(of: best) else { break }
                for start in [layer * width, layer * width + heads] {
                    for _ in 0 ..< max(rank, 0) {
                        guard let index = highest(start ..< start + heads) else { break }
                        (sample[index], left[index]) = (1, -.infinity)
                    }
                }
                scores[layer] = score(layer)
            }
            return sample
        }
    }

    /// The gradient of `Σ weight · sample` with respect to the logits.
    /// - Parameter weight: the gradient with respect to the sample, `[layers · 2 · heads]`.
    package func gradient(_ weight: [Float]) -> [Float] {
        precondition(weight.count == logits.count, "one weight for each logit")
        let width = 2 * heads
        let (weight, logits) = (weight.map { Double($0) }, logits.map { Double($0) })
        var gradient = [Double](repeating: 0, count: logits.count)
        for round in rounds {
            let start = round.layer * width
            let drawn = (round.attention.hard + round.mlp.hard).map { Double($0) }
            let within =
                round.attention.gradient(Array(weight[start ..< start + heads]))
                + round.mlp.gradient(Array(weight[start + heads ..< start + width]))
            var layerWeight = [Double](repeating: 0, count: logits.count)
            for first in stride(from: 0, to: logits.count, by: width) {
                let sum = (0 ..< width).reduce(0) { $0 + weight[first + $1] * drawn[$1] + logits[first + $1] * within[$1] }
                for index in first ..< first + width { layerWeight[index] = sum }
            }
            for (index, value) in round.entry.gradient(layerWeight).enumerated() { gradient[index] += value }
            for (index, value) in within.enumerated() { gradient[start + index] += value }
        }
        return gradient.map { Float($0) }
    }
}
