import Foundation

/// A state dict that `torch.save` wrote (`.pth`, `.pt`, `.bin`): a zip archive since PyTorch 1.6, before that pickles followed by the tensors'
/// bytes. Both are read; tensors stay in the mapped file, unless their values are not in row-major order.
///
/// Nothing in the file is executed: see ``TorchPickle``. Every length, offset and shape is checked on opening.
package struct TorchArchive: TensorSource {
    package let names: [String]
    package var location: String { file.path }

    private let file: MappedFile
    private let tensors: [String: StoredTensor]

    /// - Throws: ``CheckpointError``
    package init(contentsOf url: URL) throws { try self.init(MappedFile(contentsOf: url)) }

    /// Reads a file that is already in memory.
    /// - Throws: ``CheckpointError``
    package init(_ file: MappedFile) throws {
        self.file = file
        let (state, pickle, storages) = try StoredZip.isZip(file.bytes) ? Self.readZip(file) : Self.readLegacy(file)
        guard case .dictionary(let index) = state else {
            throw CheckpointError.unsupported(
                what: "a PyTorch file that does not hold a dictionary", file: file.path, hint: "save model.state_dict()")
        }
        var tensors: [String: StoredTensor] = [:]
        for (key, value) in pickle.dictionaries[index] {
            guard case .text(let name) = key, case .tensor(let view) = value else {
                throw CheckpointError.unsupported(
                    what: "a dictionary with something else than named tensors", file: file.path, hint: "save model.state_dict()")
            }
            let tensor = try Self.tensor(name, view, storages[view.storage.key], file)
            guard tensors.updateValue(tensor, forKey: name) == nil else {
                throw CheckpointError.malformed(file: file.path, reason: "two tensors are called \(quoted(name))")
            }
        }
        self.tensors = tensors
        names = tensors.keys.sorted()
    }

    package func find(_ name: String) -> StoredTensor? { tensors[name] }

    private typealias Contents = (state: TorchPickle.Value, pickle: TorchPickle, storages: [String: Range<Int>])

    // MARK: - The two formats

    /// `NAME/data.pkl`, and the storages as `NAME/data/KEY`.
    private static func readZip(_ file: MappedFile) throws -> Contents {
        let archive = try StoredZip(file.bytes, file: file.path)
        let pickles = archive.entries.filter { $0.key.hasSuffix("/data.pkl") }
        guard pickles.count == 1, let (name, range) = pickles.first else {
            throw CheckpointError.malformed(file: file.path, reason: "\(pickles.count) entries called data.pkl, expected one")
        }
        let folder = name.dropLast("data.pkl".count)
        if let order = archive.entries[folder + "byteorder"], !file.bytes[order].elementsEqual("little".utf8) {
            throw CheckpointError.unsupported(what: "a file from a big-endian machine", file: file.path, hint: "")
        }
        var pickle = TorchPickle(UnsafeRawBufferPointer(rebasing: file.bytes[range]), at: 0, file: file.path)
        let state = try pickle.read()
        var storages: [String: Range<Int>] = [:]
        let prefix = folder + "data/"
        for (name, range) in archive.entries where name.hasPrefix(prefix) { storages[String(name.dropFirst(prefix.count))] = range }
        return (state, pickle, storages)
    }

    /// The pickle of PyTorch's magic number, 0x1950a86a20f9469cfc6c.
    private static let legacyMagic: [UInt8] = [0x80, 2, 0x8A, 10, 0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19, 0x2E]

    /// Pickles of the magic number, the format's version, the machine's sizes, the state dict and the storages' keys, then for each key the
    /// number of elements and the elements.
    private static func readLegacy(_ file: MappedFile) throws -> Contents {
        func malformed(_ reason: String) -> CheckpointError { .malformed(file: file.path, reason: reason) }
        guard file.bytes.starts(with: legacyMagic) else {
            throw malformed("it begins neither as a zip archive nor with PyTorch's magic number")
        }
        var pickle = TorchPickle(file.bytes, at: legacyMagic.count, file: file.path)
        guard try pickle.read() == .integer(1001) else { throw malformed("expected version 1001 of PyTorch's format") }
        guard case .dictionary(let system) = try pickle.read(),
            pickle.dictionaries[system].contains(where: { $0.key == .text("little_endian") && $0.value == .bool(true) })
        else { throw CheckpointError.unsupported(what: "a file from a big-endian machine", file: file.path, hint: "") }
        let state = try pickle.read()
        guard case .list(let list) = try pickle.read() else { throw malformed("expected the list of storages after the state dict") }
        let sizes = try storageSizes(state, pickle, file: file.path)
        var position = pickle.position
        var storages: [String: Range<Int>] = [:]
        for key in pickle.lists[list] {
            guard case .text(let key) = key, let storage = sizes[key] else { throw malformed("a storage that no tensor uses") }
            guard position <= file.bytes.count - 8 else { throw malformed("the file is cut off before storage \(quoted(key))") }
            let count = Int64(littleEndian: file.bytes.loadUnaligned(fromByteOffset: position, as: Int64.self))
            guard count == storage.count, let size = storage.type.bytes(for: storage.count) else {
                throw malformed("storage \(quoted(key)) has \(count) elements, expected \(storage.count)")
            }
            position += 8
            guard size <= file.bytes.count - position else { throw malformed("the file is cut off in storage \(quoted(key))") }
            guard storages.updateValue(position ..< position + size, forKey: key) == nil else {
                throw malformed("storage \(quoted(key)) is there twice")
            }
            position += size
        }
        return (state, pickle, storages)
    }

    private static func storageSizes(
        _ state: TorchPickle.Value, _ pickle: TorchPickle, file: String
    ) throws -> [String: TorchPickle.Storage] {
        var sizes: [String: TorchPickle.Storage] = [:]
        guard case .dictionary(let index) = state else { return sizes }
        for case (_, .tensor(let view)) in pickle.dictionaries[index] {
            if let other = sizes.updateValue(view.storage, forKey: view.storage.key), other != view.storage {
                throw CheckpointError.malformed(file: file, reason: "storage \(quoted(view.storage.key)) has two sizes or types")
            }
        }
        return sizes
    }

    // MARK: - Tensors

    private static func tensor(
        _ name: String, _ view: TorchPickle.TensorView, _ storage: Range<Int>?, _ file: MappedFile
    ) throws -> StoredTensor {
        func malformed(_ reason: String) -> CheckpointError {
            .malformed(file: file.path, reason: "\(quoted(String(name.prefix(80)))): \(reason)")
        }
        guard let storage else { throw malformed("its storage is missing") }
        guard let needed = view.storage.type.bytes(for: view.storage.count), needed <= storage.count else {
            throw malformed("its storage has \(storage.count) bytes, too few for \(view.storage.count) \(view.storage.type.rawValue) values")
        }
        var count = 1
        for side in view.shape {
            let (product, overflow) = count.multipliedReportingOverflow(by: side)
            guard side >= 0, !overflow else { throw malformed("the shape \(view.shape) is absurd") }
            count = product
        }
        guard view.strides.count == view.shape.count else { throw malformed("strides \(view.strides) for the shape \(view.shape)") }
        // The last element's distance from the first. That there are no more elements than the storage has keeps a stride of 0 from
        // making a large tensor of a small file.
        var reach = 0
        for (side, stride) in zip(view.shape, view.strides) where count > 0 {
            let (distance, overflow) = (side - 1).multipliedReportingOverflow(by: stride)
            let (sum, sumOverflow) = reach.addingReportingOverflow(distance)
            guard stride >= 0, !overflow, !sumOverflow else { throw malformed("the strides \(view.strides) are absurd") }
            reach = sum
        }
        guard view.offset >= 0, view.offset <= view.storage.count, count <= view.storage.count,
            count == 0 || reach < view.storage.count - view.offset
        else {
            throw malformed(
                "shape \(view.shape) with strides \(view.strides) from \(view.offset) on does not lie in a storage of \(view.storage.count)")
        }
        let element = view.storage.type.block.bytes
        let start = storage.lowerBound + view.offset * element
        if isContiguous(view) {
            let bytes = UnsafeRawBufferPointer(rebasing: file.bytes[start ..< start + count * element])
            return StoredTensor(name: name, type: view.storage.type, shape: view.shape, bytes: bytes, file: file)
        }
        let bytes = UnsafeRawBufferPointer(rebasing: file.bytes[start ..< start + (count == 0 ? 0 : reach + 1) * element])
        let copy = MappedFile(copying: gather(view, count: count, from: bytes, element: element), path: file.path)
        return StoredTensor(name: name, type: view.storage.type, shape: view.shape, bytes: copy.bytes, file: copy)
    }

    private static func isContiguous(_ view: TorchPickle.TensorView) -> Bool {
        var expected = 1
        for (side, stride) in zip(view.shape, view.strides).reversed() {
            if side != 1, stride != expected { return false }
            // Cannot overflow, except after an empty side, where the value is not used: it divides the number of elements.
            expected = expected.multipliedReportingOverflow(by: side).partialValue
        }
        return true
    }

    /// The elements of a tensor in row-major order. Weights that came from TensorFlow are in another order.
    private static func gather(_ view: TorchPickle.TensorView, count: Int, from bytes: UnsafeRawBufferPointer, element: Int) -> [UInt8] {
        var result = [UInt8]()
        result.reserveCapacity(count * element)
        var index = [Int](repeating: 0, count: view.shape.count)
        var position = 0
        for _ in 0 ..< count {
            result.append(contentsOf: bytes[position * element ..< (position + 1) * element])
            for axis in view.shape.indices.reversed() {
                index[axis] += 1
                position += view.strides[axis]
                if index[axis] < view.shape[axis] { break }
                position -= index[axis] * view.strides[axis]
                index[axis] = 0
            }
        }
        return result
    }
}
