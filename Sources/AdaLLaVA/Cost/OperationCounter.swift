/// Makes the operations of ``ExactFormula`` from their sizes.
struct OperationCounter: Sendable {
    let hardware: Hardware
    let settings: CostSettings

    /// The arithmetic that an operation runs in.
    enum Arithmetic {
        /// Weights times activations: 8-bit integers if both have at most 8 bits.
        case linear
        /// Activations times keys or values.
        case attention
        /// Floats, value by value.
        case vector
    }

    private func peak(_ arithmetic: Arithmetic) -> Double {
        let float = settings.activationBits > 16 ? hardware.fp32 ?? hardware.fp16 : hardware.fp16
        guard settings.activationBits <= 8 else { return float }
        return switch arithmetic {
        case .linear where settings.weightBits <= 8: hardware.int8 ?? float
        case .attention where settings.cacheBits <= 8: hardware.int8 ?? float
        default: float
        }
    }

    func operation(
        _ name: String, _ operations: Double, _ traffic: RooflineOperation.Traffic, _ arithmetic: Arithmetic
    ) -> RooflineOperation {
        RooflineOperation(name: name, operations: operations, traffic: traffic, peak: peak(arithmetic), bandwidth: hardware.bandwidth)
    }

    /// A linear map of `rows` vectors.
    /// - Parameters:
    ///   - stores: the outputs are keys or values and go to the cache.
    ///   - hasBias: a value is added to each output.
    func linear(
        _ name: String, inputs: Double, outputs: Double, rows: Double, stores: Bool = false, hasBias: Bool = false
    ) -> RooflineOperation {
        let biases = hasBias ? outputs : 0
        return operation(
            name, 2 * inputs * outputs * rows + biases * rows,
            .init(
                loadWeight: inputs * outputs * settings.weightBytes + biases * settings.weightBytes, loadActivation: inputs * rows * settings.activationBytes,
                storeActivation: stores ? 0 : outputs * rows * settings.activationBytes,
                storeKeyValue: stores ? outputs * rows * settings.keyValueBytes : 0), .linear)
    }

    /// A function of each value.
    /// - Parameters:
    ///   - inputs: arrays of that many values that are read.
    ///   - parameters: weights that are read once.
    func elementwise(
        _ name: String, values: Double, operations perValue: Double, inputs: Double = 1, parameters: Double = 0
    ) -> RooflineOperation {
        operation(
            name, values * perValue,
            .init(
                loadWeight: parameters * settings.weightBytes, loadActivation: inputs * values * settings.activationBytes,
                storeActivation: values * settings.activationBytes), .vector)
    }

    /// Attention of `heads` heads: as three operations whose scores pass through memory, or fused (FlashAttention-2, Dao, 2023), where a
    /// block of queries stays on the chip and all keys and values pass by it.
    /// - Parameters:
    ///   - queries: of one sequence.
    ///   - pairs: of a query and a key that it may see, for one head of one sequence.
    ///   - cached: keys and values come from the KV cache; otherwise they are activations.
    func attention(
        heads: Double, keyValueHeads: Double, headDim: Double, queries: Double, pairs: Double, keys: Double, sequences: Double,
        cached: Bool = true
    ) -> [RooflineOperation] {
        let product = 2 * pairs * headDim * heads * sequences
        let scores = pairs * heads * sequences
        let queryBytes = queries * headDim * heads * sequences * settings.activationBytes
        let scoreBytes = scores * settings.activationBytes
        let bytesOfKeys = keys * headDim * keyValueHeads * sequences * (cached ? settings.keyValueBytes : settings.activationBytes)
        func traffic(load: Double, store: Double, keys: Double) -> RooflineOperation.Traffic {
            .init(loadActivation: load + (cached ? 0 : keys), storeActivation: store, loadKeyValue: cached ? keys : 0)
        }
        if settings.flashAttention {
            // Blocks of queries, keys, values and outputs share the on-chip memory.
            let rows = max(1, (hardware.onChipBuffer / (4 * headDim * settings.activationBytes)).rounded(.down))
            let blocks = (queries / rows).rounded(.up)
            return [
                operation(
                    "fused_attention", 2 * product + 5 * scores,
                    traffic(load: queryBytes, store: queryBytes, keys: 2 * blocks * bytesOfKeys), .attention)
            ]
        }
        return [
            operation("qk_matmul", product, traffic(load: queryBytes, store: scoreBytes, keys: bytesOfKeys), .attention),
            operation("softmax", 5 * scores, traffic(load: scoreBytes, store: scoreBytes, keys: 0), .vector),
            operation("sv_matmul", product, traffic(load: scoreBytes, store: queryBytes, keys: bytesOfKeys), .attention),
        ]
    }
}
