import Foundation
import Testing

@testable import AdaLLaVA

@Suite struct CheckpointSafetensorsTests {
    typealias Fixtures = CheckpointFixtures

    /// A file with this header and `data` zero bytes behind it.
    private func file(_ header: String, data: Int, length: UInt64? = nil) -> MappedFile {
        var bytes: [UInt8] = []
        bytes.appendLittleEndian(length ?? UInt64(header.utf8.count))
        return MappedFile(copying: bytes + Array(header.utf8) + [UInt8](repeating: 0, count: data), path: "test.safetensors")
    }

    private func error(_ header: String, data: Int = 8, length: UInt64? = nil) -> CheckpointError? {
        checkpointError { try SafetensorsFile(file(header, data: data, length: length)) }
    }

    @Test("safetensors headers are read") func headerIsRead() throws {
        // A failure means that valid files are refused or misread.
        let header =
            #"{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},"a":{"shape":[2,1],"dtype":"F16","data_offsets":[0,4],"x":[{}]},"e":{"dtype":"I64","shape":[0,3],"data_offsets":[4,4]},"s":{"dtype":"BOOL","shape":[],"data_offsets":[8,9]}}   "#
        let read = try SafetensorsFile(file(header, data: 9))
        #expect(read.names == ["a", "b", "e", "s"])
        #expect(read.metadata == ["format": "pt"])
        #expect(read.find("a")?.shape == [2, 1] && read.find("a")?.type == .f16 && read.find("a")?.bytes.count == 4)
        #expect(read.find("e")?.bytes.count == 0 && read.find("s")?.count == 1)
        #expect(checkpointError { try read.tensor("c") } == .missingTensor(name: "c", file: "test.safetensors"))
        #expect(try SafetensorsFile(file("{}", data: 0)).names.isEmpty)
    }

    @Test("invalid safetensors headers are refused", arguments: [
        // Wrong number of bytes for the shape, offsets turned round, negative, too large, out of the file, not reaching its end.
        #"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#,
        #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#,
        #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}"#,
        #"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#,
        #"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#,
        #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
        #"{"a":{"dtype":"F32","shape":[4611686018427387904,4611686018427387904],"data_offsets":[0,8]}}"#,
        #"{"a":{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,8]}}"#,
        #"{"a":{"dtype":"U8","shape":[9223372036854775807],"data_offsets":[0,9223372036854775807]}}"#,
        // Overlap and gap.
        #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
        #"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
        // Fields missing, of the wrong kind or too many; names twice.
        #"{"a":{"dtype":"F32","shape":[2]}}"#, #"{"a":{"shape":[2],"data_offsets":[0,8]}}"#, #"{"a":{"dtype":"F32","data_offsets":[0,8]}}"#,
        #"{"a":{"dtype":4,"shape":[2],"data_offsets":[0,8]}}"#, #"{"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}}"#,
        #"{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}"#, #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}}"#,
        #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}}"#, #"{"a":[]}"#, #"[]"#, "",
        #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#,
        #"{"__metadata__":{"format":1}}"#, #"{"__metadata__":[]}"#, #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} x"#,
    ])
    func invalidHeader(header: String) {
        // A failure means that a damaged file is opened, and reading its tensors may leave the mapping.
        #expect(error(header)?.isMalformed == true)
    }

    @Test("safetensors files of the wrong length are refused") func lengths() {
        // A failure means that a cut-off file, or one whose header claims an absurd length, is opened or makes us allocate.
        let header = #"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#
        #expect(error(header, data: 7)?.isMalformed == true)
        #expect(error(header, data: 9)?.isMalformed == true)
        #expect(error(header, length: 1 << 40)?.isMalformed == true)
        #expect(error(header, length: .max)?.isMalformed == true)
        #expect(error(header, length: 200)?.isMalformed == true)
        #expect(error(header, length: 100_000_001)?.description.contains("100000000") == true)
        #expect(checkpointError { try SafetensorsFile(MappedFile(copying: [1, 2, 3], path: "short")) }?.isMalformed == true)
    }

    @Test("types that are not read") func typesThatAreNotRead() throws {
        // A failure means that values of a type we cannot read are taken for something else, that the message does not say which, or that such a tensor
        // is refused where nothing needs it.
        let header = #"{"a":{"dtype":"F4","shape":[16],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}"#
        let read = try SafetensorsFile(file(header, data: 12))
        #expect(read.find("a")?.type == .unread && read.find("b")?.bytes.count == 4)
        let error = try #require(checkpointError { try Tensor(vector: read.tensor("a"), count: 16) })
        #expect(error.isElementType && error.description.contains("found F4,") && error.description.contains("a in test.safetensors"))
        // What cannot be the name of a type is damage.
        for name in ["", #"\u001b[31mF9"#, "F 4", "f4", String(repeating: "F", count: 33)] {
            #expect(self.error(#"{"a":{"dtype":"\#(name)","shape":[8],"data_offsets":[0,8]}}"#)?.isElementType == true, "\(name)")
        }
        // Its bytes must lie in the file as any other's.
        #expect(self.error(#"{"a":{"dtype":"F4","shape":[16],"data_offsets":[0,9]}}"#)?.isMalformed == true)
    }

    @Test("safetensors headers are limited in depth") func nestedHeader() {
        // A failure means that a header of brackets can overflow the stack.
        #expect(error(#"{"a":{"x":"# + String(repeating: "[", count: 500_000))?.isMalformed == true)
    }

    @Test("written safetensors files read back bit for bit, aligned") func writingAndReading() throws {
        // A failure means that what is written does not load again, bit for bit, or that tensors are not aligned.
        try Fixtures.withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("out.safetensors")
            let tensors = [
                TensorDescription(name: "bytes", type: .u8, shape: [3]),
                TensorDescription(name: "half \"quoted\"", type: .f16, shape: [2, 1]),
                TensorDescription(name: "single", type: .f32, shape: [2, 2]), TensorDescription(name: "empty", type: .f32, shape: [0, 5]),
                TensorDescription(name: "long", type: .i64, shape: [1]),
            ]
            try SafetensorsWriter.write(tensors, metadata: ["format": "pt", "note": "ä"], to: url) { tensor, sink in
                switch tensor.name {
                case "bytes": try sink.write([1, 2, 3] as [UInt8])
                case "single": for value in [1, 2, 3, 4] as [Float] { try sink.write([value]) }
                case "long": try sink.write([Int64(-1)])
                case "empty": break
                default: try sink.write([0x3C00, 0xBC00] as [UInt16])
                }
            }
            let read = try SafetensorsFile(contentsOf: url)
            #expect(read.metadata == ["format": "pt", "note": "ä"])
            #expect(read.names == tensors.map(\.name).sorted())
            for tensor in tensors {
                let found = try read.tensor(tensor.name)
                #expect(found.type == tensor.type && found.shape == tensor.shape)
                if found.bytes.count > 0, let address = found.bytes.baseAddress {
                    #expect(Int(bitPattern: address) % found.type.block.bytes == 0)
                }
            }
            #expect(try read.tensor("single").bytes.load(fromByteOffset: 12, as: Float.self) == 4)
            #expect(try Array(read.tensor("bytes").bytes) == [1, 2, 3])
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["out.safetensors"])
        }
    }

    @Test("a failed write leaves the old file") func failedWriting() throws {
        // A failure means that an interrupted conversion leaves half a file, or damages the one that was there.
        try Fixtures.withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("out.safetensors")
            try SafetensorsWriter.write([("a", [1], [1])], to: url)
            let before = try Data(contentsOf: url)
            let tensor = TensorDescription(name: "a", type: .f32, shape: [2])
            #expect(
                checkpointError { try SafetensorsWriter.write([tensor], to: url) { _, sink in try sink.write([1] as [Float]) } }?
                    .isMalformed == true)
            #expect(throws: CancellationError.self) { try SafetensorsWriter.write([tensor], to: url) { _, _ in throw CancellationError() } }
            #expect(checkpointError { try SafetensorsWriter.write([tensor, tensor], to: url) { _, _ in } }?.isMalformed == true)
            let quantized = TensorDescription(name: "q", type: .q8_0, shape: [32])
            #expect(checkpointError { try SafetensorsWriter.write([quantized], to: url) { _, _ in } }?.isElementType == true)
            #expect(try Data(contentsOf: url) == before)
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["out.safetensors"])
            let nowhere = folder.appendingPathComponent("missing/out.safetensors")
            #expect(checkpointError { try SafetensorsWriter.write([("a", [1], [1])], to: nowhere) }?.isUnwritable == true)
        }
    }

    @Test("broken sets of shards are refused by name") func shards() throws {
        // A failure means that a broken set of shards is opened, that a shard may lie outside the checkpoint's folder, or that the
        // message does not name the shard.
        try Fixtures.withTemporaryFolder { folder in
            try SafetensorsWriter.write([("a", [1], [1]), ("hidden", [1], [0])], to: folder.appendingPathComponent("one.safetensors"))
            try SafetensorsWriter.write([("b", [1], [2])], to: folder.appendingPathComponent("two.safetensors"))
            let index = folder.appendingPathComponent("model.safetensors.index.json")
            func open(_ map: String) throws -> ShardedTensors {
                try Data(#"{"metadata":{"total_size":8},"weight_map":\#(map)}"#.utf8).write(to: index)
                return try ShardedTensors(index: index)
            }
            let opened = try open(#"{"a":"one.safetensors","b":"two.safetensors"}"#)
            #expect(opened.names == ["a", "b"] && opened.find("hidden") == nil)
            let tensor = try opened.tensor("b")
            #expect(try Tensor(vector: tensor, count: 1).values == [2])

            let missing = try #require(checkpointError { try open(#"{"a":"one.safetensors","b":"three.safetensors"}"#) })
            #expect(missing.isMissing && missing.description.contains("three.safetensors") && missing.description.contains("index.json"))
            // What the index names and no shard holds is missing where it is needed, and nowhere else.
            let partial = try open(#"{"a":"two.safetensors","b":"two.safetensors"}"#)
            #expect(partial.names == ["b"])
            let absent = try #require(checkpointError { try partial.tensor("a") })
            #expect(absent.isMissingTensor && absent.description.contains("index.json"))
            for shard in ["../one.safetensors", "/etc/passwd", "", ".", "..", "a/b", "a\\\\b"] {
                #expect(checkpointError { try open(#"{"a":"\#(shard)"}"#) }?.isMalformed == true, "\(shard)")
            }
            for map in ["{}", "[]", "null", #"{"a":1}"#, #"{"a":"one.safetensors","a":"two.safetensors"}"#] {
                #expect(checkpointError { try open(map) }?.isMalformed == true, "\(map)")
            }
        }
    }

    @Test("released pages come back") func releasedPagesComeBack() throws {
        // A failure means that giving memory back loses weights.
        let file = try MappedFile(contentsOf: Fixtures.fixture("ada-L/model.safetensors"))
        let sum = file.bytes.reduce(into: UInt64(0)) { $0 = $0 &* 31 &+ UInt64($1) }
        file.release(0..<file.bytes.count)
        file.release(-5..<100_000_000)
        file.release(UnsafeRawBufferPointer(rebasing: file.bytes[100..<50_000]))
        #expect(file.bytes.reduce(into: UInt64(0)) { $0 = $0 &* 31 &+ UInt64($1) } == sum)
    }
}
