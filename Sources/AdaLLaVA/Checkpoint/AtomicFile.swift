import Foundation

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#endif

/// A file that is written next to its destination and renamed only when it is complete and on disk, so that a reader never finds half a file, nor does
/// a crash or a full disk leave one. Pipes and devices are written directly; symbolic links are followed.
package final class AtomicFile {
    private let destination: URL
    /// Where the bytes go until ``commit()``; `nil`: they are written as they come.
    private let partial: URL?
    private var descriptor: Int32
    private var buffer: [UInt8] = []
    /// Bytes written so far.
    package private(set) var count = 0
    private let isDurable: Bool

    private static let bufferSize = 1 << 20

    /// - Parameter isDurable: wait until the bytes are on the disk before the file takes its place.
    /// - Throws: ``CheckpointError/unwritable(file:reason:)`` if the folder cannot be written.
    package init(replacing destination: URL, isDurable: Bool = true) throws {
        self.isDurable = isDurable
        let destination = Files.resolved(destination)
        self.destination = destination
        if let status = Files.status(destination), status.st_mode & S_IFMT != S_IFREG {
            partial = nil
            descriptor = Files.open(destination.path, O_WRONLY)
            guard descriptor >= 0 else { throw Self.failure(destination) }
        } else {
            do {
                let made = try PartialFiles.make(for: destination, isFolder: false)
                (partial, descriptor) = (made.url, made.descriptor)
            } catch {
                throw Self.failure(destination, error.localizedDescription)
            }
        }
        buffer.reserveCapacity(Self.bufferSize)
    }

    deinit {
        guard descriptor >= 0 else { return }
        if let partial { PartialFiles.abandon(partial) } else { close(descriptor) }
    }

    package func write(_ bytes: UnsafeRawBufferPointer) throws {
        count += bytes.count
        if buffer.count + bytes.count <= Self.bufferSize {
            buffer.append(contentsOf: bytes)
        } else {
            try flush()
            if bytes.count < Self.bufferSize { buffer.append(contentsOf: bytes) } else { try writeThrough(bytes) }
        }
    }

    package func write(_ bytes: [UInt8]) throws {
        try bytes.withUnsafeBytes { try write($0) }
    }

    /// Appends zeros until ``count`` is a multiple of `alignment`.
    func pad(to alignment: Int) throws {
        let missing = (alignment - count % alignment) % alignment
        if missing > 0 { try write([UInt8](repeating: 0, count: missing)) }
    }

    /// Writes out everything under the temporary name.
    /// - Returns: the path to read it before ``commit()``; `nil` for pipes and devices.
    func complete() throws -> URL? {
        try flush()
        guard let partial else { return nil }
        guard !isDurable || fsync(descriptor) == 0 else { throw Self.failure(destination) }
        return partial
    }

    /// Writes out everything and moves the file to its destination.
    package func commit() throws {
        guard let partial = try complete() else {
            close(descriptor)
            descriptor = -1
            return
        }
        do { try PartialFiles.committing { try Files.move(partial, to: destination) } } catch { throw Self.failure(destination, error.localizedDescription) }
        descriptor = -1
        PartialFiles.settle(partial)
        if isDurable { Files.synchronize(folder: destination.deletingLastPathComponent()) }
    }

    private func flush() throws {
        guard !buffer.isEmpty else { return }
        try buffer.withUnsafeBytes { try writeThrough($0) }
        buffer.removeAll(keepingCapacity: true)
    }

    private func writeThrough(_ bytes: UnsafeRawBufferPointer) throws {
        var done = 0
        while done < bytes.count, let base = bytes.baseAddress {
            // Linux writes at most 2 GiB at a time.
            let written = systemWrite(descriptor, base + done, min(bytes.count - done, 1 << 30))
            if written < 0 && errno == EINTR { continue }
            guard written > 0 else { throw Self.failure(destination) }
            done += written
        }
    }

    private static func failure(_ url: URL, _ reason: String = SystemError().localizedDescription) -> CheckpointError {
        .unwritable(file: url.path, reason: reason)
    }
}

/// The system call, which the methods of ``AtomicFile`` would hide.
private func systemWrite(_ descriptor: Int32, _ bytes: UnsafeRawPointer, _ count: Int) -> Int {
    write(descriptor, bytes, count)
}

/// Name, type and shape of a tensor that is to be written.
package struct TensorDescription: Sendable, Equatable {
    /// The name in the file.
    package let name: String
    /// The element type that its bytes have.
    package let type: ElementType
    /// Row-major, outermost first.
    package let shape: [Int]

    /// A description given by value; checked when it is written.
    package init(name: String, type: ElementType, shape: [Int]) {
        (self.name, self.type, self.shape) = (name, type, shape)
    }

    /// Bytes that the tensor takes.
    /// - Throws: ``CheckpointError/malformed(file:reason:)`` if the shape is negative, overflows or does not fill whole blocks.
    func byteCount(file: String) throws -> Int {
        var count = 1
        for dimension in shape {
            let (product, overflow) = count.multipliedReportingOverflow(by: dimension)
            guard dimension >= 0, !overflow else {
                throw CheckpointError.malformed(file: file, reason: "\(name) cannot be written with the shape \(shape)")
            }
            count = product
        }
        guard (shape.last ?? 1) % type.block.values == 0, let bytes = type.bytes(for: count) else {
            throw CheckpointError.malformed(
                file: file, reason: "\(name) of shape \(shape): rows do not fill whole \(type.rawValue) blocks of \(type.block.values)")
        }
        return bytes
    }
}

/// Takes the bytes of one tensor while a checkpoint is written, in as many parts as the caller likes.
package struct TensorSink {
    let file: AtomicFile

    /// Appends `bytes` to the tensor.
    /// - Throws: ``CheckpointError/unwritable(file:reason:)`` if the disk is full or fails.
    package func write(_ bytes: UnsafeRawBufferPointer) throws { try file.write(bytes) }

    /// Appends values with their bytes in memory (little-endian on every platform this runs on).
    package func write<Value: BitwiseCopyable>(_ values: [Value]) throws {
        try values.withUnsafeBytes { try file.write($0) }
    }
}

extension AtomicFile {
    /// Lets `body` write one tensor and checks that it wrote as many bytes as announced.
    func writeTensor(_ tensor: TensorDescription, bytes: Int, to url: URL, _ body: (TensorDescription, TensorSink) throws -> Void) throws {
        let start = count
        try body(tensor, TensorSink(file: self))
        guard count - start == bytes else {
            throw CheckpointError.malformed(
                file: url.path,
                reason:
                    "\(tensor.name) of type \(tensor.type.rawValue) and shape \(tensor.shape): \(count - start) bytes were given, expected \(bytes)"
            )
        }
    }
}
