import Foundation

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#endif

/// A call of the system that failed.
package struct SystemError: LocalizedError {
    package let errorDescription: String?

    /// - Parameter code: `errno`, by default of the last call.
    package init(_ code: Int32 = errno) { errorDescription = String(cString: strerror(code)) }

    init(reason: String) { errorDescription = reason }
}

/// The file system by names that may be no UTF-8, which Foundation's calls replace by names that do not exist (``SystemPath``).
package enum Files {
    // MARK: Looking

    package static func exists(_ url: URL) -> Bool { FileKind(url) != .nothing }

    /// Opens a file.
    /// - Returns: a descriptor; negative, with `errno` set, when that failed.
    package static func open(_ path: String, _ flags: Int32, _ mode: mode_t = 0o644) -> Int32 {
        SystemPath.withBytes(path) { systemOpen($0, flags | O_CLOEXEC, mode) }
    }

    /// The kind of a path according to the system; `nil` if the system reports nothing.
    package static func status(_ url: URL, followsLinks: Bool = true) -> stat? {
        var status = stat()
        let result = SystemPath.withBytes(url.path) { followsLinks ? stat($0, &status) : lstat($0, &status) }
        return result == 0 ? status : nil
    }

    /// Whether the process may write at `url`.
    package static func isWritable(_ url: URL) -> Bool { SystemPath.withBytes(url.path) { access($0, W_OK) } == 0 }

    /// The names in a folder, hidden ones too, sorted.
    /// - Throws: ``SystemError``
    package static func names(in folder: URL) throws -> [String] {
        guard let stream = SystemPath.withBytes(folder.path, { opendir($0) }) else { throw SystemError() }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { text(UnsafeRawPointer($0).assumingMemoryBound(to: CChar.self)) }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    /// The bytes of a file.
    /// - Parameter mapped: leave the bytes in the file until they are read; only for files that no other program truncates.
    /// - Throws: ``SystemError``
    package static func data(_ url: URL, mapped: Bool = false) throws -> Data {
        let descriptor = open(url.path, O_RDONLY)
        guard descriptor >= 0 else { throw SystemError() }
        let handle = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT != S_IFDIR else { throw SystemError(EISDIR) }
        if mapped, status.st_mode & S_IFMT == S_IFREG, status.st_size > 0, let size = Int(exactly: status.st_size) {
            guard let base = mmap(nil, size, PROT_READ, MAP_PRIVATE, descriptor, 0), base != MAP_FAILED else { throw SystemError() }
            return Data(bytesNoCopy: base, count: size, deallocator: .unmap)
        }
        return try handle.readToEnd() ?? Data()
    }

    /// A path without symbolic links, as far as it exists.
    package static func resolved(_ url: URL) -> URL {
        if let real = SystemPath.withBytes(url.path, { realpath($0, nil) }) {
            defer { free(real) }
            return URL(fileURLWithPath: text(real))
        }
        let parent = url.deletingLastPathComponent()
        // A link whose destination is not there yet names the file to be made.
        if let link = destination(ofLink: url) { return resolved(URL(fileURLWithPath: link, relativeTo: parent).standardizedFileURL) }
        guard parent.path != url.path, url.path != "/" else { return url }
        return resolved(parent).appendingPathComponent(url.lastPathComponent)
    }

    private static func destination(ofLink url: URL) -> String? {
        var bytes = [UInt8](repeating: 0, count: Int(PATH_MAX))
        let count = SystemPath.withBytes(url.path) { path in
            bytes.withUnsafeMutableBytes { bytes in
                bytes.baseAddress.map { readlink(path, $0.assumingMemoryBound(to: CChar.self), bytes.count) } ?? -1
            }
        }
        return count > 0 ? SystemPath.text(bytes.prefix(count)) : nil
    }

    private static func text(_ path: UnsafePointer<CChar>) -> String {
        SystemPath.text(UnsafeRawBufferPointer(start: path, count: strlen(path)))
    }

    // MARK: Changing

    /// Writes a small file that appears whole or not at all; a power cut may still take it.
    /// - Throws: ``SystemError``
    package static func write(_ data: Data, to url: URL) throws {
        do {
            let file = try AtomicFile(replacing: url, isDurable: false)
            try data.withUnsafeBytes { try file.write($0) }
            try file.commit()
        } catch CheckpointError.unwritable(_, let reason) {
            throw SystemError(reason: reason)
        }
    }

    /// Makes a folder and those above it; one that is there already is left as it is.
    /// - Throws: ``SystemError``
    package static func createFolder(_ url: URL) throws {
        if SystemPath.withBytes(url.path, { mkdir($0, 0o777) }) == 0 { return }
        let code = errno
        if code == ENOENT, url.path != "/" {
            try createFolder(url.deletingLastPathComponent())
            return try check(SystemPath.withBytes(url.path) { mkdir($0, 0o777) })
        }
        guard code == EEXIST, FileKind(url) == .folder else { throw SystemError(code) }
    }

    /// Gives a file or folder another name; a file there is replaced.
    /// - Throws: ``SystemError``
    package static func move(_ url: URL, to destination: URL) throws {
        try check(SystemPath.withBytes(url.path) { from in SystemPath.withBytes(destination.path) { rename(from, $0) } })
    }

    /// Removes a file, or a folder with everything in it.
    /// - Throws: ``SystemError``
    package static func remove(_ url: URL) throws {
        guard let status = status(url, followsLinks: false) else { throw SystemError() }
        guard status.st_mode & S_IFMT == S_IFDIR else { return try check(SystemPath.withBytes(url.path) { unlink($0) }) }
        for name in try names(in: url) { try remove(url.appendingPathComponent(name)) }
        try check(SystemPath.withBytes(url.path) { rmdir($0) })
    }

    /// Copies a file, or a folder with its contents; symbolic links are followed.
    /// - Throws: ``SystemError``
    package static func copy(_ url: URL, to destination: URL) throws {
        guard FileKind(url) == .folder else { return try write(data(url, mapped: true), to: destination) }
        try createFolder(destination)
        for name in try names(in: url) { try copy(url.appendingPathComponent(name), to: destination.appendingPathComponent(name)) }
    }

    /// Makes a rename in a folder survive a power cut; a folder that cannot be synchronized is no reason to fail.
    static func synchronize(folder: URL) {
        let descriptor = open(folder.path, O_RDONLY)
        guard descriptor >= 0 else { return }
        fsync(descriptor)
        close(descriptor)
    }

    private static func check(_ result: Int32) throws {
        if result != 0 { throw SystemError() }
    }
}

extension URL {
    /// The file of a path on a command line. Unlike Foundation's version, it is right in a working folder whose name is not UTF-8.
    package init(systemPath path: String) {
        guard !path.hasPrefix("/"), let here = getcwd(nil, 0) else { self = URL(fileURLWithPath: path); return }
        defer { free(here) }
        let folder = SystemPath.text(UnsafeRawBufferPointer(start: here, count: strlen(here)))
        self = folder.unicodeScalars.contains { SystemPath.byte($0) != nil } ? URL(fileURLWithPath: folder + "/" + path) : URL(fileURLWithPath: path)
    }
}

/// The system call, which ``Files/open(_:_:_:)`` hides.
private func systemOpen(_ path: UnsafePointer<CChar>, _ flags: Int32, _ mode: mode_t) -> Int32 { open(path, flags, mode) }
