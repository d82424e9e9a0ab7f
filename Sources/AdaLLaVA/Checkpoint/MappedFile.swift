import Foundation

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#endif

/// The bytes of a file, mapped read-only into memory: nothing is read before it is touched, and pages that were read can be given
/// back to the system at any time.
///
/// The size is taken once, on opening. A file that another program shortens afterwards ends the process with a bus error when the
/// missing part is touched, as with every mapping: checkpoints are replaced by renaming, never rewritten in place.
package final class MappedFile: @unchecked Sendable {
    /// All bytes of the file. Valid as long as this object lives.
    package let bytes: UnsafeRawBufferPointer
    /// Where the bytes come from, for messages.
    package let path: String

    private let isMapping: Bool

    /// Maps the file at `url`.
    /// - Throws: ``CheckpointError/missing(file:needed:)``, ``CheckpointError/unreadable(file:reason:)`` (a folder, no permission),
    ///   ``CheckpointError/malformed(file:reason:)`` (an empty file), ``CheckpointError/unsupported(what:file:hint:)`` (a Git LFS pointer, a web page).
    package init(contentsOf url: URL, needed: String = "it was named as input") throws {
        let path = url.path
        // Not blocking: a named pipe without a writer must end in an error, not in waiting.
        let descriptor = Files.open(path, O_RDONLY | O_NONBLOCK)
        guard descriptor >= 0 else {
            let code = errno
            if code == ENOENT || code == ENOTDIR { throw CheckpointError.missing(file: path, needed: needed) }
            throw CheckpointError.unreadable(file: path, reason: String(cString: strerror(code)))
        }
        defer { close(descriptor) }

        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            throw CheckpointError.unreadable(file: path, reason: String(cString: strerror(errno)))
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            let isFolder = status.st_mode & S_IFMT == S_IFDIR
            throw CheckpointError.unreadable(file: path, reason: isFolder ? "it is a folder" : "it is not a regular file")
        }
        guard status.st_size > 0, let size = Int(exactly: status.st_size) else {
            throw CheckpointError.malformed(file: path, reason: "the file is empty")
        }
        guard let base = mmap(nil, size, PROT_READ, MAP_PRIVATE, descriptor, 0), base != MAP_FAILED else {
            throw CheckpointError.unreadable(file: path, reason: "mapping \(size) bytes: \(String(cString: strerror(errno)))")
        }
        bytes = UnsafeRawBufferPointer(start: base, count: size)
        self.path = path
        isMapping = true
        if let found = MappedFile.standIn(bytes) {
            throw CheckpointError.unsupported(what: found.what, file: path, hint: found.hint)
        }
    }

    /// Files that people get in place of a large file that was not downloaded; `nil` for all others.
    package static func standIn(_ bytes: some Collection<UInt8>) -> (what: String, hint: String)? {
        if bytes.starts(with: "version https://git-lfs.github.com/spec/".utf8) {
            return ("a Git LFS pointer in place of the file", "the repository was cloned without its large files; fetch them with git lfs pull")
        }
        let start = String(decoding: bytes.prefix(64), as: UTF8.self).drop { $0.isWhitespace }.lowercased()
        if start.hasPrefix("<!doctype html") || start.hasPrefix("<html") {
            return ("a web page (HTML) in place of the file", "download the file itself (of Hugging Face: /resolve/, not /blob/)")
        }
        return nil
    }

    /// A copy of `contents` in memory, to read bytes that did not come from a file with the same readers.
    /// - Parameter path: the name in messages.
    package init(copying contents: some Collection<UInt8>, path: String) {
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: contents.count, alignment: 64)
        copy.copyBytes(from: contents)
        bytes = UnsafeRawBufferPointer(copy)
        self.path = path
        isMapping = false
    }

    deinit {
        if isMapping {
            munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count)
        } else {
            bytes.deallocate()
        }
    }

    /// Tells the system that the bytes in `range` are not needed soon, so that their memory can be used for something else; they
    /// are read from the file again when touched. Only pages wholly inside the range are given back.
    /// Parts of the range outside the file are ignored.
    package func release(_ range: Range<Int>) {
        guard isMapping, let base = bytes.baseAddress else { return }
        let page = Int(getpagesize())
        let range = range.clamped(to: 0..<bytes.count)
        let first = (range.lowerBound + page - 1) / page * page
        // The file's last page is never shared with anything else.
        let last = range.upperBound == bytes.count ? bytes.count : range.upperBound / page * page
        guard first < last else { return }
        madvise(UnsafeMutableRawPointer(mutating: base + first), last - first, MADV_DONTNEED)
    }

    /// Releases the pages of `part`, which must be a slice of ``bytes``; anything else is ignored.
    package func release(_ part: UnsafeRawBufferPointer) {
        guard let base = bytes.baseAddress, let start = part.baseAddress, start >= base, start <= base + bytes.count else { return }
        let offset = start - base
        release(offset..<(offset + min(part.count, bytes.count - offset)))
    }
}
