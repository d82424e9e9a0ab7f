import Foundation

/// Cosines and sines of one position, `rotaryDim / 2` values each.
struct RowAngles: BitwiseCopyable {
    let cosines, sines: UnsafePointer<Float>
}

/// A row's position by each axis of a multi-axis rotary embedding; of text all are the same.
package struct RowPosition: Equatable, Sendable {
    let time, height, width: Int

    init(time: Int, height: Int, width: Int) { (self.time, self.height, self.width) = (time, height, width) }
    init(_ position: Int) { self.init(time: position, height: position, width: position) }

    subscript(axis: Int) -> Int { axis == 0 ? time : axis == 1 ? height : width }
    var largest: Int { max(time, height, width) }
}

/// Position of a row in its sequence: its rotary angles and its slot in the cache.
struct RowPlace: BitwiseCopyable {
    let angles: RowAngles
    /// Angles in layers with a window, where those differ (Gemma 3).
    let local: RowAngles
    let slot: Int
}

/// Cosines and sines of the rotary embedding (Su et al., 2021).
///
/// Scalings that depend on a sequence's length (dynamic, longrope) have one set of frequencies for a whole prompt, taken from its length, and another for
/// each token after it, as Hugging Face has it; keys that are already cached keep their rotation.
final class RotaryTable {
    private let rotary: RotaryEmbedding
    private let half: Int
    /// The angles of scalings that do not depend on the length, grown by half at a time.
    private var table: Angles

    init(_ rotary: RotaryEmbedding, rotaryDim: Int) {
        self.rotary = rotary
        half = rotaryDim / 2
        table = Angles(cosines: Tensor(rows: 0, columns: half), sines: Tensor(rows: 0, columns: half), first: 0)
    }

    /// Angles of some positions.
    struct Angles {
        fileprivate let cosines, sines: Tensor
        fileprivate let first: Int

        /// Of one position; valid as long as these angles are.
        func row(_ position: Int) -> RowAngles {
            let row = position - first
            return RowAngles(cosines: UnsafePointer(cosines.data + row * cosines.stride), sines: UnsafePointer(sines.data + row * sines.stride))
        }
    }

    /// The angles of `positions`.
    /// - Parameter length: of the prompt that they belong to, or through the token itself, on which scalings depend.
    func angles(_ positions: Range<Int>, length: Int) -> Angles {
        if rotary.dependsOnSequenceLength { return make(positions, rotary.frequencies(sequenceLength: length)) }
        if positions.upperBound > table.cosines.rows {
            let rows = max(positions.upperBound + positions.upperBound / 2, 256)
            table = make(0 ..< rows, rotary.frequencies(sequenceLength: rows))
        }
        return table
    }

    /// Angles of rows by several axes, row 0 those of the first: the pairs of each section are turned by the next axis (Qwen2-VL).
    /// - Parameters:
    ///   - sections: pairs of each, which together are all pairs.
    ///   - length: as above.
    func angles(_ rows: [RowPosition], sections: [Int], length: Int) -> Angles {
        let all = angles(0 ..< (rows.map(\.largest).max() ?? 0) + 1, length: length)
        let (cosines, sines) = (Tensor(rows: rows.count, columns: half), Tensor(rows: rows.count, columns: half))
        for (row, position) in rows.enumerated() {
            var pair = 0
            for (section, count) in sections.enumerated() {
                let source = all.row(position[section % 3])
                for index in pair ..< min(pair + count, half) {
                    cosines.data[row * cosines.stride + index] = source.cosines[index]
                    sines.data[row * sines.stride + index] = source.sines[index]
                }
                pair += count
            }
        }
        return Angles(cosines: cosines, sines: sines, first: 0)
    }

    private func make(_ positions: Range<Int>, _ frequencies: RotaryEmbedding.Frequencies) -> Angles {
        let (cosines, sines) = (Tensor(rows: positions.count, columns: half), Tensor(rows: positions.count, columns: half))
        let scaling = frequencies.attentionScaling
        for (row, position) in positions.enumerated() {
            for (index, frequency) in frequencies.inverseFrequencies.prefix(half).enumerated() {
                let angle = Float(position) * frequency
                cosines.data[row * cosines.stride + index] = cos(angle) * scaling
                sines.data[row * sines.stride + index] = sin(angle) * scaling
            }
        }
        return Angles(cosines: cosines, sines: sines, first: positions.lowerBound)
    }
}
