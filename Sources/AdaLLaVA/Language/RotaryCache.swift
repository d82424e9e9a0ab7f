import Foundation

/// Cosines and sines of the rotary embedding (Su et al., 2021), computed once a position.
final class RotaryCache: @unchecked Sendable {
    private let rotary: RotaryEmbedding
    private let half: Int
    private var frequencies: RotaryEmbedding.Frequencies?
    private var angles: Angles

    init(_ rotary: RotaryEmbedding, headDim: Int) {
        self.rotary = rotary
        half = headDim / 2
        angles = Angles(cosines: Tensor(rows: 0, columns: half), sines: Tensor(rows: 0, columns: half))
    }

    /// The tables for positions `0 ..< length`. Scalings that depend on the sequence's length (dynamic, longrope) are recomputed when it
    /// changes them, as Hugging Face does; keys that are already cached keep their rotation.
    func angles(through length: Int) -> Angles {
        if let frequencies, length <= angles.cosines.rows, !rotary.dependsOnSequenceLength || frequencies == rotary.frequencies(sequenceLength: length) {
            return angles
        }
        let frequencies = rotary.frequencies(sequenceLength: length)
        self.frequencies = frequencies
        let scaling = frequencies.attentionScaling
        // Room to grow, so that decoding does not rebuild the tables at every token.
        let rows = max(length + length / 2, 256)
        let (cosines, sines) = (Tensor(rows: rows, columns: half), Tensor(rows: rows, columns: half))
        for position in 0 ..< rows {
            for (index, frequency) in frequencies.inverseFrequencies.prefix(half).enumerated() {
                let angle = Float(position) * frequency
                cosines.data[position * cosines.stride + index] = cos(angle) * scaling
                sines.data[position * sines.stride + index] = sin(angle) * scaling
            }
        }
        angles = Angles(cosines: cosines, sines: sines)
        return angles
    }

    struct Angles: Sendable {
        fileprivate let cosines: Tensor
        fileprivate let sines: Tensor

        /// The `headDim / 2` cosines and sines of a position.
        func at(_ position: Int) -> (UnsafePointer<Float>, UnsafePointer<Float>) {
            (UnsafePointer(cosines.data + position * cosines.stride), UnsafePointer(sines.data + position * sines.stride))
        }
    }
}
