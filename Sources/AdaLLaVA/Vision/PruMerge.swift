import Foundation

/// PruMerge and PruMerge+ (Shang et al., 2024), as the reference computes them.
enum PruMerge {
    /// Patches merged into each kept one, at most.
    static let neighbours = 32

    struct Result {
        /// Kept patches: outliers by falling attention, then the evenly spaced ones.
        let kept: [Int]
        /// `[kept + 1, hidden]`: the kept patches with their neighbours merged in, then one token for all that was pruned.
        let merged: Tensor
    }

    /// Attention of the class token to the patches: softmax over all positions of `q · k / sqrt(hidden)`, class position left out.
    static func classAttention(query: Tensor, key: Tensor) -> [Float] {
        let scale = 1 / Double(query.columns).squareRoot()
        let scores = (0 ..< key.rows).map { position in
            dot(query.data, key.data + position * key.stride, query.columns) * scale
        }
        let largest = scores.max() ?? 0
        let exponentials = scores.map { exp($0 - largest) }
        let total = exponentials.reduce(0, +)
        return exponentials.dropFirst().map { Float($0 / total) }
    }

    /// Summed in double precision: which patches stay must not depend on the order of a sum.
    private static func dot(_ x: UnsafePointer<Float>, _ y: UnsafePointer<Float>, _ count: Int) -> Double {
        var sum = 0.0
        for index in 0 ..< count { sum += Double(x[index]) * Double(y[index]) }
        return sum
    }

    /// The fraction of values above `Q3 + 1.5 (Q3 − Q1)`, over all images of a batch; percentiles interpolate linearly.
    static func outlierRatio(_ attention: [Float]) -> Double {
        if attention.isEmpty { return 0 }
        let sorted = attention.sorted()
        func percentile(_ fraction: Double) -> Float {
            let position = fraction * Double(sorted.count - 1)
            let (low, weight) = (Int(position), position - position.rounded(.down))
            let high = min(low + 1, sorted.count - 1)
            return Float(Double(sorted[low]) + (Double(sorted[high]) - Double(sorted[low])) * weight)
        }
        let (first, third) = (percentile(0.25), percentile(0.75))
        let bound = third + 1.5 * (third - first)
        return Double(attention.count(where: { $0 > bound })) / Double(attention.count)
    }

    /// The patches that stay: the first `int(patches * ratio)` by attention, and for `plus` the positions 0, s, 2s … below `patches − 1`.
    static func keptIndices(_ attention: [Float], ratio: Double, plus: Bool) -> [Int] {
        let top = Int(Double(attention.count) * ratio)
        var kept = Array(attention.indices.sorted { attention[$0] != attention[$1] ? attention[$0] > attention[$1] : $0 < $1 }.prefix(top))
        guard plus else { return kept }
        // No patch is an outlier: the reference divides by zero here. All patches are equal, so all stay.
        if ratio <= 0 { return Array(attention.indices) }
        let step = max(1, Int(1 / ratio) / 3)
        let chosen = Set(kept)
        kept += stride(from: 0, to: attention.count - 1, by: step).filter { !chosen.contains($0) }
        return kept
    }

    /// Prunes and merges one image's patches.
    /// - Parameters:
    ///   - features: `[patches, hidden]`.
    ///   - key: raw key projections of the last layer, `[patches + 1, hidden]`.
    ///   - ratio: fraction of outlier patches; measured on this image if `nil`.
    ///   - pool: computes the kept patches.
    ///   - progress: called with the kept patches that are done and all of them.
    /// - Throws: `CancellationError` within a few dozen patches.
    static func merge(
        features: Tensor, key: Tensor, attention: [Float], ratio: Double? = nil, plus: Bool, _ pool: ThreadPool,
        _ cancellation: Cancellation = Cancellation(), progress: (Int, Int) -> Void = { _, _ in }
    ) throws -> Result {
        let kept = keptIndices(attention, ratio: ratio ?? outlierRatio(attention), plus: plus)
        let patches = features.rows
        let keys = key.rows(1 ..< key.rows)
        let norms = (0 ..< patches).map { patch in
            let row = keys.data + patch * keys.stride
            return max(dot(row, row, keys.columns).squareRoot(), 1e-12)
        }
        let merged = Tensor(rows: kept.count + 1, columns: features.columns)
        let together = 8 * pool.threads
        for first in stride(from: 0, to: kept.count, by: together) {
            try cancellation.check()
            progress(first, kept.count)
            pool.run(min(together, kept.count - first)) { item, _ in
                let (row, index) = (first + item, kept[first + item])
                var sum = weightedSum(nearest(to: index, keys, norms), features, attention)
                for column in 0 ..< features.columns { sum[column] += Double(features.data[index * features.stride + column]) }
                merged.set(row: row, to: sum.lazy.map(Float.init))
            }
        }
        let chosen = Set(kept)
        let rest = weightedSum((0 ..< patches).filter { !chosen.contains($0) }, features, attention)
        merged.set(row: kept.count, to: rest.lazy.map(Float.init))
        return Result(kept: kept, merged: merged)
    }

    /// The patches whose keys are most like one's own, the nearest first; the first index wins a tie.
    private static func nearest(to index: Int, _ keys: Tensor, _ norms: [Double]) -> [Int] {
        let similarity = norms.indices.map { other in
            dot(keys.data + index * keys.stride, keys.data + other * keys.stride, keys.columns) / norms[other]
        }
        func comesFirst(_ a: Int, _ b: Int) -> Bool { similarity[a] != similarity[b] ? similarity[a] > similarity[b] : a < b }
        // The best so far, sorted: nearly every other patch is turned away by one comparison.
        var best: [Int] = []
        for other in norms.indices where other != index {
            if best.count == neighbours, let last = best.last, !comesFirst(other, last) { continue }
            if best.count == neighbours { best.removeLast() }
            best.insert(other, at: best.firstIndex { comesFirst(other, $0) } ?? best.count)
        }
        return best
    }

    private static func weightedSum(_ indices: some Sequence<Int>, _ features: Tensor, _ weights: [Float]) -> [Double] {
        var sum = [Double](repeating: 0, count: features.columns)
        for index in indices {
            let row = features.data + index * features.stride
            for column in 0 ..< features.columns { sum[column] += Double(row[column]) * Double(weights[index]) }
        }
        return sum
    }
}
