import AdaKernels
import Testing

@testable import AdaLLaVA

/// Feed-forward networks whose middle is made piece by piece, against the same products one after the other.
@Suite struct FeedForwardTests {
    private struct Network {
        let backend: Backend
        let gate, up, down: Linear
        let x: Tensor
        let hidden: Int, neurons: Int

        init(kernels: String, type: ElementType, hidden: Int, neurons: Int, rows: Int, hasBias: Bool = true, precision: Precision = .automatic) throws {
            var random = SplitMix64(seed: UInt64(neurons))
            backend = try Backend(threads: 2, precision: precision, kernels: kernels)
            (self.hidden, self.neurons) = (hidden, neurons)
            func linear(_ rows: Int, _ inputs: Int, _ backend: Backend, hasBias: Bool) throws -> Linear {
                let rowBytes = try #require(type.bytes(for: inputs))
                var bytes: [UInt8] = []
                RandomWeights(type, deviation: 0.1, &random).read(rows * rowBytes, &random) { bytes.append(contentsOf: $0) }
                let file = MappedFile(copying: bytes, path: "made-up weights")
                let stored = StoredTensor(name: "weights", type: type, shape: [rows, inputs], bytes: file.bytes, file: file)
                let bias = Tensor(rows: 1, columns: (rows + 15) / 16 * 16)
                bias.set(row: 0, to: (0 ..< rows).map { _ in Float(random.unit()) })
                let weight = try WeightMatrix(stored, rows: rows, inputs: inputs, meetsManyRows: precision == .q8, backend: backend)
                return Linear(weight: weight, bias: hasBias ? bias : nil)
            }
            gate = try linear(neurons, hidden, backend, hasBias: hasBias)
            up = try linear(neurons, hidden, backend, hasBias: false)
            down = try linear(hidden, neurons, backend, hasBias: true)
            x = Tensor(rows: rows, columns: hidden)
            for row in 0 ..< rows { x.set(row: row, to: (0 ..< hidden).map { _ in Float(random.unit() * 2 - 1) }) }
        }

        /// What is added to, and the result of the products in pieces (`nil` if they are not made so) or one after the other.
        func run(gated: Bool, panels: [Int32]?, blocks: [Int32]?, dropped: [Range<Int>], inPieces: Bool) -> [Float]? {
            let (buffer, middle) = (ActivationBuffer(), ActivationBuffer())
            let outputs = (0 ..< 2).map { _ in Tensor(rows: x.rows, columns: neurons) }
            let result = Tensor(rows: x.rows, columns: hidden)
            for row in 0 ..< x.rows { result.set(row: row, to: (0 ..< hidden).map { Float($0 + row) / 100 }) }
            let list = panels.map { IndexList($0) }
            let first = Product(linear: gate, output: outputs[0], panels: list), second = Product(linear: up, output: outputs[1], panels: list)
            let last = Product(linear: down, output: result, blocks: blocks.map { IndexList($0) }, accumulate: true)
            let kernels = backend.kernels
            if inPieces {
                let done = backend.multiplyFeedForward(
                    x, gated ? [first, second] : [first], activation: kernels.gelu_quick, down: last, dropped: dropped, buffer, middle: middle)
                return done ? result.values : nil
            }
            if gated {
                backend.multiplyGated(x, gate: first, up: second, buffer)
            } else {
                backend.multiply(x, [first], buffer)
                kernels.gelu_quick(outputs[0].data, x.rows * outputs[0].stride)
            }
            outputs[0].clear(columns: dropped)
            backend.multiply(outputs[0], [last], buffer)
            return result.values
        }
    }

    // A failure means that long prompts, or images, are read otherwise than the layers say: that a piece of the middle lands in the wrong columns, or that
    // what a plan leaves out is not zero.
    @Test(arguments: Backend.availableKernels, [ElementType.bf16, .f16, .q8_0])
    func piecesGiveWhatWholeTensorsGive(kernels: String, type: ElementType) throws {
        let shapes = [(96, 320, 40, true), (96, 320, 40, false), (64, 96, 600, false), (96, 1536, 33, true), (32, 160, 67, false), (6176, 96, 24, false)]
        for (hidden, neurons, rows, hasBias) in shapes {
            let network = try Network(kernels: kernels, type: type, hidden: hidden, neurons: neurons, rows: rows, hasBias: hasBias)
            let converts = network.down.weight.activationType(network.backend, rows: rows) != AK_F32
            for gated in [true, false] {
                // All neurons; then without a panel, a block and some neurons inside a panel.
                let cut: [(panels: [Int32]?, blocks: [Int32]?, dropped: [Range<Int>])] = [
                    (nil, nil, []), ([0, 2, 3, 5], [0, 1, 2], [16 ..< 32, 37 ..< 41, 64 ..< 80]),
                ]
                for (panels, blocks, dropped) in cut {
                    let found = network.run(gated: gated, panels: panels, blocks: blocks, dropped: dropped, inPieces: true)
                    #expect((found != nil) == converts)
                    guard let found else { continue }
                    let expected = network.run(gated: gated, panels: panels, blocks: blocks, dropped: dropped, inPieces: false)
                    #expect(found == expected, "\(hidden) \(neurons) \(rows) \(gated)")
                    #expect(found.contains { $0 != 0 } && found.allSatisfy(\.isFinite))
                }
            }
        }
    }

    // A failure means that an image tower in 8 bits sees another image: a piece of the middle takes the scale of another, or shares a group with one.
    @Test(arguments: Backend.availableKernels)
    func towersInEightBits(kernels: String) throws {
        for (hidden, neurons, rows) in [(128, 320, 40), (64, 1088, 33), (320, 256, 90), (1280, 64, 25), (96, 512, 30), (128, 288, 30)] {
            let network = try Network(kernels: kernels, type: .f32, hidden: hidden, neurons: neurons, rows: rows, precision: .q8)
            let exact = try Network(kernels: kernels, type: .f32, hidden: hidden, neurons: neurons, rows: rows, precision: .f32)
            for gated in [true, false] {
                let found = try #require(network.run(gated: gated, panels: nil, blocks: nil, dropped: [], inPieces: true))
                #expect(found == network.run(gated: gated, panels: nil, blocks: nil, dropped: [], inPieces: false), "\(hidden) \(neurons) \(rows)")
                let expected = try #require(exact.run(gated: gated, panels: nil, blocks: nil, dropped: [], inPieces: false))
                let largest = expected.reduce(0) { max($0, abs($1)) }
                #expect(largestDifference(found, expected) < 0.04 * largest, "\(hidden) \(neurons) \(rows)")
            }
        }
    }

    // A failure means that neurons that do not fill a block of 32 bring in what lay in memory before.
    @Test(arguments: Backend.availableKernels)
    func neuronsThatDoNotFillABlock(kernels: String) throws {
        for neurons in [40, 80, 33] {
            let network = try Network(kernels: kernels, type: .bf16, hidden: 64, neurons: neurons, rows: 25)
            // Twice, for the second finds other values in the buffers' memory.
            for gated in [true, false] {
                guard let found = network.run(gated: gated, panels: nil, blocks: nil, dropped: [], inPieces: true) else { continue }
                #expect(found == network.run(gated: gated, panels: nil, blocks: nil, dropped: [], inPieces: false))
            }
        }
    }

    // A failure means that a few tokens, whose weights come from memory, wait for pieces that are not worth it.
    @Test func fewTokensAreNotCutUp() throws {
        let network = try Network(kernels: try #require(Backend.availableKernels.last), type: .bf16, hidden: 64, neurons: 96, rows: 3)
        #expect(network.run(gated: true, panels: nil, blocks: nil, dropped: [], inPieces: true) == nil)
    }
}
