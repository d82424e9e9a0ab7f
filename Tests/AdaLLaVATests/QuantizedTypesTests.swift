import AdaKernels
import Foundation
import Testing

@testable import AdaLLaVA

/// Stored values against what gguf and ml_dtypes make of the same bytes (`Tests/Fixtures/quants`).
@Suite struct QuantizedTypesTests {
    static let types: [ElementType] = [
        .q8_0, .q4_0, .q4_1, .q5_0, .q5_1, .q2_K, .q3_K, .q4_K, .q5_K, .q6_K, .iq4_nl, .iq4_xs, .tq1_0, .tq2_0, .mxfp4,
    ]

    private func expectSame(_ found: [Float], _ expected: [Float], _ comment: Comment) {
        #expect(found.count == expected.count, comment)
        // NaN of any payload: which one a product of infinity and zero has depends on the processor.
        let differing = zip(found, expected).filter { $0.0.bitPattern != $0.1.bitPattern && !($0.0.isNaN && $0.1.isNaN) }
        #expect(differing.isEmpty, comment)
    }

    private func values(_ tensor: StoredTensor) throws -> [Float] { try Tensor(vector: tensor, count: tensor.count).values }

    // A mismatch means that weights of a quantized type are others than every other program reads.
    @Test("values are those of the format", arguments: types) func valuesAreThoseOfTheFormat(type: ElementType) throws {
        let recorded = try SafetensorsFile(contentsOf: Fixtures.url("quants/expected.safetensors"))
        let name = type.rawValue.uppercased()
        let (bytes, expected) = (try recorded.tensor(name + ".bytes"), try recorded.tensor(name + ".values"))
        #expect(expected.count == bytes.count / type.block.bytes * type.block.values && expected.count > 400)
        let stored = StoredTensor(name: name, type: type, shape: [expected.count], bytes: bytes.bytes, file: bytes.file)
        expectSame(try values(stored), try values(expected), "\(name)")
    }

    // A mismatch means that 8-bit floats are misread: their subnormal numbers, their NaN, E5M2's infinities.
    @Test("every byte as a float", arguments: [ElementType.f8_e4m3, .f8_e5m2]) func everyByteAsAFloat(type: ElementType) throws {
        let recorded = try SafetensorsFile(contentsOf: Fixtures.url("quants/expected.safetensors"))
        let name = try #require(type.safetensorsName)
        let codes = try recorded.tensor(name + ".bytes")
        let stored = StoredTensor(name: name, type: type, shape: [256], bytes: codes.bytes, file: codes.file)
        expectSame(try values(stored), try values(recorded.tensor(name + ".values")), "\(name)")
    }

    // A mismatch means that a matrix of 8-bit floats is multiplied by another row's or block's factor.
    @Test("8-bit floats are multiplied by the factor of their block", arguments: ["block", "tensor", "one", "row", "rows", "bfloat"]) func factorsOfMatrices(name: String) throws {
        let source = try ScaledTensors.joined(SafetensorsFile(contentsOf: Fixtures.url("quants/fp8.safetensors")), configuration: .null)
        let recorded = try SafetensorsFile(contentsOf: Fixtures.url("quants/fp8-values.safetensors"))
        #expect(!source.names.contains { $0.contains("scale") })
        let tensor = try source.tensor(name + ".weight"), expected = try recorded.tensor(name + ".weight")
        let (rows, columns) = (tensor.shape[0], tensor.shape[1])
        let found = try Tensor(matrix: tensor, rows: rows, columns: columns)
        for row in 0 ..< rows {
            let wanted = try values(#require(expected.rows(row ..< row + 1, named: "row")))
            expectSame(Array(UnsafeBufferPointer(start: found.data + row * found.stride, count: columns)), wanted, "row \(row)")
        }
        // A part keeps its own factors.
        let part = try #require(tensor.rows(rows - 3 ..< rows, named: "part")), reader = try RowReader(part, columns: columns)
        var row = [Float](repeating: 0, count: columns)
        reader.read(2, into: &row)
        expectSame(row, try values(#require(expected.rows(rows - 1 ..< rows, named: "row"))), "the last row of a part")
    }

    // A mismatch means that blocks of another size than 128 x 128, which the configuration names, get each other's factors.
    @Test("blocks of other sizes", arguments: [
        #"{"quantization_config": {"quant_method": "fp8", "weight_block_size": [2, 16]}}"#,
        #"{"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"block_structure": [2, 16]}}}}}"#,
    ]) func blocksOfOtherSizes(configuration: String) throws {
        try CheckpointFixtures.withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("small.safetensors")
            let tensors = [
                TensorDescription(name: "w.weight", type: .f8_e4m3, shape: [5, 40]), TensorDescription(name: "w.weight_scale", type: .f32, shape: [3, 3]),
            ]
            try SafetensorsWriter.write(tensors, to: url) { tensor, sink in
                if tensor.type == .f32 { try sink.write((1 ... 9).map(Float.init)) } else { try sink.write([UInt8](repeating: 0x38, count: 200)) }
            }
            let tensor = try ScaledTensors.joined(SafetensorsFile(contentsOf: url), configuration: Self.json(configuration)).tensor("w.weight")
            let expected = (0 ..< 200).map { index -> Float in
                let (row, column) = (index / 40, index % 40)
                return Float(row / 2 * 3 + column / 16 + 1)
            }
            let found = try Tensor(matrix: tensor, rows: 5, columns: 40)
            for row in 0 ..< 5 {
                #expect(Array(UnsafeBufferPointer(start: found.data + row * found.stride, count: 40)) == Array(expected[row * 40 ..< row * 40 + 40]))
            }
        }
    }

    private static func json(_ text: String) throws -> JSONValue { try CheckpointFixtures.json(text) }

    // A failure means that a matrix without its factors is read as if they were 1, or that factors of another size are.
    @Test("factors that are missing or do not fit") func factorsThatAreMissingOrDoNotFit() throws {
        try CheckpointFixtures.withTemporaryFolder { folder in
            func source(_ tensors: [(String, ElementType, [Int])]) throws -> any TensorSource {
                let url = folder.appendingPathComponent("\(UUID().uuidString).safetensors")
                try SafetensorsWriter.write(tensors.map { TensorDescription(name: $0.0, type: $0.1, shape: $0.2) }, to: url) { tensor, sink in
                    try sink.write([UInt8](repeating: 0x38, count: tensor.byteCount(file: "")))
                }
                return try ScaledTensors.joined(SafetensorsFile(contentsOf: url), configuration: .null)
            }
            let weight = ("w.weight", ElementType.f8_e4m3, [6, 40])
            // Without any factors the floats are the weights.
            #expect(try values(source([weight]).tensor("w.weight").rows(0 ..< 1, named: "r")!) == [Float](repeating: 1, count: 40))
            let missing = try source([weight, ("v.weight", .f8_e4m3, [6, 40]), ("v.weight_scale", .f32, [1])])
            let error = try #require(checkpointError { try RowReader(missing.tensor("w.weight"), columns: 40) })
            #expect(error.isMissingTensor && error.description.contains("w.weight_scale_inv"))
            for shape in [[5], [2, 2], [6, 2], [0]] {
                let wrong = try source([weight, ("w.weight_scale", .f32, shape)])
                #expect(checkpointError { try RowReader(wrong.tensor("w.weight"), columns: 40) } != nil, "\(shape)")
            }
            // What needs no matrix of 8-bit floats is not judged by them.
            #expect(try source([weight, ("w.weight_scale", .i64, [1]), ("b", .f32, [1])]).tensor("b").count == 1)
            // Weights in several tensors, as GPTQ and AWQ, NVFP4 and bitsandbytes store them.
            for name in ["w.qweight", "w.weight_packed", "w.weight_scale_2", "w.weight.absmax", "w.SCB"] {
                let packed = checkpointError { try source([("w.weight", .u8, [2, 2]), (name, .f32, [1])]) }
                #expect(packed?.isUnsupported == true && packed?.description.contains(name) == true)
            }
        }
    }

    /// A decoder whose rows hold whole blocks of every type.
    private static let shape = DecoderConfiguration(
        vocabularySize: 48, hiddenSize: 256, intermediateSize: 512, numHiddenLayers: 2, numAttentionHeads: 4, numKeyValueHeads: 2, ropeInterleaved: true,
        maxPositionEmbeddings: 512)

    /// Writes a model to GGUF, its matrices in `type`, and the same one in float32.
    private func write(_ type: ElementType, to url: URL, inFloat32 twin: URL) throws {
        let source = MadeUpModel(Self.shape) { _ in .f32 }
        var random = SplitMix64(seed: 3)
        var stored: [String: [UInt8]] = [:], descriptions: [TensorDescription] = []
        for name in source.names {
            let tensor = try source.tensor(name), isMatrix = tensor.shape.count == 2
            descriptions.append(TensorDescription(name: TensorNames.gguf(canonical: name), type: isMatrix ? type : .f32, shape: tensor.shape))
            guard isMatrix else {
                stored[TensorNames.gguf(canonical: name)] = try values(tensor).withUnsafeBytes { Array($0) }
                continue
            }
            var bytes = (0 ..< (type.bytes(for: tensor.count) ?? 0)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            for block in stride(from: 0, to: bytes.count, by: type.block.bytes) { Self.tame(&bytes, block, type, Float(random.unit())) }
            stored[TensorNames.gguf(canonical: name)] = bytes
        }
        let metadata = try Self.shape.ggufMetadata()
        try GGUFWriter.write(descriptions, metadata: metadata, to: url) { tensor, sink in try sink.write(stored[tensor.name] ?? []) }
        let quantized = try GGUFFile(contentsOf: url)
        try GGUFWriter.write(descriptions.map { TensorDescription(name: $0.name, type: .f32, shape: $0.shape) }, metadata: metadata, to: twin) {
            try $1.write(values(quantized.tensor($0.name)))
        }
    }

    /// Gives a block of random bytes ordinary scales.
    private static func tame(_ bytes: inout [UInt8], _ start: Int, _ type: ElementType, _ size: Float) {
        let offsets: (places: [Int], scale: Float) = switch type {
        case .q2_K: ([80, 82], 0.01)
        case .q3_K: ([108], 0.003)
        case .iq4_nl: ([0], 0.002)
        case .iq4_xs: ([0], 0.0001)
        case .tq1_0: ([52], 0.1)
        case .tq2_0: ([64], 0.1)
        default: ([], 0)
        }
        for place in offsets.places {
            let bits = ak_float_to_half((0.5 + size) * offsets.scale)
            (bytes[start + place], bytes[start + place + 1]) = (UInt8(truncatingIfNeeded: bits), UInt8(bits >> 8))
        }
        if type == .mxfp4 { bytes[start] = 121 + bytes[start] % 3 }
    }

    // A mismatch means that a model in one of these types answers from other weights than its file's.
    @Test("models in these types", arguments: [.q2_K, .q3_K, .iq4_nl, .iq4_xs, .tq1_0, .tq2_0, .mxfp4] as [ElementType]) func modelsInTheseTypes(type: ElementType) throws {
        try CheckpointFixtures.withTemporaryFolder { folder in
            let (url, twin) = (folder.appendingPathComponent("model.gguf"), folder.appendingPathComponent("twin.gguf"))
            try write(type, to: url, inFloat32: twin)
            func logits(_ url: URL, _ precision: Precision) throws -> [Float] {
                let trace = Trace()
                _ = try TestModel(url, precision: precision).run([1, 7, 33, 12, 40], maxTokens: 2, trace: trace)
                return trace.entries["prefill_last_logits"]?.values ?? []
            }
            let expected = try logits(twin, .f32), largest = expected.map(abs).max() ?? 0
            #expect(expected.count == 48 && largest > 0)
            #expect(largestDifference(try logits(url, .f32), expected) < 1e-4 * largest)
            #expect(largestDifference(try logits(url, .automatic), expected) < 0.15 * largest)
            let report = try ModelReport(contentsOf: url)
            #expect(report.problem == nil && report.types.first?.type == type && report.types.first?.name == type.rawValue)
            let converted = folder.appendingPathComponent("f16.gguf")
            _ = try CheckpointConverter(url, to: .f16, output: converted).run()
            #expect(largestDifference(try logits(converted, .f32), expected) < 0.01 * largest)
        }
    }

    // A mismatch means that checkpoints in FP8 answer from other weights than published, or cannot be converted.
    @Test("checkpoints in 8-bit floats", arguments: [ElementType.f8_e4m3, .f8_e5m2]) func checkpointsIn8BitFloats(type: ElementType) throws {
        try CheckpointFixtures.withTemporaryFolder { folder in
            let (fp8, twin) = (folder.appendingPathComponent("fp8"), folder.appendingPathComponent("twin"))
            try CheckpointFixtures.copy("ada-L", to: fp8)
            try CheckpointFixtures.copy("ada-L", to: twin)
            let weights = try SafetensorsFile(contentsOf: Fixtures.url("ada-L/model.safetensors"))
            var (rounded, exact) = ([String: [UInt8]](), [(name: String, shape: [Int], values: [Float])]())
            var descriptions: [TensorDescription] = []
            for name in weights.names {
                let tensor = try weights.tensor(name)
                let floats = try values(tensor)
                guard name.hasPrefix("model.layers."), name.hasSuffix("_proj.weight") else {
                    descriptions.append(TensorDescription(name: name, type: .f32, shape: tensor.shape))
                    (rounded[name], exact) = (floats.withUnsafeBytes { Array($0) }, exact + [(name, tensor.shape, floats)])
                    continue
                }
                let factor: Float = 0.03
                let codes = floats.map { value -> UInt8 in
                    let half = ak_float_to_half(value / factor)
                    // E4M3 has three bits of a fraction and the bias 7.
                    return type == .f8_e5m2 ? UInt8(half >> 8) : UInt8(half >> 8 & 0x80) | UInt8(clamping: max(0, Int(half & 0x7FFF) >> 7 - 64))
                }
                let scaled = codes.map { code -> Float in
                    var value: Float = 0
                    ak_dequantize(&value, type == .f8_e4m3 ? AK_F8_E4M3 : AK_F8_E5M2, [code], 0, 1)
                    return value * factor
                }
                let blocks = tensor.shape.map { ($0 - 1) / 128 + 1 }
                descriptions += [
                    TensorDescription(name: name, type: type, shape: tensor.shape),
                    TensorDescription(name: name + "_scale_inv", type: .f32, shape: blocks),
                ]
                (rounded[name], rounded[name + "_scale_inv"]) = (
                    codes, [Float](repeating: factor, count: blocks[0] * blocks[1]).withUnsafeBytes { Array($0) }
                )
                exact.append((name, tensor.shape, scaled))
            }
            try SafetensorsWriter.write(descriptions, to: fp8.appendingPathComponent("model.safetensors")) { try $1.write(rounded[$0.name] ?? []) }
            try SafetensorsWriter.write(exact, to: twin.appendingPathComponent("model.safetensors"))
            let quantization = JSONValue.object([
                "quant_method": .string("fp8"), "activation_scheme": .string("dynamic"), "weight_block_size": .array([.integer(128), .integer(128)]),
            ])
            try CheckpointFixtures.write(
                CheckpointFixtures.json("ada-L/config.json", replacing: ["quantization_config": quantization]), to: fp8.appendingPathComponent("config.json"))
            func logits(_ url: URL, _ precision: Precision) throws -> [Float] {
                let trace = Trace()
                _ = try TestModel(url, precision: precision).run([1, 7, 33, 12, 40], budget: 0.9, maxTokens: 2, trace: trace)
                return trace.entries["prefill_last_logits"]?.values ?? []
            }
            let expected = try logits(twin, .f32), largest = expected.map(abs).max() ?? 0
            #expect(largest > 0.5)
            #expect(try logits(fp8, .f32) == expected)
            #expect(largestDifference(try logits(fp8, .automatic), expected) < 0.1 * largest)
            #expect(try ModelReport(contentsOf: fp8).problem == nil)

            let (asFolder, asFile) = (folder.appendingPathComponent("f16"), folder.appendingPathComponent("f16.gguf"))
            _ = try CheckpointConverter(fp8, to: .f16, output: asFolder).run()
            _ = try CheckpointConverter(fp8, to: .f16, output: asFile).run()
            for url in [asFolder, asFile] { #expect(largestDifference(try logits(url, .f32), expected) < 0.02 * largest) }
            let config = try String(contentsOf: asFolder.appendingPathComponent("config.json"), encoding: .utf8)
            #expect(!config.contains("quantization_config") && config.contains("float16"))
            #expect(try GGUFFile(contentsOf: asFile).names.allSatisfy { !$0.contains("scale") })
        }
    }
}
