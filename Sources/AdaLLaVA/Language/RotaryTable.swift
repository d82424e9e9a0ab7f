import Foundation

/// Cosines and sines of one position, `rotaryDim / 2` values each.
struct RowAngles: BitwiseCopyable {
    let cosines, sines: UnsafePointer<Float>
}

/// Where a row of a batch stands in its sequence: its rotary angles and its slot in the cache.
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
    /// - Parameter length: of the prompt that they belong to, or through the token itself; what scalings depend on.
    func angles(_ positions: Range<Int>, length: Int) -> Angles {
        if rotary.dependsOnSequenceLength { return make(positions, rotary.frequencies(sequenceLength: length)) }
        if positions.upperBound > table.cosines.rows {
            let rows = max(positions.upperBound + positions.upperBound / 2, 256)
            table = make(0 ..< rows, rotary.frequencies(sequenceLength: rows))
        }
        return table
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
