import Foundation
import Testing

@testable import AdaLLaVA

/// PyTorch's own files, and files made to harm.
@Suite struct TorchArchiveTests {
    // MARK: - Pickles made by hand

    /// Writes the opcodes that `torch.save` writes.
    struct Pickle {
        var bytes: [UInt8] = [0x80, 2]

        static func little<Number: FixedWidthInteger>(_ number: Number) -> [UInt8] { withUnsafeBytes(of: number.littleEndian) { Array($0) } }

        mutating func add(_ more: [UInt8]) { bytes += more }
        mutating func op(_ character: Character) { bytes += Array(String(character).utf8) }
        mutating func text(_ text: String) { add([0x58] + Self.little(UInt32(text.utf8.count)) + Array(text.utf8)) }
        mutating func global(_ name: String) { add(Array("c\(name)\n".utf8)) }
        mutating func integer(_ value: Int) { add([0x8A, 8] + Self.little(Int64(value))) }
        mutating func tuple(_ values: [Int]) {
            op("(")
            for value in values { integer(value) }
            op("t")
        }

        /// A tensor of float32 on storage `key`.
        mutating func tensor(_ key: String, count: Int, offset: Int = 0, shape: [Int], strides: [Int], type: String = "FloatStorage") {
            global("torch._utils\n_rebuild_tensor_v2")
            op("(")
            op("(")
            text("storage")
            global("torch\n\(type)")
            text(key)
            text("cpu")
            integer(count)
            op("t")
            op("Q")
            integer(offset)
            tuple(shape)
            tuple(strides)
            add([0x89])
            global("collections\nOrderedDict")
            op(")")
            op("R")
            op("t")
            op("R")
        }

        /// A state dict with what `body` puts between the mark and its end.
        static func state(_ body: (inout Pickle) -> Void) -> [UInt8] {
            var pickle = Pickle()
            pickle.op("}")
            pickle.op("(")
            body(&pickle)
            pickle.op("u")
            pickle.op(".")
            return pickle.bytes
        }
    }

    /// A zip archive of stored entries, as PyTorch's (checksums left out: they are not read).
    static func zip(_ entries: [(name: String, bytes: [UInt8])], method: UInt16 = 0) -> [UInt8] {
        var (file, directory): ([UInt8], [UInt8]) = ([], [])
        for (name, bytes) in entries {
            let sizes = Pickle.little(UInt32(0)) + Pickle.little(UInt32(bytes.count)) + Pickle.little(UInt32(bytes.count))
            let common = Pickle.little(UInt16(0)) + Pickle.little(method) + Pickle.little(UInt32(0)) + sizes + Pickle.little(UInt16(name.utf8.count))
            directory += Pickle.little(UInt32(0x0201_4B50)) + [0, 0, 0, 0] + common + [UInt8](repeating: 0, count: 12) + Pickle.little(UInt32(file.count))
            directory += Array(name.utf8)
            file += Pickle.little(UInt32(0x0403_4B50)) + [0, 0] + common + Pickle.little(UInt16(0)) + Array(name.utf8) + bytes
        }
        let end = Pickle.little(UInt32(0x0605_4B50)) + [0, 0, 0, 0] + Pickle.little(UInt16(entries.count)) + Pickle.little(UInt16(entries.count))
        return file + directory + end + Pickle.little(UInt32(directory.count)) + Pickle.little(UInt32(file.count)) + [0, 0]
    }

    static func archive(_ pickle: [UInt8], storages: [String: [Float]] = [:]) throws -> TorchArchive {
        let data = storages.sorted { $0.key < $1.key }.map { (name: "a/data/\($0.key)", bytes: $0.value.withUnsafeBytes { Array($0) }) }
        return try TorchArchive(MappedFile(copying: zip([("a/data.pkl", pickle)] + data), path: "test.pth"))
    }

    private func error(_ body: (inout Pickle) -> Void, storages: [String: [Float]] = ["0": [1, 2, 3, 4, 5, 6]]) -> CheckpointError? {
        checkpointError { try Self.archive(Pickle.state(body), storages: storages) }
    }

    // MARK: - What is read

    // A mismatch means that weights come out of one of PyTorch's two formats in another order, type or shape.
    @Test("both formats hold the same") func bothFormatsHoldTheSame() throws {
        let (old, new) = (try TorchArchive(contentsOf: TinyEfficientNet.source("legacy").appendingPathComponent("tiny.pth")),
                          try TorchArchive(contentsOf: TinyEfficientNet.source("zip").appendingPathComponent("tiny.pth")))
        #expect(old.names == new.names && old.names.count == 186)
        for name in old.names {
            let (a, b) = (try old.tensor(name), try new.tensor(name))
            #expect(a.type == b.type && a.shape == b.shape && a.bytes.elementsEqual(b.bytes), "\(name)")
        }
        #expect(try old.tensor("_bn0.num_batches_tracked").bytes.loadUnaligned(as: Int64.self) == 7)
        #expect(try old.tensor("_conv_stem.weight").shape == [8, 3, 3, 3])
    }

    // A mismatch means that a view of a storage is read from another place or in another order.
    @Test("views of a storage are read in their order") func viewsAreGathered() throws {
        let state = Pickle.state { pickle in
            for (name, offset, shape, strides) in [
                ("rows", 0, [2, 3], [3, 1]), ("columns", 0, [3, 2], [1, 3]), ("tail", 4, [2], [1]), ("every second", 1, [3], [2]), ("none", 6, [0, 5], [5, 1]),
                ("one", 5, [1, 1], [100, 7]), ("scalar", 2, [], []),
            ] {
                pickle.text(name)
                pickle.tensor("0", count: 6, offset: offset, shape: shape, strides: strides)
            }
        }
        let archive = try Self.archive(state, storages: ["0": [1, 2, 3, 4, 5, 6]])
        func values(_ name: String) throws -> [Float] {
            let tensor = try archive.tensor(name)
            return tensor.bytes.indices.filter { $0 % 4 == 0 }.map { tensor.bytes.loadUnaligned(fromByteOffset: $0, as: Float.self) }
        }
        #expect(try values("rows") == [1, 2, 3, 4, 5, 6] && values("columns") == [1, 4, 2, 5, 3, 6] && values("tail") == [5, 6])
        #expect(try values("every second") == [2, 4, 6] && values("none") == [] && values("one") == [6] && values("scalar") == [3])
    }

    // MARK: - What is refused

    // A failure means that a file can name a Python function, or an operation that calls one, without being refused.
    @Test("a pickle that calls a function is refused") func nothingIsCalled() {
        for name in ["os\nsystem", "builtins\neval", "torch._utils\n_rebuild_tensor", "torch\nload", "torch.nn.modules.conv\nConv2d", "posix\nsystem"] {
            #expect(error { pickle in
                pickle.text("x")
                pickle.global(name)
                pickle.text("touch /tmp/owned")
                pickle.add([0x85])
                pickle.op("R")
            }?.isUnsupported == true, "\(name)")
        }
        // INST, OBJ, NEWOBJ, STACK_GLOBAL, EXT1, PERSID, INT, FLOAT, BINBYTES.
        for operation in [0x69, 0x6F, 0x81, 0x93, 0x82, 0x50, 0x49, 0x46, 0x42] as [UInt8] {
            #expect(error { $0.add([operation, 0, 0, 0, 0, 0, 10]) }?.isUnsupported == true, "\(operation)")
        }
        #expect(error { pickle in
            pickle.text("x")
            pickle.text("not callable")
            pickle.op(")")
            pickle.op("R")
        }?.isMalformed == true)
    }

    // A failure means that a tensor can lie outside its storage or take more memory than the file has.
    @Test("tensors must lie in their storage") func tensorsMustLieInTheirStorage() {
        let huge = 1 << 62
        for (count, offset, shape, strides) in [
            (6, 0, [7], [1]), (6, 1, [6], [1]), (6, -1, [2], [1]), (6, 7, [0], [1]), (6, 0, [2, -3], [3, 1]), (6, 0, [2, 3], [3]), (6, 0, [2, 3], [-3, 1]),
            (6, 0, [huge, 4], [4, 1]), (6, 0, [2], [huge]), (6, 0, [3, 3], [huge, huge]), (6, 0, [1 << 40], [0]), (6, huge, [1], [1]), (7, 0, [7], [1]),
            (huge, 0, [2], [1]), (-1, 0, [0], [1]), (6, 0, [4, 2], [2, 1]), (6, 0, [Int](repeating: 1, count: 17), [Int](repeating: 1, count: 17)),
        ] {
            #expect(error { pickle in
                pickle.text("x")
                pickle.tensor("0", count: count, offset: offset, shape: shape, strides: strides)
            }?.isMalformed == true, "\(count) \(offset) \(shape) \(strides)")
        }
        #expect(error { pickle in
            pickle.text("x")
            pickle.tensor("1", count: 6, shape: [6], strides: [1])
        }?.isMalformed == true)
        #expect(error { pickle in
            for _ in 0 ..< 2 {
                pickle.text("twice")
                pickle.tensor("0", count: 6, shape: [6], strides: [1])
            }
        }?.isMalformed == true)
    }

    // A failure means that a pickle can recurse, loop or grow without end, or take from an empty stack.
    @Test("strange pickles end in errors") func strangePicklesEnd() {
        // A dictionary that holds itself, and tuples in tuples: described, not followed.
        #expect(error { pickle in
            pickle.bytes = [0x80, 2] + Array("}q".utf8) + [0]
            pickle.text("self")
            pickle.add(Array("h".utf8) + [0])
            pickle.op("s")
            pickle.op("(")
        }?.isUnsupported == true)
        #expect(error { pickle in
            pickle.text("x")
            pickle.op(")")
            for _ in 0 ..< 200_000 { pickle.add([0x85]) }
        }?.isUnsupported == true)
        #expect(error { $0.add([UInt8](repeating: UInt8(ascii: ")"), count: TorchPickle.operationLimit + 10)) }?.isMalformed == true)
        for bytes in [
            "", ".", "}", "}}.", "u.", "}u.", "}(N", "}(NNNu.", "N(s.", "}(Ns.", "Nb.", ")R.", "NR.", "]e.", "]Na", "(", "t.", "Q.", ")Q.", "h\u{1}.",
            "q\u{1}.", "X", "X\u{1}\u{0}\u{0}\u{0}", "c", "cos", "cos\nsystem", "K", "J\u{0}", "(t", "}(X\u{7F}\u{7F}\u{7F}\u{7F}",
        ] {
            #expect(checkpointError { try Self.archive([0x80, 2] + Array(bytes.utf8)) } != nil, "\(bytes)")
        }
        #expect(checkpointError { try Self.archive([0x80, 4, 0x95]) }?.isUnsupported == true)
        #expect(checkpointError { try Self.archive([0x80, 2, 0x8A, 9] + [UInt8](repeating: 1, count: 9) + Array(".".utf8)) }?.isMalformed == true)
        #expect(checkpointError { try Self.archive([0x80, 2, 0x58, 2, 0, 0, 0, 0xC3, 0x28] + Array(".".utf8)) }?.isMalformed == true)
    }

    // A failure means that a damaged or compressed archive is read as if it were whole.
    @Test("damaged archives are refused") func damagedArchives() {
        let pickle = Pickle.state { _ in }
        func open(_ bytes: [UInt8]) -> CheckpointError? { checkpointError { try TorchArchive(MappedFile(copying: bytes, path: "x")) } }
        #expect(open(Self.zip([("a/data.pkl", pickle)])) == nil)
        #expect(open(Self.zip([("a/data.pkl", pickle)], method: 8))?.isUnsupported == true)
        #expect(open(Self.zip([("a/data.pkl", pickle), ("a/byteorder", Array("big".utf8))]))?.isUnsupported == true)
        #expect(open(Self.zip([("a/data.pkl", pickle), ("b/data.pkl", pickle)]))?.isMalformed == true)
        #expect(open(Self.zip([("a/data.pkl", pickle), ("a/data.pkl", pickle)]))?.isMalformed == true)
        #expect(open(Self.zip([("a/other", pickle)]))?.isMalformed == true)
        #expect(open([0x50, 0x4B, 3, 4])?.isMalformed == true && open([1, 2, 3])?.isMalformed == true)
        #expect(open(Array("PK\u{3}\u{4}".utf8) + [UInt8](repeating: 0, count: 100))?.isMalformed == true)
    }

    // A failure means that some damaged file crashes the process, or opens with tensors that cannot be read to their last byte.
    @Test("damage ends in errors", arguments: ["legacy", "zip"]) func damageEndsInErrors(format: String) throws {
        let original = try [UInt8](Data(contentsOf: TinyEfficientNet.source(format).appendingPathComponent("tiny.pth")))
        var random = SeededGenerator(seed: 11)
        var (opened, refused) = (0, 0)
        // The structure stands at the front of the older format, and at both ends of the archive.
        func position(_ count: Int) -> Int {
            let near = Int.random(in: 0 ..< min(count, 16000), using: &random)
            return format == "zip" && Bool.random(using: &random) ? count - 1 - near : near
        }
        for _ in 0 ..< 3000 {
            var bytes = original
            for _ in 0 ..< Int.random(in: 1 ... 3, using: &random) {
                let place = position(bytes.count)
                switch Int.random(in: 0 ..< 5, using: &random) {
                case 0: bytes[place] ^= 1 << UInt8.random(in: 0 ..< 8, using: &random)
                case 1: bytes[place] = UInt8.random(in: 0 ... 255, using: &random)
                case 2: bytes.removeSubrange(place ..< min(bytes.count, place + Int.random(in: 1 ... 40, using: &random)))
                case 3:
                    let value = [0, 0xFF, 0xFFFF_FFFF, UInt64(1) << 62, .max].randomElement(using: &random) ?? 0
                    for offset in 0 ..< min(8, bytes.count - place) { bytes[place + offset] = UInt8(truncatingIfNeeded: value >> (8 * UInt64(offset))) }
                default:
                    let piece = Array(bytes[place ..< min(bytes.count, place + 24)])
                    bytes.insert(contentsOf: piece, at: position(bytes.count))
                }
            }
            if Int.random(in: 0 ..< 10, using: &random) == 0 { bytes.removeLast(Int.random(in: 0 ..< bytes.count, using: &random)) }
            do {
                let archive = try TorchArchive(MappedFile(copying: bytes, path: "damaged.pth"))
                for name in archive.names {
                    let tensor = try archive.tensor(name)
                    #expect(tensor.type.bytes(for: tensor.count) == tensor.bytes.count)
                    _ = tensor.bytes.reduce(0) { $0 &+ Int($1) }
                }
                opened += 1
            } catch let error as CheckpointError {
                refused += 1
                #expect(error.category == .badData)
            }
        }
        #expect(opened > 50 && refused > 500, "\(opened) opened, \(refused) refused")
    }

    // MARK: - The converter

    // A failure means that the converter takes weights of another network, or leaves something behind when it refuses.
    @Test("other weights are refused") func otherWeightsAreRefused() throws {
        try CheckpointFixtures.withTemporaryFolder { folder in
            let (source, output) = (folder.appendingPathComponent("in"), folder.appendingPathComponent("out"))
            try FileManager.default.createDirectory(at: source, withIntermediateDirectories: true)
            let file = source.appendingPathComponent("model.pth")
            try FileManager.default.copyItem(at: TinyEfficientNet.source("zip").appendingPathComponent("tiny.pth"), to: file)
            // Without its config.json the tiny network is none of the published ones.
            #expect(EfficientNetConverter.accepts(source) && EfficientNetConverter.accepts(file))
            #expect(checkpointError { try EfficientNetConverter(file, to: .f16, output: output) }?.isUnsupported == true)
            let config = source.appendingPathComponent("config.json")
            try Data(#"{"model_type": "llava_llama"}"#.utf8).write(to: config)
            #expect(checkpointError { try EfficientNetConverter(source, to: .f16, output: output) }?.isMissing == true)
            try Data(#"{"model_type": "efficientnet_lite", "variant": "lite0"}"#.utf8).write(to: config)
            #expect(checkpointError { try EfficientNetConverter(source, to: .f16, output: output).run() } != nil)
            #expect(throws: ConversionError.towerNeedsFolder("q8_0", output: output.path)) { try EfficientNetConverter(source, to: .q8_0, output: output) }
            try Data([0x80, 2]).write(to: file)
            #expect(checkpointError { try EfficientNetConverter(source, to: .f16, output: output) }?.isMalformed == true)
            #expect(!EfficientNetConverter.accepts(Fixtures.url("ada-L")) && !EfficientNetConverter.accepts(folder.appendingPathComponent("none.pth")))
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["in"])
        }
    }
}
