import Foundation
import Testing

@testable import AdaLLaVA

/// Puts GGUF files together byte by byte, valid or not.
struct GGUFBuilder {
    var version: UInt32 = 3
    var magic = "GGUF"
    var pairs: [[UInt8]] = []
    var tensors: [[UInt8]] = []
    var pairCount: UInt64?
    var tensorCount: UInt64?
    var alignment = 32
    var data = 0

    mutating func add(_ key: String, type: UInt32, _ value: [UInt8]) {
        var pair: [UInt8] = []
        pair.appendGGUF(key.utf8)
        pair.appendLittleEndian(type)
        pairs.append(pair + value)
    }

    mutating func add(_ key: String, integer: UInt32) {
        var value: [UInt8] = []
        value.appendLittleEndian(integer)
        add(key, type: 4, value)
    }

    mutating func addTensor(_ name: String, dimensions: [UInt64], type: UInt32 = 0, offset: UInt64 = 0, count: UInt32? = nil) {
        var tensor: [UInt8] = []
        tensor.appendGGUF(name.utf8)
        tensor.appendLittleEndian(count ?? UInt32(dimensions.count))
        for dimension in dimensions { tensor.appendLittleEndian(dimension) }
        tensor.appendLittleEndian(type)
        tensor.appendLittleEndian(offset)
        tensors.append(tensor)
    }

    var bytes: [UInt8] {
        var bytes = Array(magic.utf8)
        bytes.appendLittleEndian(version)
        bytes.appendLittleEndian(tensorCount ?? UInt64(tensors.count))
        bytes.appendLittleEndian(pairCount ?? UInt64(pairs.count))
        for piece in pairs + tensors { bytes += piece }
        bytes += [UInt8](repeating: 0, count: (alignment - bytes.count % alignment) % alignment)
        return bytes + (0..<data).map { UInt8(truncatingIfNeeded: $0) }
    }

    func open() throws -> GGUFFile { try GGUFFile(MappedFile(copying: bytes, path: "test.gguf")) }

    static func error(_ build: (inout GGUFBuilder) -> Void) -> CheckpointError? {
        var builder = GGUFBuilder()
        build(&builder)
        return checkpointError { try builder.open() }
    }
}

@Suite struct CheckpointGGUFTests {
    @Test("tensors of a GGUF file have their shape and bytes", arguments: [2, 3] as [UInt32])
    func layout(version: UInt32) throws {
        // A failure means that valid GGUF files are refused, or that dimensions are not turned round.
        var builder = GGUFBuilder(version: version, data: 64 + 34 * 2)
        builder.add("general.name", type: 8, [4, 0, 0, 0, 0, 0, 0, 0] + Array("tiny".utf8))
        builder.addTensor("f", dimensions: [2, 3])
        builder.addTensor("q", dimensions: [32, 2], type: 8, offset: 64)
        builder.addTensor("e", dimensions: [0], offset: 32)
        let file = try builder.open()
        #expect(file.version == version)
        #expect(try file.metadata.string("general.name") == "tiny")
        #expect(file.find("f")?.shape == [3, 2] && file.find("f")?.bytes.count == 24)
        #expect(file.find("q")?.shape == [2, 32] && file.find("q")?.type == .q8_0 && file.find("q")?.bytes.first == 64)
        #expect(file.find("e")?.count == 0)
    }

    @Test("unsupported GGUF versions are refused") func versions() throws {
        // A failure means that files of other versions are misread in place of refused.
        #expect(GGUFBuilder.error { $0.magic = "GGUX" }?.isMalformed == true)
        #expect(GGUFBuilder.error { $0.magic = "tjgg" }?.isUnsupported == true)
        for version in [0, 1, 4, 1 << 24, 3 << 24] as [UInt32] {
            #expect(GGUFBuilder.error { $0.version = version }?.isUnsupported == true)
        }
        #expect(GGUFBuilder.error { $0.version = 3 << 24 }?.description.contains("big-endian") == true)
        #expect(checkpointError { try GGUFFile(MappedFile(copying: Array("GGUF".utf8), path: "short")) }?.isMalformed == true)
    }

    @Test("absurd counts are refused quickly") func absurdCounts() {
        // A failure means that a few bytes can make us allocate or loop for an absurd time.
        #expect(GGUFBuilder.error { $0.pairCount = 1 << 60 }?.isMalformed == true)
        #expect(GGUFBuilder.error { $0.tensorCount = 1 << 60 }?.isMalformed == true)
        #expect(GGUFBuilder.error { $0.tensorCount = .max }?.isMalformed == true)
        let huge: [UInt8] = [0, 0, 0, 0, 0, 1, 0, 0]
        #expect(GGUFBuilder.error { $0.add("s", type: 8, huge) }?.isMalformed == true)
        #expect(GGUFBuilder.error { $0.add("a", type: 9, [4, 0, 0, 0] + huge) }?.isMalformed == true)
        #expect(GGUFBuilder.error { $0.add("a", type: 9, [8, 0, 0, 0] + [UInt8](repeating: 0xFF, count: 8)) }?.isMalformed == true)
        #expect(GGUFBuilder.error { $0.add(String(repeating: "k", count: 70000), integer: 1) }?.isMalformed == true)
        #expect(GGUFBuilder.error { $0.add("", integer: 1) }?.isMalformed == true)
    }

    @Test("nested arrays are limited in depth") func nestedArrays() throws {
        // A failure means that arrays in arrays overflow the stack, or that the allowed ones are misread.
        func nested(_ depth: Int) -> [UInt8] {
            var value: [UInt8] = []
            for _ in 1..<depth { value += [9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0] }
            return value + [5, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xFE, 0xFF, 0xFF, 0xFF]
        }
        #expect(GGUFBuilder.error { $0.add("a", type: 9, nested(9)) }?.isMalformed == true)
        #expect(GGUFBuilder.error { $0.add("a", type: 9, nested(100_000)) }?.isMalformed == true)
        var builder = GGUFBuilder()
        builder.add("a", type: 9, nested(2))
        let array = try #require(try builder.open().metadata.array("a"))
        guard case .array(let inner) = try #require(array.elements().first) else {
            throw CheckpointError.malformed(file: "", reason: "no array")
        }
        #expect(inner.integers() == [-2])
    }

    @Test("invalid metadata is refused") func invalidMetadata() {
        // A failure means that values break the format unnoticed.
        #expect(GGUFBuilder.error { $0.add("a", type: 13, [0]) }?.isMalformed == true)
        #expect(GGUFBuilder.error { $0.add("a", type: 7, [2]) }?.isMalformed == true)
        #expect(
            GGUFBuilder.error {
                $0.add("a", integer: 1); $0.add("a", integer: 1)
            }?.isMalformed == true)
        for alignment in [0, 3, 48, 1 << 21, .max] as [UInt32] {
            #expect(GGUFBuilder.error { $0.add("general.alignment", integer: alignment) }?.isConfiguration == true)
        }
    }

    @Test("tensors outside the file or over each other are refused") func invalidTensors() throws {
        // A failure means that reading a tensor may leave the mapping, or that tensors share bytes.
        #expect(GGUFBuilder.error { $0.addTensor("t", dimensions: [1, 1, 1, 1, 1]) }?.isMalformed == true)
        #expect(GGUFBuilder.error { $0.addTensor("t", dimensions: [1], count: .max) }?.isMalformed == true)
        #expect(GGUFBuilder.error { $0.addTensor("t", dimensions: [1 << 40, 1 << 40]) }?.isMalformed == true)
        #expect(GGUFBuilder.error { $0.addTensor("t", dimensions: [.max]) }?.isMalformed == true)
        #expect(GGUFBuilder.error { $0.addTensor("t", dimensions: [1 << 62]) }?.isMalformed == true)
        #expect(
            GGUFBuilder.error {
                $0.addTensor("t", dimensions: [9]); $0.data = 32
            }?.isMalformed == true)
        #expect(
            GGUFBuilder.error {
                $0.addTensor("t", dimensions: [1], offset: 32); $0.data = 32
            }?.isMalformed == true)
        #expect(
            GGUFBuilder.error {
                $0.addTensor("t", dimensions: [1], offset: 4); $0.data = 32
            }?.isMalformed == true)
        #expect(
            GGUFBuilder.error {
                $0.addTensor("t", dimensions: [1], offset: 1 << 63); $0.data = 32
            }?.isMalformed == true)
        #expect(
            GGUFBuilder.error {
                $0.addTensor("t", dimensions: [33], type: 8); $0.data = 64
            }?.isMalformed == true)
        #expect(
            GGUFBuilder.error {
                $0.addTensor("t", dimensions: [1]); $0.addTensor("t", dimensions: [1], offset: 32); $0.data = 64
            }?.isMalformed == true)
        #expect(
            GGUFBuilder.error {
                $0.addTensor("t", dimensions: [9]); $0.addTensor("u", dimensions: [1], offset: 32); $0.data = 64
            }?.isMalformed == true)
        // Types that are not read have sizes too.
        #expect(
            GGUFBuilder.error {
                $0.addTensor("t", dimensions: [255], type: 16); $0.data = 96
            }?.isMalformed == true)
        #expect(
            GGUFBuilder.error {
                $0.addTensor("t", dimensions: [256], type: 16); $0.data = 64
            }?.isMalformed == true)
    }

    @Test("types that are not read", arguments: [(16, "IQ2_XXS"), (40, "NVFP4"), (33, "Q4_0_8_8"), (99, "type 99")] as [(UInt32, String)])
    func typesThatAreNotRead(code: UInt32, name: String) throws {
        // A failure means that a file is refused for a tensor that nothing needs, or that one that is needed is not named.
        var builder = GGUFBuilder(data: 192)
        builder.addTensor("blk.0.attn_q.weight", dimensions: [256, 1], type: code)
        builder.addTensor("f", dimensions: [2], offset: 160)
        let file = try builder.open()
        #expect(file.find("f")?.bytes.count == 8 && file.find("blk.0.attn_q.weight")?.type == .unread)
        let tensor = try RenamedTensors(file) { $0 == "f" ? nil : $0 + ".renamed" }.tensor("blk.0.attn_q.weight.renamed")
        for error in [checkpointError { try RowReader(tensor, columns: 256) }, checkpointError { try Tensor(matrix: tensor, rows: 1, columns: 256) }] {
            let error = try #require(error)
            #expect(error.isElementType && error.description.contains(name) && error.description.contains("blk.0.attn_q.weight"))
            #expect(error.description.contains("llama-quantize"))
        }
    }

    @Test("written GGUF files read back bit for bit") func writingAndReading() throws {
        // A failure means that what is written does not load again, bit for bit.
        try CheckpointFixtures.withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("out.gguf")
            let metadata: [(key: String, value: GGUFValue)] = [
                ("u8", .uint8(200)), ("i8", .int8(-3)), ("u16", .uint16(60000)), ("i16", .int16(-300)), ("u32", .uint32(.max)),
                ("i32", .int32(.min)),
                ("u64", .uint64(.max)), ("i64", .int64(.min)), ("f32", .float32(0.1)), ("f64", .float64(0.1)), ("bool", .bool(true)),
                ("string", .string("ä😀")), ("bytes", .string([0xFF, 0xFE])), ("strings", .array(GGUFArray(["", "a", "ü"]))),
                ("floats", .array(GGUFArray([1.5, -2] as [Float]))), ("ints", .array(GGUFArray([1, -2] as [Int32]))),
                ("bools", .array(GGUFArray([true, false]))),
                ("nested", .array(GGUFArray([GGUFArray(["x"]), GGUFArray([7] as [Int32])]))),
            ]
            let tensors = [
                TensorDescription(name: "q4", type: .q4_0, shape: [3, 64]), TensorDescription(name: "f", type: .bf16, shape: [5]),
                TensorDescription(name: "k", type: .q6_K, shape: [2, 256]),
            ]
            try GGUFWriter.write(tensors, metadata: metadata, to: url) { tensor, sink in
                try sink.write([UInt8](repeating: UInt8(tensor.name.utf8.first ?? 0), count: tensor.byteCount(file: "")))
            }
            let file = try GGUFFile(contentsOf: url)
            let read = file.metadata
            #expect(read.keys == metadata.map(\.key))
            #expect(try read.int("u8") == 200 && read.int("i8") == -3 && read.int("u16") == 60000 && read.int("i16") == -300)
            #expect(try read.int("u32") == Int(UInt32.max) && read.int("i32") == Int(Int32.min) && read.int("i64") == .min)
            #expect(checkpointError { try read.int("u64") }?.isConfiguration == true)
            #expect(try read.float("f32") == Double(Float(0.1)) && read.float("f64") == 0.1 && read.bool("bool") == true)
            #expect(try read.string("string") == "ä😀" && read.strings("strings") == ["", "a", "ü"])
            #expect(try read.floats("floats") == [1.5, -2] && read.ints("ints") == [1, -2] && read.floats("ints") == [1, -2])
            #expect(try read.array("bools")?.bools() == [true, false])
            #expect(try read.array("nested")?.elements().count == 2)
            #expect(try read.string("absent") == nil && read.ints("absent") == nil)
            for key in ["bytes", "u8", "strings"] { #expect(checkpointError { try read.string(key) }?.isConfiguration == true) }
            #expect(checkpointError { try read.ints("strings") }?.isConfiguration == true)
            for tensor in tensors {
                let found = try file.tensor(tensor.name)
                #expect(found.shape == tensor.shape && found.type == tensor.type)
                #expect(found.bytes.allSatisfy { $0 == tensor.name.utf8.first })
            }
            let partial = TensorDescription(name: "x", type: .q8_0, shape: [2, 16])
            #expect(checkpointError { try GGUFWriter.write([partial], metadata: [], to: url) { _, _ in } }?.isMalformed == true)
            #expect(
                checkpointError { try GGUFWriter.write([], metadata: [("a", .bool(true)), ("a", .bool(true))], to: url) { _, _ in } }?
                    .isMalformed == true)
        }
    }
}
