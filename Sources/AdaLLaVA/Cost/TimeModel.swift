import Foundation

/// How long steps of one model take on this machine when nothing else runs: a time for each count of ``StepCounts``, fitted by non-negative least squares.
package struct TimeModel: Sendable, Equatable {
    /// Nanoseconds by term.
    package let coefficients: StepCounts
    /// How a chunk's layers differ from the sum of their terms, by its values of hidden states in millions.
    package let chunkCurve: SizeCurve
    /// How a token differs from the sum of its terms, by the weights that its layers read in millions of bytes.
    package let tokenCurve: SizeCurve

    package init(coefficients: StepCounts, chunkCurve: SizeCurve = SizeCurve(), tokenCurve: SizeCurve = SizeCurve()) {
        (self.coefficients, self.chunkCurve, self.tokenCurve) = (coefficients, chunkCurve, tokenCurve)
    }

    /// Nanoseconds of some counts.
    package func nanoseconds(_ counts: StepCounts) -> Double {
        let sum = sum(counts)
        if counts[.chunkLayers] > 0 { return sum * chunkCurve.factor(counts[.chunkValues] / counts[.chunkLayers]) }
        return counts.isToken ? sum * tokenCurve.factor(counts.singleWeights) : sum
    }

    /// Nanoseconds of some counts by their terms alone.
    fileprivate func sum(_ counts: StepCounts) -> Double { (coefficients.values * counts.values).sum() }

    /// Guesses for a machine that was not measured: a few recent cores. The load factor corrects their error from the layers that an answer's own
    /// prompt has passed.
    package static let guess: TimeModel = {
        var c = StepCounts()
        for term in [StepCounts.Term.chunkHeads, .chunkKeyValues, .chunkNeurons] { c[term] = 5000 }
        c[.chunkPairs] = 10_000
        c[.chunkValues] = 1_000_000
        (c[.chunkWeights], c[.chunkLayers], c[.lastLayers]) = (30_000, 10_000, 10_000)
        (c[.singleAttention], c[.singleNeurons], c[.singleKeys], c[.singleLayers]) = (50_000, 50_000, 200_000, 15_000)
        (c[.logits], c[.steps], c[.stepValues], c[.latencyTokens]) = (50_000, 20_000, 500_000, 50_000)
        return TimeModel(coefficients: c)
    }()

    /// A measurement: counts and time.
    package struct Sample: Sendable, Equatable {
        package var counts: StepCounts
        package var nanoseconds: Double

        package init(counts: StepCounts, nanoseconds: Double) { (self.counts, self.nanoseconds) = (counts, nanoseconds) }
    }

    /// Below this time errors count less and less: short steps are a small part of every answer.
    private static let shortStep = 20e3

    /// Fits the times that explain some measurements best; each counts by its relative error, so that a decode's layers weigh as much as a prompt's.
    /// Terms that no measurement holds keep the guess.
    package init(fitting samples: [Sample]) {
        let used = samples.filter { $0.nanoseconds > 0 }
        let names = StepCounts.Term.allCases
        let rows = used.map { sample in names.map { sample.counts[$0] / (sample.nanoseconds + TimeModel.shortStep) } }
        let solved = NonNegativeLeastSquares.solve(rows, used.map { $0.nanoseconds / ($0.nanoseconds + TimeModel.shortStep) })
        var c = StepCounts()
        for (index, term) in names.enumerated() {
            c[term] = used.contains { $0.counts[term] > 0 } ? solved[index] : TimeModel.guess.coefficients[term]
        }
        coefficients = c
        let terms = TimeModel(coefficients: c)
        let ratio = { (sample: Sample) in sample.nanoseconds / terms.sum(sample.counts) }
        chunkCurve = SizeCurve(used.filter { $0.counts[.chunkLayers] == 1 && $0.counts[.steps] == 0 }.map { ($0.counts[.chunkValues], ratio($0)) })
        tokenCurve = SizeCurve(used.filter { $0.counts.isToken }.map { ($0.counts.singleWeights, ratio($0)) })
    }
}

/// Measured times over the sums of their terms, by a size. Neither time is linear in any count, because weights in the caches are read faster than the
/// rest, and a short chunk does not fill the kernels' tiles.
package struct SizeCurve: Sendable, Equatable, Codable {
    /// A measured size, and measured over predicted time.
    package struct Knot: Sendable, Equatable, Codable {
        package let size: Double
        package let factor: Double
    }

    /// In ascending order of size.
    package let knots: [Knot]

    package init() { knots = [] }

    /// Factors beyond this are taken for a disturbed measurement.
    private static let largest = 2.0

    /// - Parameter measured: sizes with measured over predicted times. Of several at one size the median counts.
    fileprivate init(_ measured: [(size: Double, ratio: Double)]) {
        knots = Dictionary(grouping: measured.filter { $0.size > 0 && $0.ratio.isFinite }) { $0.size }.map { size, group in
            let ratios = group.map(\.ratio).sorted(), middle = (ratios[(ratios.count - 1) / 2] + ratios[ratios.count / 2]) / 2
            return Knot(size: size, factor: min(max(middle, 1 / SizeCurve.largest), SizeCurve.largest))
        }.sorted { $0.size < $1.size }
    }

    package var isUsable: Bool {
        knots.allSatisfy { $0.size > 0 && $0.size.isFinite && (1 / SizeCurve.largest ... SizeCurve.largest).contains($0.factor) }
            && zip(knots, knots.dropFirst()).allSatisfy { $0.size < $1.size }
    }

    /// The factor at a size: between two knots linear in the size's logarithm, beyond them the last one's.
    package func factor(_ size: Double) -> Double {
        guard let next = knots.firstIndex(where: { $0.size >= size }) else { return knots.last?.factor ?? 1 }
        if next == 0 { return knots[0].factor }
        let (low, high) = (knots[next - 1], knots[next])
        let share = Foundation.log(size / low.size) / Foundation.log(high.size / low.size)
        return low.factor + (high.factor - low.factor) * share
    }
}

/// The time of a plan in each phase, linear in rows and keys, which are not known yet.
package struct PlanTimes: Sendable {
    /// Nanoseconds of a range of layers for a chunk: for the chunk, a row, a pair of query and key in layers of each kind.
    private let chunk, row: Double
    private let pair: [DecoderLayerKind: Double]
    /// Of the layer in which only rows that are read go on, and the layers after it: for a chunk, a row, and the last chunk with so many keys.
    private let lastChunk, lastRow, lastOutput: Double
    private let lastKey: [DecoderLayerKind: Double]
    /// Nanoseconds of all layers for a single row: for the row, and for each key in layers of each kind.
    private let token: Double
    private let key: [DecoderLayerKind: Double]
    /// The same for a key, of the layers from which on image tokens are dropped.
    private let lateKey: [DecoderLayerKind: Double]
    private let logits, step, stepRow: Double
    private let counter: StepCounter
    private let curve: SizeCurve
    private let tokenFactor: Double

    /// - Parameters:
    ///   - layers: those that the prompt's chunks pass.
    ///   - dropsRows: whether no later stage reads the chunks' hidden states, so that one row leaves the last layer that attends.
    ///   - dropLayer: the layer from which on image tokens may be dropped.
    package init(_ plan: CostPlan, layers: Range<Int>, dropsRows: Bool, dropLayer: Int? = nil, _ model: TimeModel, _ counter: StepCounter) {
        (self.counter, curve) = (counter, model.chunkCurve)
        let last = dropsRows ? layers.last { plan.shares[$0].runsMixer } ?? layers.lowerBound : Int.max
        var chunk = 0.0, row = 0.0, lastChunk = 0.0, lastRow = 0.0, lastOutput = 0.0
        var pair: [DecoderLayerKind: Double] = [:], lastKey: [DecoderLayerKind: Double] = [:]
        let time = { model.sum(counter.chunk($0, rows: $1, outputs: $2, pairs: $3)) }
        for layer in layers {
            let share = plan.shares[layer]
            if share.isSkipped { continue }
            if layer < last {
                let none = time(share, 0, 0, 0), one = time(share, 1, 1, 0)
                // A chunk without rows runs nothing of an MLP; its constant is the time of one row minus the time per row.
                let two = time(share, 2, 2, 0)
                chunk += max(2 * one - two, 0)
                row += two - one
                pair[share.kind, default: 0] += time(share, 0, 0, 1) - none
            } else if layer == last {
                let none = time(share, 1, 0, 0)
                lastRow += time(share, 2, 0, 0) - none
                lastChunk += 2 * none - time(share, 2, 0, 0)
                lastOutput += time(share, 2, 1, 0) - time(share, 2, 0, 0)
                lastKey[share.kind, default: 0] += time(share, 2, 1, 1) - time(share, 2, 1, 0)
            } else {
                lastOutput += time(share, 1, 1, 0)
            }
        }
        (self.chunk, self.row, self.pair) = (chunk, row, pair)
        (self.lastChunk, self.lastRow, self.lastOutput, self.lastKey) = (lastChunk, lastRow, lastOutput, lastKey)
        var token = 0.0, key: [DecoderLayerKind: Double] = [:], lateKey: [DecoderLayerKind: Double] = [:]
        for (layer, share) in plan.shares.enumerated() where !share.isSkipped {
            let none = model.nanoseconds(counter.single(share, keys: 0)), one = model.nanoseconds(counter.single(share, keys: 1)) - none
            token += none
            key[share.kind, default: 0] += one
            if layer >= dropLayer ?? .max { lateKey[share.kind, default: 0] += one }
        }
        (self.token, self.key, self.lateKey) = (token, key, lateKey)
        let read = plan.shares.reduce(StepCounts()) { $1.isSkipped ? $0 : $0 + counter.single($1, keys: 0) }
        tokenFactor = model.tokenCurve.factor(read.singleWeights)
        step = model.nanoseconds(counter.step(logitRows: 0))
        logits = model.nanoseconds(counter.step(logitRows: 1)) - step
        stepRow = model.nanoseconds(counter.step(logitRows: 0, chunkRows: 1)) - step
    }

    /// Nanoseconds of a prompt's rows through the layers, in chunks.
    /// - Parameters:
    ///   - rows: those that are computed.
    ///   - isEnd: whether the last of them gives logits.
    package func prefill(_ rows: Range<Int>, chunk size: Int, isEnd: Bool) -> Double {
        if rows.isEmpty { return 0 }
        var time = 0.0
        for start in stride(from: rows.lowerBound, to: rows.upperBound, by: size) {
            let part = start ..< min(start + size, rows.upperBound), count = Double(part.count)
            let pairs = pair.reduce(0) { $0 + counter.pairs(part, $1.key) * $1.value }
            time += (chunk + count * row + pairs) * curve.factor(counter.values(rows: count))
            time += lastChunk + step + count * (lastRow + stepRow)
        }
        if isEnd { time += lastOutput + keys(rows.upperBound - 1, lastKey) + logits }
        return time
    }

    /// Nanoseconds of one token at a slot, all layers and the logits.
    /// - Parameter dropped: image tokens that later layers do not have.
    package func token(at slot: Int, dropped: Int = 0) -> Double {
        let left = dropped > 0 ? keys(slot, lateKey) - keys(slot - dropped, lateKey) : 0
        return (token + keys(slot, key) - left + logits + step) * tokenFactor
    }

    /// Nanoseconds of the keys that a row at `slot` sees.
    private func keys(_ slot: Int, _ times: [DecoderLayerKind: Double]) -> Double {
        times.reduce(0) { $0 + counter.keys(slot, $1.key) * $1.value }
    }

    /// Nanoseconds of `count` tokens from a slot on.
    /// - Parameter dropped: image tokens that later layers do not have.
    package func tokens(_ count: Int, from slot: Int, dropped: Int = 0) -> Double {
        if count <= 0 { return 0 }
        func pairs(_ slot: Int, _ times: [DecoderLayerKind: Double]) -> Double {
            times.reduce(0) { $0 + counter.pairs(slot ..< slot + count, $1.key) * $1.value }
        }
        let left = dropped > 0 ? pairs(slot, lateKey) - pairs(slot - dropped, lateKey) : 0
        return (Double(count) * (token + logits + step) + pairs(slot, key) - left) * tokenFactor
    }
}
