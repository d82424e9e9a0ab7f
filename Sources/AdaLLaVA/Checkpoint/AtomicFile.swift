import Foundation

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#endif

/// A file that is written beside its destination and takes its place only when it is complete and on disk, so that a reader, a
/// crash or a full disk never meets half a file. What is no file (a pipe, a device) is written as it is and stays there; a symbolic link is
/// followed.
final class AtomicFile {
    private let destination: URL
    /// `nil`: written as it is.
    private let temporaryPath: String?
    private var descriptor: Int32
    private var buffer: [UInt8] = []
    /// Bytes written so far.
    private(set) var count = 0

    private static let bufferSize = 1 << 20

    /// - Throws: ``CheckpointError/unwritable(file:reason:)`` if the folder cannot be written.
    init(replacing destination: URL) throws {
        let destination = destination.resolvingSymlinksInPath()
        self.destination = destination
        var status = stat()
        if stat(destination.path, &status) == 0, status.st_mode & S_IFMT != S_IFREG {
            temporaryPath = nil
            descriptor = open(destination.path, O_WRONLY | O_CLOEXEC)
        } else {
            let name = ".\(destination.lastPathComponent).\(getpid())-\(UInt32.random(in: 0 ... .max)).partial"
            let path = destination.deletingLastPathComponent().appendingPathComponent(name).path
            temporaryPath = path
            descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
        }
        guard descriptor >= 0 else { throw Self.failure(destination, String(cString: strerror(errno))) }
        buffer.reserveCapacity(Self.bufferSize)
    }

    deinit {
        guard descriptor >= 0 else { return }
        close(descriptor)
        if let temporaryPath { unlink(temporaryPath) }
    }

    func write(_ bytes: UnsafeRawBufferPointer) throws {
        count += bytes.count
        if buffer.count + bytes.count <= Self.bufferSize {
            buffer.append(contentsOf: bytes)
        } else {
            try flush()
            if bytes.count < Self.bufferSize { buffer.append(contentsOf: bytes) } else { try writeThrough(bytes) }
        }
    }

    func write(_ bytes: [UInt8]) throws {
        try bytes.withUnsafeBytes { try write($0) }
    }

    /// Appends zeros until ``count`` is a multiple of `alignment`.
    func pad(to alignment: Int) throws {
        let missing = (alignment - count % alignment) % alignment
        if missing > 0 { try write([UInt8](repeating: 0, count: missing)) }
    }

    /// Makes the file durable and moves it to its destination.
    func commit() throws {
        try flush()
        guard let temporaryPath else {
            close(descriptor)
            descriptor = -1
            return
        }
        guard fsync(descriptor) == 0 else { throw Self.failure(destination, String(cString: strerror(errno))) }
        guard rename(temporaryPath, destination.path) == 0 else {
            throw Self.failure(destination, String(cString: strerror(errno)))
        }
        close(descriptor)
        descriptor = -1
        // The rename itself must survive a power cut too; a folder that cannot be synced is no reason to fail.
        let folder = open(destination.deletingLastPathComponent().path, O_RDONLY | O_CLOEXEC)
        if folder >= 0 {
            fsync(folder)
            close(folder)
        }
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
            guard written > 0 else { throw Self.failure(destination, String(cString: strerror(errno))) }
            done += written
        }
    }

    private static func failure(_ url: URL, _ reason: String) -> CheckpointError {
        .unwritable(file: url.path, reason: reason)
    }
}

/// The system call, which the methods of ``AtomicFile`` would hide.
private func systemWrite(_ descriptor: Int32, _ bytes: UnsafeRawPointer, _ count: Int) -> Int {
    write(descriptor, bytes, count)
}

/// Name, type and shape of a tensor that is to be written.
public struct TensorDescription: Sendable, Equatable {
    /// The name in the file.
    public let name: String
    /// The element type that its bytes have.
    public let type: ElementType
    /// Row-major, outermost first.
    public let shape: [Int]

    /// A description given by value; checked when it is written.
    public init(name: String, type: ElementType, shape: [Int]) {
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

/// Takes the bytes of one tensor while a checkpoint is written, in as many pieces as the caller likes.
public struct TensorSink {
    let file: AtomicFile

    /// Appends `bytes` to the tensor.
    /// - Throws: ``CheckpointError/unwritable(file:reason:)`` if the disk is full or fails.
    public func write(_ bytes: UnsafeRawBufferPointer) throws { try file.write(bytes) }

    /// Appends values as they lie in memory (little-endian on every platform this runs on).
    public func write<Value: BitwiseCopyable>(_ values: [Value]) throws {
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
