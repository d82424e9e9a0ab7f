import Foundation

/// One `.safetensors` file, memory-mapped: eight bytes of header length, a JSON header, then the tensors' bytes side by side.
///
/// Everything the header says is checked on opening, as the format's own parser does: lengths against the file, every tensor's
/// bytes against its type and shape, no overlap and no gap between tensors, no name twice.
/// Nothing of the tensors is read before it is used.
package struct SafetensorsFile: TensorSource {
    /// The largest header that is read, as in the reference parser.
    package static let headerLimit = 100_000_000

    package let names: [String]
    /// The header's `__metadata__`.
    package let metadata: [String: String]
    /// The mapping of all tensors.
    package let file: MappedFile

    private let tensors: [String: StoredTensor]
    /// Names that only the metadata have, for tensors that are stored under another one.
    private(set) var aliases: [String] = []

    package var location: String { file.path }

    /// - Throws: ``CheckpointError``
    package init(contentsOf url: URL, needed: String = "it was named as input") throws {
        try self.init(MappedFile(contentsOf: url, needed: needed))
    }

    /// Reads the header of a file that is already in memory.
    /// - Throws: ``CheckpointError/malformed(file:reason:)``, ``CheckpointError/elementType(tensor:expected:found:file:)``
    package init(_ file: MappedFile) throws {
        self.file = file
        let header = try SafetensorsHeader(file)
        metadata = header.metadata

        let data = UnsafeRawBufferPointer(rebasing: file.bytes[header.dataStart...])
        var tensors = [String: StoredTensor](minimumCapacity: header.entries.count)
        var end = 0
        for entry in header.entries.sorted(by: { ($0.start, $0.end) < ($1.start, $1.end) }) {
            guard entry.start == end else {
                let what = entry.start < end ? "overlaps the tensor before it" : "leaves a gap after the tensor before it"
                throw CheckpointError.malformed(
                    file: file.path, reason: "\(entry.name) \(what): it starts at byte \(entry.start) of the data, expected \(end)")
            }
            guard entry.end <= data.count else {
                // A damaged header may name any place.
                let (needed, overflows) = header.dataStart.addingReportingOverflow(header.entries.map(\.end).max() ?? entry.end)
                throw CheckpointError.cutOff(
                    file: file.path, bytes: file.bytes.count, needed: overflows ? Int.max : needed,
                    reading: "\(entry.name) ends at byte \(entry.end) of the data")
            }
            end = entry.end
            tensors[entry.name] = StoredTensor(
                name: entry.name, type: entry.type, typeName: entry.type == .unread ? entry.typeName : nil, shape: entry.shape,
                bytes: UnsafeRawBufferPointer(rebasing: data[entry.start..<entry.end]), file: file)
        }
        guard end == data.count else {
            throw CheckpointError.malformed(
                file: file.path, reason: "\(data.count - end) bytes behind the last tensor, expected none")
        }
        // safetensors' save_model drops tensors that share memory with another one, and maps their names to the other's.
        for (name, stored) in metadata where tensors[name] == nil {
            guard let tensor = tensors[stored] else { continue }
            aliases.append(name)
            tensors[name] = tensor.named(name)
        }
        self.tensors = tensors
        names = tensors.keys.sorted()
    }

    package func find(_ name: String) -> StoredTensor? { tensors[name] }
}

/// The parsed header of a safetensors file; offsets count from `dataStart`.
private struct SafetensorsHeader {
    struct Entry {
        let name: String
        let type: ElementType
        let typeName: String
        let shape: [Int]
        let start: Int
        let end: Int
    }

    private(set) var entries: [Entry] = []
    private(set) var metadata: [String: String] = [:]
    let dataStart: Int

    init(_ file: MappedFile) throws {
        let bytes = file.bytes
        guard bytes.count >= 8 else {
            throw CheckpointError.malformed(file: file.path, reason: "\(bytes.count) bytes, expected at least 8 for the header's length")
        }
        let length = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
        guard length <= UInt64(SafetensorsFile.headerLimit) else {
            throw CheckpointError.malformed(
                file: file.path, reason: "a header of \(length) bytes, expected at most \(SafetensorsFile.headerLimit)")
        }
        guard Int(length) <= bytes.count - 8 else {
            throw CheckpointError.cutOff(file: file.path, bytes: bytes.count, needed: 8 + Int(length), reading: "the header")
        }
        dataStart = 8 + Int(length)
        guard length > 0, bytes[8] == UInt8(ascii: "{") else {
            throw CheckpointError.malformed(file: file.path, reason: "the header does not start with {")
        }

        var reader = try JSONReader(UnsafeRawBufferPointer(rebasing: bytes[8..<dataStart]), file: file.path)
        var entries: [Entry] = []
        var metadata: [String: String] = [:]
        try reader.readObject { name, reader in
            if name == "__metadata__" {
                try reader.readObject { key, reader in metadata[key] = try reader.readString() }
            } else {
                entries.append(try Self.readEntry(name, &reader, file: file.path))
            }
        }
        try reader.expectEnd()
        (self.entries, self.metadata) = (entries, metadata)
    }

    private static func readEntry(_ name: String, _ reader: inout JSONReader, file: String) throws -> Entry {
        var typeName: String?
        var shape: [Int]?
        var offsets: [Int]?
        try reader.readObject { key, reader in
            switch key {
            case "dtype": typeName = try reader.readString()
            case "shape": shape = try readCounts(&reader, limit: 64, what: "dimensions of \(name)")
            case "data_offsets": offsets = try readCounts(&reader, limit: 2, what: "offsets of \(name)")
            default: try reader.skipValue()
            }
        }
        guard let typeName, let shape, let offsets, offsets.count == 2 else {
            throw CheckpointError.malformed(file: file, reason: "\(name) needs dtype, shape and two data_offsets in the header")
        }
        guard let type = ElementType(safetensorsName: typeName) ?? (isTypeName(typeName) ? .unread : nil) else {
            throw CheckpointError.elementType(tensor: name, expected: "one of \(ElementType.safetensorsNames)", found: String(typeName.prefix(40)), file: file)
        }
        var count = 1
        for dimension in shape {
            let (product, overflow) = count.multipliedReportingOverflow(by: dimension)
            guard !overflow else { throw CheckpointError.malformed(file: file, reason: "the shape \(shape) of \(name) is absurd") }
            count = product
        }
        guard offsets[0] <= offsets[1], type == .unread || type.bytes(for: count) == offsets[1] - offsets[0] else {
            throw CheckpointError.malformed(
                file: file,
                reason: "\(name) is \(typeName) \(shape) and its data_offsets are \(offsets): the number of bytes does not fit the shape")
        }
        return Entry(name: name, type: type, typeName: String(typeName.prefix(40)), shape: shape, start: offsets[0], end: offsets[1])
    }

    /// Whether this may be a type that the format has and that is not known here, such as `F6_E2M3`.
    private static func isTypeName(_ name: String) -> Bool {
        (1 ... 32).contains(name.utf8.count) && name.utf8.allSatisfy { (0x41 ... 0x5A).contains($0) || (0x30 ... 0x39).contains($0) || $0 == 0x5F }
    }

    private static func readCounts(_ reader: inout JSONReader, limit: Int, what: String) throws -> [Int] {
        var counts: [Int] = []
        try reader.readArray { reader in
            let count = try reader.readInteger()
            guard count >= 0 else { throw reader.malformed("\(what): expected no negative number, found \(count)") }
            guard counts.count < limit else { throw reader.malformed("\(what): more than \(limit)") }
            counts.append(count)
        }
        return counts
    }
}

extension ElementType {
    /// The type's name in a safetensors header; `nil` for types that safetensors does not have, and for those that are not read.
    package var safetensorsName: String? {
        switch self {
        case .f64: "F64"
        case .f32: "F32"
        case .f16: "F16"
        case .bf16: "BF16"
        case .f8_e4m3: "F8_E4M3"
        case .f8_e5m2: "F8_E5M2"
        case .i64: "I64"
        case .i32: "I32"
        case .i16: "I16"
        case .i8: "I8"
        case .u8: "U8"
        case .bool: "BOOL"
        default: nil
        }
    }

    /// The names of all types that are read, for messages.
    static var safetensorsNames: String { allCases.compactMap(\.safetensorsName).joined(separator: ", ") }

    /// The type that a safetensors header calls `name`.
    package init?(safetensorsName name: String) {
        guard let type = Self.allCases.first(where: { $0.safetensorsName == name }) else { return nil }
        self = type
    }
}
