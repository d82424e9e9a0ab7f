import AdaKernels
import Testing

/// One product: what goes in, and the same in float64.
struct MatmulCase {
    var act: ak_type
    var weight: ak_type
    var layout = AK_PANELS
    var bundle = 1
    var rows: Int
    var inputs: Int
    var tokens: Int
    var panels: [Int32]? = nil
    var blocks: [Int32]? = nil
    var accumulate = false
    var bias = false
    var relu6 = false
    /// Of the sum of the products' magnitudes.
    var tolerance = 3e-6
    var seed: UInt64 = 1

    var panelCount: Int { (rows + 15) / 16 }
    var blockCount: Int { (inputs + 31) / 32 }
    /// Inputs that share a scale of the activations, and such scales of a token.
    var scaledTogether: Int { act == AK_I8 ? Int(AK_GROUP) : 32 }
    var scaleCount: Int { (blockCount * 32 + scaledTogether - 1) / scaledTogether }
    var listedPanels: [Int32] { panels ?? (0..<Int32(panelCount)).map { $0 } }
}

/// The buffers of a case. `stride` of activations and outputs is larger than it must be.
final class MatmulProblem {
    let test: MatmulCase
    let weightValues: [Float]        // (rows, inputs), as the stored type holds them
    let weightData: AlignedMemory
    let weightStride: Int
    let actStride: Int
    let ldo: Int
    var actValues: [Float] = []      // (tokens, blocks * 32), as the activation type holds them
    var actData: AlignedMemory
    var scales: [Float], sums: [Int32]
    let biasValues: [Float]
    let initial: [Float]

    init(_ test: MatmulCase) {
        self.test = test
        var numbers = TestNumbers(seed: test.seed)
        let rows = test.rows, inputs = test.inputs, blocks = test.blockCount

        // Weights.
        let source: [UInt8], sourceType: ak_type
        if ak_type_block(test.weight) > 1, inputs % Int(ak_type_block(test.weight)) == 0 {
            source = randomBlocks(test.weight, count: rows * inputs / Int(ak_type_block(test.weight)), numbers: &numbers)
            sourceType = test.weight
        } else {
            let floats = numbers.floats(rows * inputs)
            sourceType = test.layout == AK_ROWS ? test.weight : AK_F32
            var bytes = [UInt8](repeating: 0, count: floats.count * Int(ak_type_bytes(sourceType)))
            _ = ak_quantize(&bytes, sourceType, floats, Int64(floats.count))
            source = bytes
        }
        let rowBytes = inputs / Int(ak_type_block(sourceType)) * Int(ak_type_bytes(sourceType))
        var values = [Float](repeating: 0, count: rows * inputs)
        for row in 0..<rows {
            let bytes = Array(source[row * rowBytes..<(row + 1) * rowBytes])
            var decoded = [Float](repeating: 0, count: inputs)
            ak_dequantize(&decoded, sourceType, bytes, 0, Int64(inputs))
            if test.layout != AK_ROWS, test.weight != sourceType { decoded = MatmulProblem.stored(decoded, as: test.weight) }
            // Rounded to the activations' type on the way.
            if test.act == AK_BF16 { decoded = MatmulProblem.stored(decoded, as: AK_BF16) }
            if test.act == AK_I16 { decoded = MatmulProblem.rounded(decoded, together: 32, steps: 8191) }
            values.replaceSubrange(row * inputs..<(row + 1) * inputs, with: decoded)
        }
        weightValues = values
        if test.layout == AK_ROWS {
            weightStride = rowBytes + 6 * Int(ak_type_bytes(sourceType))
            weightData = AlignedMemory(bytes: weightStride * rows)
            for row in 0..<rows {
                (weightData.pointer + row * weightStride).copyMemory(from: Array(source[row * rowBytes..<(row + 1) * rowBytes]), byteCount: rowBytes)
            }
        } else {
            weightStride = ak_panel_bytes(test.weight, Int32(inputs))
            let packed = (test.panelCount + test.bundle - 1) / test.bundle * test.bundle
            weightData = AlignedMemory(bytes: weightStride * packed)
            let status = ak_pack_panels(
                weightData.pointer, test.weight, Int32(test.bundle), source, sourceType, rowBytes, Int32(rows), Int32(inputs), 0, Int32(packed))
            precondition(status == 0)
        }

        // Activations.
        actStride = blocks * 32 + ([AK_Q8_0, AK_I16, AK_I8].contains(test.act) ? 0 : 64)
        let x = paddedRows(numbers.floats(test.tokens * inputs, scale: 2), rows: test.tokens, count: inputs, stride: actStride)
        scales = .init(repeating: 0, count: test.tokens * test.scaleCount)
        sums = .init(repeating: 0, count: test.tokens * blocks)
        actData = AlignedMemory(bytes: test.tokens * actStride * 4)
        let portable = ak_kernels_named("portable").pointee
        switch test.act {
        case AK_BF16:
            portable.to_bf16(actData.pointer.assumingMemoryBound(to: UInt16.self), actStride, x, actStride, Int32(test.tokens), Int32(actStride))
        case AK_Q8_0:
            portable.quantize_q8(actData.pointer.assumingMemoryBound(to: Int8.self), actStride, &scales, &sums, x, actStride, Int32(test.tokens), Int32(blocks))
        case AK_I16:
            portable.quantize_i16(actData.pointer.assumingMemoryBound(to: Int16.self), actStride, &scales, x, actStride, Int32(test.tokens), Int32(blocks))
        case AK_I8:
            portable.quantize_i8(actData.pointer.assumingMemoryBound(to: Int8.self), actStride, &scales, x, actStride, Int32(test.tokens), Int32(blocks))
        default:
            actData.pointer.copyMemory(from: x, byteCount: x.count * 4)
        }
        ldo = test.panelCount * 16 + 7
        biasValues = paddedRows(numbers.floats(rows), rows: 1, count: rows, stride: test.panelCount * 16)
        initial = numbers.floats(test.tokens * ldo)
        actValues = (0..<test.tokens * blocks * 32).map { index in
            let token = index / (blocks * 32), k = index % (blocks * 32), at = token * actStride + k
            switch test.act {
            case AK_BF16: return ak_bf16_to_float(actData.pointer.load(fromByteOffset: at * 2, as: UInt16.self))
            case AK_Q8_0, AK_I8: return Float(actData.pointer.load(fromByteOffset: at, as: Int8.self)) * scales[token * test.scaleCount + k / test.scaledTogether]
            case AK_I16: return Float(actData.pointer.load(fromByteOffset: at * 2, as: Int16.self)) * scales[token * test.scaleCount + k / test.scaledTogether]
            default: return x[at]
            }
        }
    }

    static func stored(_ values: [Float], as type: ak_type) -> [Float] {
        if type == AK_I8 { return rounded(values, together: Int(AK_GROUP), steps: 127) }
        let block = Int(ak_type_block(type)), padded = (values.count + block - 1) / block * block
        var bytes = [UInt8](repeating: 0, count: padded / block * Int(ak_type_bytes(type)))
        _ = ak_quantize(&bytes, type, values + .init(repeating: 0, count: padded - values.count), Int64(padded))
        var out = [Float](repeating: 0, count: padded)
        ak_dequantize(&out, type, bytes, 0, Int64(padded))
        return Array(out.prefix(values.count))
    }

    /// Some values of a row at a time as multiples of one of so many steps to their largest.
    static func rounded(_ row: [Float], together: Int, steps: Float) -> [Float] {
        stride(from: 0, to: row.count, by: together).flatMap { start -> [Float] in
            let block = row[start ..< min(start + together, row.count)], scale = (block.map(abs).max() ?? 0) / steps
            return block.map { scale > 0 ? ($0 * (1 / scale)).rounded(.toNearestOrEven) * scale : 0 }
        }
    }

    /// Runs tokens `first ..< first + count` over the given panels, into `out`.
    func run(_ set: KernelSet, into out: inout [Float], panels: [Int32], tokens: Range<Int>) {
        var matrix = ak_matrix(
            type: test.weight, layout: test.layout, rows: Int32(test.rows), inputs: Int32(test.inputs), panels: Int32(test.panelCount),
            blocks: Int32(test.blockCount), bundle: Int32(test.bundle), stride: weightStride, data: UnsafeRawPointer(weightData.pointer))
        let scratch = AlignedMemory(bytes: ak_matmul_scratch(&matrix))
        let size = Int(ak_type_bytes(test.act == AK_Q8_0 ? AK_F32 : test.act)) / (test.act == AK_Q8_0 ? 4 : 1)
        scales.withUnsafeBufferPointer { scales in
            sums.withUnsafeBufferPointer { sums in
                out.withUnsafeMutableBufferPointer { out in
                    guard let outBase = out.baseAddress, let scaleBase = scales.baseAddress, let sumBase = sums.baseAddress else { return }
                    var act = ak_activations(
                        type: test.act, tokens: Int32(tokens.count), blocks: Int32(test.blockCount), stride: actStride,
                        data: UnsafeRawPointer(actData.pointer + tokens.lowerBound * actStride * size),
                        scales: scaleBase + tokens.lowerBound * test.scaleCount, sums: sumBase + tokens.lowerBound * test.blockCount)
                    // A hint that must not change anything: the last panel of the same matrix.
                    withUnsafePointer(to: Int32(test.panelCount - 1)) { hinted in
                        withUnsafePointer(to: matrix) { hintedMatrix in
                            var upcoming = ak_upcoming(weight: hintedMatrix, panels: hinted, panel_count: tokens.lowerBound == 0 ? 1 : 0)
                            set.table.matmul(
                                outBase + tokens.lowerBound * ldo, ldo, &act, &matrix, test.bias ? biasValues : nil, panels,
                                Int32(panels.count), test.blocks, Int32(test.blocks?.count ?? 0),
                                (test.accumulate ? Int32(AK_ACCUMULATE) : 0) | (test.relu6 ? Int32(AK_RELU6) : 0), &upcoming, scratch.pointer)
                        }
                    }
                }
            }
        }
    }

    /// Checks a run over all tokens and listed panels; returns what was computed.
    @discardableResult
    func check(_ set: KernelSet) -> [Float] {
        var out = initial
        if test.accumulate {   // rows that do not exist are zero, as matmul leaves them
            for t in 0..<test.tokens { for r in test.rows..<test.panelCount * 16 { out[t * ldo + r] = 0 } }
        }
        let before = out
        run(set, into: &out, panels: test.listedPanels, tokens: 0..<test.tokens)
        let listed = Set(test.listedPanels.map(Int.init)), blocks = test.blockCount
        let listedBlocks = (test.blocks ?? (0..<Int32(blocks)).map { $0 }).map(Int.init)
        var worst = -Double.infinity
        for t in 0..<test.tokens {
            for r in 0..<ldo {
                let got = out[t * ldo + r]
                guard listed.contains(r / 16), r < test.panelCount * 16 else {
                    if got != before[t * ldo + r] { worst = .infinity }   // not listed: untouched
                    continue
                }
                guard r < test.rows else {
                    if got != 0 { worst = .infinity }
                    continue
                }
                var sum = 0.0, magnitude = 0.0
                for block in listedBlocks {
                    for k in block * 32..<min(block * 32 + 32, test.inputs) {
                        let product = Double(actValues[t * blocks * 32 + k]) * Double(weightValues[r * test.inputs + k])
                        sum += product
                        magnitude += abs(product)
                    }
                }
                if test.bias { sum += Double(biasValues[r]) }
                if test.accumulate { sum += Double(before[t * ldo + r]) }
                if test.relu6 { sum = min(6, max(0, sum)) }
                let excess = abs(Double(got) - sum) - (test.tolerance * magnitude + 1e-6)
                worst = excess.isNaN ? .infinity : max(worst, excess)
            }
        }
        #expect(worst <= 0, "\(set.name) \(test)")
        return out
    }
}

struct MatmulTests {
    static let pairs: [(ak_type, ak_type)] = [
        (AK_F32, AK_F32), (AK_F32, AK_F16), (AK_F32, AK_BF16), (AK_BF16, AK_BF16), (AK_Q8_0, AK_Q8_0), (AK_F32, AK_Q8_0),
        (AK_BF16, AK_F16), (AK_I16, AK_F16), (AK_I16, AK_BF16), (AK_BF16, AK_Q8_0), (AK_BF16, AK_F32),
    ]
    /// The pair of a test's argument, panel by panel and then in bundles of three: fewer than a tile takes.
    static func pair(_ argument: Int) -> (act: ak_type, weight: ak_type, bundle: Int) {
        let (act, weight) = pairs[argument % pairs.count]
        return (act, weight, argument < pairs.count ? 1 : 3)
    }
    static let rowTypes = [AK_F32, AK_F16, AK_BF16, AK_Q8_0, AK_Q4_0, AK_Q4_1, AK_Q5_0, AK_Q5_1, AK_Q4_K, AK_Q5_K, AK_Q6_K,
                           AK_Q2_K, AK_Q3_K, AK_IQ4_NL, AK_IQ4_XS, AK_TQ1_0, AK_TQ2_0, AK_MXFP4]

    // A failure means that every layer of a model of this weight type computes something else.
    @Test("every token count and tail", arguments: KernelSet.available, 0..<2 * MatmulTests.pairs.count)
    func everyTokenCountAndTail(set: KernelSet, pair: Int) {
        let (act, weight, bundle) = Self.pair(pair)
        for tokens in Array(1...14) + [15, 16, 17, 31, 32, 33, 48, 65] {
            let rows = [16, 5, 33, 70, 100, 16 * 7, 31][tokens % 7], inputs = [32, 33, 64, 7, 95, 200][tokens % 6]
            MatmulProblem(.init(act: act, weight: weight, bundle: bundle, rows: rows, inputs: inputs, tokens: tokens, seed: UInt64(tokens))).check(set)
        }
    }

    // A failure means that a plan's skipped heads and neurons are computed anyway, or the wrong ones are skipped.
    @Test("subsets bias and accumulation", arguments: KernelSet.available, 0..<2 * MatmulTests.pairs.count)
    func subsetsBiasAndAccumulation(set: KernelSet, pair: Int) {
        let (act, weight, bundle) = Self.pair(pair)
        for tokens in [1, 2, 3, 5, 8, 13, 40] {
            for (bias, accumulate) in [(false, true), (true, false), (true, true)] {
                MatmulProblem(.init(act: act, weight: weight, bundle: bundle, rows: 150, inputs: 330, tokens: tokens, panels: [0, 2, 3, 5, 8, 9], blocks: [1, 2, 6, 10],
                                    accumulate: accumulate, bias: bias, seed: UInt64(tokens))).check(set)
            }
            MatmulProblem(.init(act: act, weight: weight, bundle: bundle, rows: 150, inputs: 330, tokens: tokens, blocks: [0, 1, 4, 5, 10], bias: true)).check(set)
            MatmulProblem(.init(act: act, weight: weight, bundle: bundle, rows: 40, inputs: 96, tokens: tokens, panels: [2], blocks: [])).check(set)
            MatmulProblem(.init(act: act, weight: weight, bundle: bundle, rows: 40, inputs: 96, tokens: tokens, blocks: [], accumulate: true, bias: true)).check(set)
            MatmulProblem(.init(act: act, weight: weight, bundle: bundle, rows: 40, inputs: 96, tokens: tokens, panels: [])).check(set)
        }
    }

    // A failure means that layers wider than the cache, which are multiplied in parts, lose or repeat a part.
    @Test("wide inputs in parts", arguments: KernelSet.available, 0..<2 * MatmulTests.pairs.count)
    func wideInputsInParts(set: KernelSet, pair: Int) {
        let (act, weight, bundle) = Self.pair(pair)
        for tokens in [1, 17, 29] {
            MatmulProblem(.init(act: act, weight: weight, bundle: bundle, rows: 36, inputs: weight == AK_Q8_0 ? 9000 : 5000, tokens: tokens, accumulate: true, bias: true)).check(set)
        }
    }

    // A failure means that prompts longer than a strip of tokens are multiplied wrongly.
    @Test("prompts longer than a strip are multiplied correctly", arguments: KernelSet.available, 0..<2 * MatmulTests.pairs.count)
    func manyTokens(set: KernelSet, pair: Int) {
        let (act, weight, bundle) = Self.pair(pair)
        MatmulProblem(.init(act: act, weight: weight, bundle: bundle, rows: 50, inputs: 64, tokens: 263, bias: true)).check(set)
    }

    // A failure means that the same prompt gives other tokens depending on how it is cut into pieces or shared out among threads.
    @Test("results do not depend on tiles", arguments: KernelSet.available, 0...2 * MatmulTests.pairs.count)
    func resultsDoNotDependOnTiles(set: KernelSet, pair: Int) {
        let inRows = pair == 2 * Self.pairs.count, (act, weight, bundle) = inRows ? (AK_F32, AK_Q4_K, 1) : Self.pair(pair)
        let wide = pair % Self.pairs.count == 0 || pair % Self.pairs.count >= 5   // more than is multiplied or unpacked at once
        // Enough tokens for weights to be widened, and pieces that are too few for it.
        let tokens = 31
        let problem = MatmulProblem(.init(act: act, weight: weight, layout: inRows ? AK_ROWS : AK_PANELS, bundle: bundle, rows: 80, inputs: wide ? 2304 : 256, tokens: tokens,
                                          bias: true))
        var together = problem.initial
        problem.run(set, into: &together, panels: [0, 1, 2, 3, 4], tokens: 0..<tokens)
        for size in [1, 2, 3, 5, 7, 8, 12, 25] {
            var pieces = problem.initial
            for start in stride(from: 0, to: tokens, by: size) {
                for panels: [Int32] in size % 2 == 0 ? [[0], [1, 2], [3, 4]] : size % 3 == 1 ? [[0, 1, 2, 3], [4]] : [[0, 1, 2], [3], [4]] {
                    problem.run(set, into: &pieces, panels: panels, tokens: start..<min(tokens, start + size))
                }
            }
            #expect(pieces == together, "\(size)")
        }
    }

    // A failure means that a weight type that is not packed is misread on its way into the product.
    @Test("rows of every type", arguments: KernelSet.available, MatmulTests.rowTypes.indices)
    func rowsOfEveryType(set: KernelSet, typeIndex: Int) {
        let type = Self.rowTypes[typeIndex], block = Int(ak_type_block(type))
        for (tokens, rows) in [(1, 16), (2, 37), (9, 20)] {
            let inputs = block == 1 ? [32, 45, 70][tokens % 3] : block == 32 ? 96 : 512
            MatmulProblem(.init(act: AK_F32, weight: type, layout: AK_ROWS, rows: rows, inputs: inputs, tokens: tokens, seed: UInt64(rows))).check(set)
        }
        let blocks: [Int32] = block == 256 ? [0, 3, 7, 8, 21] : [0, 3, 4]
        MatmulProblem(.init(act: AK_F32, weight: type, layout: AK_ROWS, rows: 70, inputs: block == 256 ? 768 : 160, tokens: 4, panels: [1, 2, 4], blocks: blocks,
                            accumulate: true, bias: true)).check(set)
        MatmulProblem(.init(act: AK_F32, weight: type, layout: AK_ROWS, rows: 30, inputs: 4352, tokens: 3)).check(set)   // more than is dequantized at once
        for (tokens, inputs) in [(2, 512), (26, 4352), (40, 6400)] {
            MatmulProblem(.init(act: AK_BF16, weight: type, layout: AK_ROWS, rows: 70, inputs: inputs, tokens: tokens, accumulate: true, bias: true)).check(set)
        }
    }

    // A failure means that a model whose weights stay in the file answers otherwise than one whose weights are packed.
    @Test("quantized rows give what panels give", arguments: KernelSet.available, [AK_Q8_0, AK_Q4_0, AK_Q4_1])
    func quantizedRowsGiveWhatPanelsGive(set: KernelSet, type: ak_type) {
        for (tokens, rows, inputs) in [(1, 64, 1152), (3, 37, 96), (5, 80, 32 * 400), (31, 50, 2304), (200, 33, 32 * 390)] {
            for blocks: [Int32]? in [nil, [0, 2]] {
                let results = [AK_ROWS, AK_PANELS].map { layout in
                    MatmulProblem(.init(
                        act: AK_Q8_0, weight: type, layout: layout, rows: rows, inputs: inputs, tokens: tokens, blocks: blocks, accumulate: true, bias: true,
                        seed: UInt64(tokens))).check(set)
                }
                #expect(results[0] == results[1], "\(tokens) tokens, \(rows) rows, \(inputs) inputs")
            }
        }
    }

    // A failure means that a plan that leaves heads or neurons out, whose matrices lie in bundles, answers otherwise for another number of threads.
    @Test("bundles give what panels give", arguments: KernelSet.available, [AK_Q8_0, AK_Q4_0, AK_Q4_1])
    func bundlesGiveWhatPanelsGive(set: KernelSet, type: ak_type) {
        let listed: [Int32] = [0, 1, 4, 5, 6, 7, 9, 15, 16, 17, 18, 22]
        for (tokens, blocks, panels) in [(1, nil, nil), (1, [0, 1, 4, 5, 6, 11], nil), (1, [3], listed), (1, [], nil), (2, nil, listed), (40, [2, 3, 9], nil)]
            as [(Int, [Int32]?, [Int32]?)] {
            let results = [1, 2, 5, 16, 20].map { bundle in
                MatmulProblem(.init(
                    act: AK_Q8_0, weight: type, bundle: bundle, rows: 16 * 23 - 5, inputs: 384, tokens: tokens, panels: panels, blocks: blocks,
                    accumulate: true, bias: true)).check(set)
            }
            #expect(results.allSatisfy { $0 == results[0] }, "\(tokens) tokens, blocks \(blocks ?? [])")
        }
    }

    // A failure means that an activation type meets weights it cannot multiply and something is written all the same.
    @Test("unsupported pairs write nothing", arguments: KernelSet.available)
    func unsupportedPairsWriteNothing(set: KernelSet) {
        for (act, weight) in [(AK_Q8_0, AK_F16), (AK_I16, AK_F32), (AK_I16, AK_Q8_0)] {
            let problem = MatmulProblem(.init(act: act, weight: weight, rows: 16, inputs: 32, tokens: 2))
            var out = problem.initial
            problem.run(set, into: &out, panels: [0], tokens: 0..<2)
            #expect(out == problem.initial)
        }
    }
}

struct DispatchTests {
    // A failure means that ADALLAVA_KERNELS cannot choose kernels, or that the engine runs slower ones than it could.
    @Test("kernels are found by name") func kernelsAreFoundByName() throws {
        let portable = try #require(ak_kernels_named("portable"))
        #expect(String(cString: portable.pointee.name) == "portable")
        #expect(ak_kernels_named("sse9") == nil && ak_kernels_named(nil) == nil && ak_kernels_named("") == nil)
        let best = String(cString: ak_kernels_best().pointee.name)
        #expect(KernelSet.available.contains { $0.name == best })
        if ak_kernels_named("amx") != nil {
            #expect(best == "amx")
        } else if ak_kernels_named("avx512") != nil {
            #expect(best == "avx512")
        } else if ak_kernels_named("avxvnni") != nil {
            #expect(best == "avxvnni")
        }
    }
}
