import AdaKernels
import Testing

@testable import AdaLLaVA
@testable import AdaProbes

/// Feed-forward networks whose middle is made piece by piece, against the same products one after the other.
@Suite struct FeedForwardTests {
    private struct Network {
        let workspace: Workspace
        let gate, up, down: Linear
        let x: Tensor
        let hidden: Int, neurons: Int

        init(kernels: String, type: ElementType, hidden: Int, neurons: Int, rows: Int, hasBias: Bool = true, precision: Precision = .automatic) throws {
            var random = SplitMix64(seed: UInt64(neurons))
            workspace = try Workspace(threads: 2, precision: precision, kernels: kernels)
            let packer = WeightPacker(kernels: workspace.kernels, pool: workspace.pool)
            (self.hidden, self.neurons) = (hidden, neurons)
            func linear(_ rows: Int, _ inputs: Int, hasBias: Bool) throws -> Linear {
                let rowBytes = try #require(type.bytes(for: inputs))
                var bytes: [UInt8] = []
                RandomWeights(type, deviation: 0.1, &random).read(rows * rowBytes, &random) { bytes.append(contentsOf: $0) }
                let file = MappedFile(copying: bytes, path: "made-up weights")
                let stored = StoredTensor(name: "weights", type: type, shape: [rows, inputs], bytes: file.bytes, file: file)
                let bias = Tensor(rows: 1, columns: (rows + 15) / 16 * 16)
                bias.set(row: 0, to: (0 ..< rows).map { _ in Float(random.unit()) })
                let weight = try WeightMatrix(stored, rows: rows, inputs: inputs, isAlwaysBatched: precision == .q8, packer: packer)
                return Linear(weight: weight, bias: hasBias ? bias : nil)
            }
            gate = try linear(neurons, hidden, hasBias: hasBias)
            up = try linear(neurons, hidden, hasBias: false)
            down = try linear(hidden, neurons, hasBias: true)
            x = Tensor(rows: rows, columns: hidden)
            for row in 0 ..< rows { x.set(row: row, to: (0 ..< hidden).map { _ in Float(random.unit() * 2 - 1) }) }
        }

        /// What results are added to.
        func start() -> Tensor {
            let result = Tensor(rows: x.rows, columns: hidden)
            for row in 0 ..< x.rows { result.set(row: row, to: (0 ..< hidden).map { Float($0 + row) / 100 }) }
            return result
        }

        /// Whether a chunk's middle is made piece by piece.
        func makesPieces(gated: Bool, picksPanels: Bool) -> Bool {
            workspace.makesFeedForwardInPieces((gated ? [gate, up] : [gate]).map(\.weight), down: down.weight, picksPanels: picksPanels)
        }

        /// What is added to, and the result of the products in pieces or one after the other.
        func run(
            gated: Bool, panels: [Int32]? = nil, blocks: [Int32]? = nil, dropped: [Range<Int>] = [], inPieces: Bool, role: RowRole = .chunk
        ) -> [Float] {
            let outputs = (0 ..< 2).map { _ in Tensor(rows: x.rows, columns: neurons) }
            let result = start()
            let list = panels.map { IndexList($0) }
            let first = Product(linear: gate, output: outputs[0], panels: list), second = Product(linear: up, output: outputs[1], panels: list)
            let last = Product(linear: down, output: result, blocks: blocks.map { IndexList($0) }, accumulate: true)
            let gelu: ActivationFunction = workspace.kernels.table.gelu_quick
            if inPieces {
                workspace.multiplyFeedForward(x, gated ? [first, second] : [first], activation: gelu, down: last, dropped: dropped)
                return result.values
            }
            let activations = workspace.convert(x, for: gate.weight, RowsByRole(x.rows, role), workspace.inputs)
            ProductRun(gated ? [first, second] : [first], combining: gated ? .gated(.silu) : .activation(gelu), workspace)(activations)
            outputs[0].clear(columns: dropped)
            workspace.multiply(outputs[0], role: role, [last])
            return result.values
        }

        /// The network as a layer has it, all rows in one role.
        func asLayer(_ role: RowRole) -> [Float] {
            let result = start()
            let c = DecoderConfiguration(
                vocabularySize: 8, hiddenSize: hidden, intermediateSize: neurons, numHiddenLayers: 1, numAttentionHeads: 1)
            let group = RowGroup(role: role, selection: LayerSelection(whole: c), rows: 0 ..< x.rows, outputs: 0 ..< x.rows)
            let mlp = MLP.gated(GatedMLP(gate: gate, up: up, down: down, function: .silu))
            MLP.Prepared(mlp, input: x, norm: nil, adding: result, [group], next: Prefetches(), workspace)(workspace)
            return result.values
        }
    }

    // A failure means that long prompts, or images, are read otherwise than the layers say: that a piece of the middle lands in the wrong columns, or that
    // what a plan leaves out is not zero.
    @Test("pieces give what whole tensors give", arguments: kernelSets, [ElementType.bf16, .f16, .q8_0])
    func piecesGiveWhatWholeTensorsGive(kernels: String, type: ElementType) throws {
        let shapes = [(96, 320, 40, true), (96, 320, 40, false), (64, 96, 600, false), (96, 1536, 33, true), (32, 160, 67, false), (6176, 96, 24, false)]
        for (hidden, neurons, rows, hasBias) in shapes {
            let network = try Network(kernels: kernels, type: type, hidden: hidden, neurons: neurons, rows: rows, hasBias: hasBias)
            let converts = network.workspace.kernels.activationType(network.down.weight, .chunk) != AK_F32
            for gated in [true, false] {
                // All neurons; then without a panel, a block and some neurons inside a panel.
                let cut: [(panels: [Int32]?, blocks: [Int32]?, dropped: [Range<Int>])] = [
                    (nil, nil, []), ([0, 2, 3, 5], [0, 1, 2], [16 ..< 32, 37 ..< 41, 64 ..< 80]),
                ]
                for (panels, blocks, dropped) in cut {
                    #expect(network.makesPieces(gated: gated, picksPanels: panels != nil) == converts)
                    if !converts { continue }
                    let found = network.run(gated: gated, panels: panels, blocks: blocks, dropped: dropped, inPieces: true)
                    let expected = network.run(gated: gated, panels: panels, blocks: blocks, dropped: dropped, inPieces: false)
                    #expect(found == expected, "\(hidden) \(neurons) \(rows) \(gated)")
                    #expect(found.contains { $0 != 0 } && found.allSatisfy(\.isFinite))
                }
            }
        }
    }

    // A failure means that an image tower in 8 bits sees another image: a piece of the middle takes the scale of another, or shares a group with one.
    @Test("towers in 8 bits", arguments: kernelSets)
    func towersInEightBits(kernels: String) throws {
        for (hidden, neurons, rows) in [(128, 320, 40), (64, 1088, 33), (320, 256, 90), (1280, 64, 25), (96, 512, 30), (128, 288, 30)] {
            let network = try Network(kernels: kernels, type: .f32, hidden: hidden, neurons: neurons, rows: rows, precision: .q8)
            let exact = try Network(kernels: kernels, type: .f32, hidden: hidden, neurons: neurons, rows: rows, precision: .f32)
            for gated in [true, false] {
                #expect(network.makesPieces(gated: gated, picksPanels: false))
                let found = network.run(gated: gated, inPieces: true)
                #expect(found == network.run(gated: gated, inPieces: false), "\(hidden) \(neurons) \(rows)")
                let expected = exact.run(gated: gated, inPieces: false)
                let largest = expected.reduce(0) { max($0, abs($1)) }
                #expect(largestDifference(found, expected) < 0.04 * largest, "\(hidden) \(neurons) \(rows)")
            }
        }
    }

    // A failure means that neurons that do not fill a block of 32 bring in what lay in memory before.
    @Test("neurons that do not fill a block", arguments: kernelSets)
    func neuronsThatDoNotFillABlock(kernels: String) throws {
        for neurons in [40, 80, 33] {
            let network = try Network(kernels: kernels, type: .bf16, hidden: 64, neurons: neurons, rows: 25)
            // Twice, for the second finds other values in the buffers' memory.
            for gated in [true, false] where network.makesPieces(gated: gated, picksPanels: false) {
                #expect(network.run(gated: gated, inPieces: true) == network.run(gated: gated, inPieces: false))
            }
        }
    }

    // A failure means that single rows, whose weights come from memory, wait for pieces that are not worth it, or that a row's arithmetic follows how many
    // there are instead of its role.
    @Test("roles decide and not rows", arguments: kernelSets, [ElementType.bf16, .q8_0]) func rolesDecideAndNotRows(kernels: String, type: ElementType) throws {
        for rows in [1, 3, 40] {
            let network = try Network(kernels: kernels, type: type, hidden: 64, neurons: 96, rows: rows, hasBias: false)
            #expect(network.asLayer(.single) == network.run(gated: true, inPieces: false, role: .single), "\(rows)")
            #expect(network.asLayer(.chunk) == network.run(gated: true, inPieces: false, role: .chunk), "\(rows)")
        }
    }
}
