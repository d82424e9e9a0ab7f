import AdaLLaVA
import ArgumentParser

/// Decoders whose shapes are measured.
enum ModelShape: String, CaseIterable, ExpressibleByArgument {
    case smollm2 = "smollm2-135m"
    case billion = "1b"
    case billionGrouped = "1b-gqa"
    case llava7b = "llava-7b"

    var configuration: DecoderConfiguration {
        switch self {
        case .smollm2:
            DecoderConfiguration(
                vocabularySize: 49152, hiddenSize: 576, intermediateSize: 1536, numHiddenLayers: 30, numAttentionHeads: 9, numKeyValueHeads: 3,
                ropeInterleaved: true, maxPositionEmbeddings: 8192, tieWordEmbeddings: true)
        case .billion, .billionGrouped:
            DecoderConfiguration(
                vocabularySize: 32000, hiddenSize: 2048, intermediateSize: 5632, numHiddenLayers: 22, numAttentionHeads: 32,
                numKeyValueHeads: self == .billion ? 32 : 4, ropeInterleaved: true, maxPositionEmbeddings: 4096)
        case .llava7b:
            DecoderConfiguration(
                vocabularySize: 32000, hiddenSize: 4096, intermediateSize: 11008, numHiddenLayers: 32, numAttentionHeads: 32,
                ropeInterleaved: true, maxPositionEmbeddings: 4096)
        }
    }
}

extension DecoderConfiguration {
    /// The weights of a decoder's matrices that one token reads under a plan: kept heads and neurons, and the output layer.
    func weightsRead(_ plan: ExecutionPlan) -> Int {
        let perKeyValueHead = numAttentionHeads / numKeyValueHeads
        return plan.rows.reduce(vocabularySize * hiddenSize) { sum, row in
            let keyValueHeads = Set(row.heads.map { $0 / perKeyValueHead }).count
            let neurons = row.groups.reduce(0) {
                $0 + SwitchSpace.neurons(group: $1, of: numAttentionHeads, intermediateSize: intermediateSize).count
            }
            return sum + hiddenSize * (2 * headDim * (row.heads.count + keyValueHeads) + 3 * neurons)
        }
    }
}
