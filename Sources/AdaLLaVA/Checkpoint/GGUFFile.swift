import Foundation

/// One GGUF file (versions 2 and 3, little-endian), memory-mapped: metadata, tensor descriptions, then the tensors' bytes.
///
/// Everything that can be checked is checked on opening: counts and lengths against the file before anything is allocated for
/// them, names, types, alignment, and that every tensor is inside the file and overlaps no other.
///
/// A tensor of a type that is not read has the type ``ElementType/unread``; reading its values is an error with its name and type.
/// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
package struct GGUFFile: TensorSource {
    /// The largest `general.alignment` that is accepted.
    package static let alignmentLimit = 1 << 20

    /// The format's version, 2 or 3.
    package let version: Int
    /// The file's keys and values.
    package let metadata: GGUFMetadata
    package let names: [String]
    /// The mapping of all tensors.
    package let file: MappedFile

    private let tensors: [String: StoredTensor]

    package var location: String { file.path }

    /// - Throws: ``CheckpointError``
    package init(contentsOf url: URL, needed: String = "it was named as input") throws {
        try self.init(MappedFile(contentsOf: url, needed: needed))
    }

    /// Reads a file that is already in memory.
    /// - Throws: ``CheckpointError``
    package init(_ file: MappedFile) throws {
        self.file = file
        var cursor = GGUFCursor(file, at: 0)
        version = try Self.readVersion(&cursor, file: file.path)
        let tensorCount = try cursor.readCount(of: "tensors", minimumSize: GGUFTensorInfo.minimumSize)
        // The shortest pair: a key of one byte and its length, a type, a value of one byte.
        let pairCount = try cursor.readCount(of: "metadata pairs", minimumSize: 14)
        metadata = try Self.readMetadata(&cursor, count: pairCount, location: file.path)

        let alignment = try metadata.int("general.alignment") ?? 32
        guard (1...Self.alignmentLimit).contains(alignment), alignment & (alignment - 1) == 0 else {
            throw CheckpointError.configuration(
                field: "general.alignment", expected: "a power of two up to \(Self.alignmentLimit)", found: "\(alignment)", file: file.path)
        }
        let infos = try (0..<tensorCount).map { _ in try GGUFTensorInfo(&cursor, file: file.path) }
        let dataStart = (cursor.position + alignment - 1) / alignment * alignment
        tensors = try Self.place(infos, dataStart: dataStart, alignment: alignment, file: file)
        names = tensors.keys.sorted()
    }

    /// One model in several files; the first has the metadata.
    /// - Throws: ``CheckpointError/malformed(file:reason:)`` if two of them hold the same tensor.
    init(joining parts: [GGUFFile]) throws {
        let first = parts[0]
        (version, metadata, file) = (first.version, first.metadata, first.file)
        var tensors: [String: StoredTensor] = [:]
        for part in parts {
            for (name, tensor) in part.tensors where tensors.updateValue(tensor, forKey: name) != nil {
                throw CheckpointError.malformed(file: part.location, reason: "another part holds the tensor \(name) too")
            }
        }
        self.tensors = tensors
        names = tensors.keys.sorted()
    }

    package func find(_ name: String) -> StoredTensor? { tensors[name] }

    /// Whether `bytes` start as a GGUF file does.
    package static func isGGUF(_ bytes: UnsafeRawBufferPointer) -> Bool {
        bytes.starts(with: "GGUF".utf8)
    }

    private static func readVersion(_ cursor: inout GGUFCursor, file: String) throws -> Int {
        let magic = try cursor.read(UInt32.self)
        guard magic == 0x4655_4747 else {
            // Forerunners of GGUF: ggml, ggmf, ggjt, ggla.
            if [0x6767_6D6C, 0x6767_6D66, 0x6767_6A74, 0x6767_6C61].contains(magic) {
                throw CheckpointError.unsupported(
                    what: "a GGML file older than GGUF", file: file, hint: "convert the original checkpoint to GGUF again")
            }
            throw CheckpointError.malformed(file: file, reason: "it does not start with \"GGUF\"")
        }
        let version = try cursor.read(UInt32.self)
        if version & 0xFFFF == 0, version != 0 {
            throw CheckpointError.unsupported(
                what: "big-endian GGUF", file: file, hint: "convert the checkpoint for little-endian machines")
        }
        guard version == 2 || version == 3 else {
            throw CheckpointError.unsupported(what: "GGUF version \(version)", file: file, hint: "versions 2 and 3 are read")
        }
        return Int(version)
    }

    private static func readMetadata(_ cursor: inout GGUFCursor, count: Int, location: String) throws -> GGUFMetadata {
        var keys: [String] = []
        var values: [String: GGUFValue] = [:]
        for _ in 0..<count {
            let key = try cursor.readName(of: "a metadata key")
            let type = try cursor.readType()
            let value = try cursor.readValue(type)
            guard values.updateValue(value, forKey: key) == nil else { throw cursor.malformed("the key \(key) is there twice") }
            keys.append(key)
        }
        return GGUFMetadata(keys: keys, values: values, location: location)
    }

    /// Turns descriptions into tensors, after checking that their bytes are inside the file and do not overlap.
    private static func place(_ infos: [GGUFTensorInfo], dataStart: Int, alignment: Int, file: MappedFile) throws -> [String: StoredTensor] {
        let available = max(0, file.bytes.count - dataStart)
        var tensors = [String: StoredTensor](minimumCapacity: infos.count)
        var end = 0
        var previous = ""
        for info in infos.sorted(by: { ($0.offset, $0.size) < ($1.offset, $1.size) }) {
            guard info.offset % alignment == 0 else {
                throw CheckpointError.malformed(
                    file: file.path, reason: "\(info.name) starts at byte \(info.offset) of the data, expected a multiple of \(alignment)")
            }
            guard info.offset >= end else {
                throw CheckpointError.malformed(file: file.path, reason: "\(info.name) overlaps \(previous)")
            }
            guard info.offset <= available, info.size <= available - info.offset else {
                let needed = infos.reduce(0) { max($0, $1.offset.addingReportingOverflow($1.size).partialValue) }
                throw CheckpointError.cutOff(
                    file: file.path, bytes: file.bytes.count, needed: dataStart.addingReportingOverflow(needed).partialValue,
                    reading: "\(info.name) takes \(info.size) bytes from byte \(info.offset) of the data")
            }
            (end, previous) = (info.offset + info.size, info.name)
            let start = dataStart + info.offset
            // The place of an empty tensor may be after the end of a file without its last padding.
            let bytes = info.size == 0 ? file.bytes[0..<0] : file.bytes[start..<(start + info.size)]
            let tensor = StoredTensor(
                name: info.name, type: info.type, typeName: info.type == .unread ? info.typeName : nil, shape: info.shape,
                bytes: UnsafeRawBufferPointer(rebasing: bytes), file: file)
            guard tensors.updateValue(tensor, forKey: info.name) == nil else {
                throw CheckpointError.malformed(file: file.path, reason: "the tensor \(info.name) is there twice")
            }
        }
        return tensors
    }
}

/// A tensor's description in a GGUF file.
struct GGUFTensorInfo {
    /// Length of the name, one byte of it, number of dimensions, type, offset.
    static let minimumSize = 8 + 1 + 4 + 4 + 8
    static let dimensionLimit = 4

    let name: String
    let type: ElementType
    let typeName: String
    /// Outermost first: the file has them the other way round.
    let shape: [Int]
    /// From the start of the tensor data.
    let offset: Int
    /// In bytes.
    let size: Int

    init(_ cursor: inout GGUFCursor, file: String) throws {
        let name = try cursor.readName(of: "a tensor's name")
        let dimensions = try cursor.read(UInt32.self)
        guard dimensions <= Self.dimensionLimit else {
            throw cursor.malformed("\(name) has \(dimensions) dimensions, expected at most \(Self.dimensionLimit)")
        }
        var shape: [Int] = []
        var count = 1
        for _ in 0..<dimensions {
            let dimension = try cursor.read(UInt64.self)
            guard let dimension = Int(exactly: dimension), case (let product, let overflow) = count.multipliedReportingOverflow(by: dimension),
                !overflow
            else { throw cursor.malformed("the shape of \(name) is absurd") }
            count = product
            shape.insert(dimension, at: 0)
        }
        let code = try cursor.read(UInt32.self)
        let (type, typeName, block) = ElementType.ggml(code)
        let (size, overflow) = (count / block.values).multipliedReportingOverflow(by: block.bytes)
        guard (shape.last ?? 1) % block.values == 0, !overflow else {
            throw cursor.malformed("\(name) of shape \(shape): rows do not fill whole \(typeName) blocks of \(block.values)")
        }
        let offset = try cursor.read(UInt64.self)
        guard let offset = Int(exactly: offset) else { throw cursor.malformed("\(name) starts at byte \(offset) of the data") }
        (self.name, self.type, self.typeName, self.shape, self.offset, self.size) = (name, type, typeName, shape, offset, size)
    }
}
