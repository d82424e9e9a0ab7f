import AdaLLaVA
import Foundation

/// The source of an image, in the forms that people write on a command line.
package enum ImageSource: Sendable, Equatable {
    /// A file, by its path.
    case file(String)
    /// The bytes of standard input.
    case standardInput
    /// The bytes of a `data:` URL.
    case data([UInt8])

    /// - Parameter argument: a path, `-` for standard input, a `file:` URL of this machine (RFC 8089), or a `data:` URL (RFC 2397, base64 or
    ///   percent-encoded).
    /// - Throws: ``ImageError/argument(name:reason:)``
    package init(argument: String) throws {
        let scheme = argument.prefix { $0 != ":" }.lowercased()
        if argument == "-" {
            self = .standardInput
        } else if argument.isEmpty {
            throw ImageError.argument(name: "image", reason: "expected a path, `-` for standard input, a file: or a data: URL, found an empty text")
        } else if scheme == "data", argument.contains(":") {
            self = .data(try Self.bytes(ofDataURL: argument.dropFirst(5)))
        } else if scheme == "file", argument.dropFirst(5).hasPrefix("/") {
            self = .file(try Self.path(ofFileURL: argument))
        } else if argument.contains("://"), scheme == "http" || scheme == "https" {
            throw ImageError.argument(
                name: String(argument.prefix(80)),
                reason: "images are not fetched from the network; download it and pass the file, or pipe it in: curl URL | … -")
        } else {
            self = .file(argument)
        }
    }

    /// The name in messages.
    package var name: String {
        switch self {
        case .file(let path): path
        case .standardInput: "standard input"
        case .data: "data: URL"
        }
    }

    /// All bytes. The rest of a file or pipe is read only if the first bytes are those of an image within `limits`, and reading stops with an
    /// error at a size that no such image has, so an endless pipe ends.
    /// - Throws: ``ImageError``
    package func read(limits: ImageLimits = .standard) throws -> [UInt8] {
        switch self {
        case .data(let bytes): bytes
        case .standardInput: try Self.readAll(FileHandle.standardInput.fileDescriptor, name: name, limits: limits)
        case .file(let path): try Self.withFile(path) { try Self.readAll($0, name: path, limits: limits) }
        }
    }

    /// The size according to the header; `nil` if the header is long, or the source can be read only once (standard input).
    /// - Throws: ``ImageError`` if this is not an image, or one beyond `limits`.
    func announcedSize(limits: ImageLimits) throws -> (width: Int, height: Int)? {
        switch self {
        case .data(let bytes): try Self.announcedSize(bytes, name: name, limits: limits)
        case .standardInput: nil
        case .file(let path):
            try Self.withFile(path) { descriptor in
                var status = stat()
                // The first bytes of a pipe cannot be read twice.
                guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
                return try Self.announcedSize(try Self.beginning(descriptor, name: path), name: path, limits: limits)
            }
        }
    }

    private static func announcedSize(_ bytes: [UInt8], name: String, limits: ImageLimits) throws -> (width: Int, height: Int)? {
        guard !bytes.isEmpty else { throw ImageError.empty(name: name) }
        guard let format = ImageFormat(signatureOf: bytes) else {
            throw ImageError.unknownFormat(name: name, found: ImageFormat.describeUnknown(bytes))
        }
        let file = EncodedImage(bytes: bytes, format: format, name: name, limits: limits)
        // Errors of the header are reported once it is complete.
        guard let size = try? file.announcedSize() else { return nil }
        try file.checkSize(width: size.width, height: size.height)
        return size
    }

    private static func withFile<Result>(_ path: String, _ body: (Int32) throws -> Result) throws -> Result {
        let descriptor = Files.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            let code = errno
            if code == ENOENT || code == ENOTDIR { throw ImageError.missing(name: path) }
            throw ImageError.unreadable(name: path, reason: String(cString: strerror(code)))
        }
        defer { close(descriptor) }
        var status = stat()
        if fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFDIR {
            throw ImageError.unreadable(name: path, reason: "it is a folder; name one image file in it")
        }
        return try body(descriptor)
    }

    /// Bytes that are read before the header is parsed; nearly every header is shorter.
    private static let beginningBytes = 1 << 18

    private static func readAll(_ descriptor: Int32, name: String, limits: ImageLimits) throws -> [UInt8] {
        var bytes = try beginning(descriptor, name: name)
        if bytes.count < beginningBytes { return bytes }
        _ = try announcedSize(bytes, name: name, limits: limits)
        let limit = limits.maxFileBytes
        var status = stat()
        let announced = fstat(descriptor, &status) == 0 ? Int(status.st_size) : 0
        guard announced <= limit else { throw ImageError.tooManyBytes(name: name, limit: limit) }
        func checkMemory(_ count: Int) throws {
            guard MemoryProbe.isAvailable(count) else { throw ImageError.unreadable(name: name, reason: "not enough memory for \(count) bytes") }
        }
        try checkMemory(max(0, announced))
        bytes.reserveCapacity(max(0, announced))
        while let chunk = try readChunk(descriptor, name: name) {
            guard bytes.count + chunk.count <= limit else { throw ImageError.tooManyBytes(name: name, limit: limit) }
            // An array grows to twice its size.
            if bytes.count + chunk.count > bytes.capacity { try checkMemory(2 * (bytes.count + chunk.count)) }
            bytes += chunk
        }
        return bytes
    }

    /// The first ``beginningBytes`` bytes or a few more, or all if there are fewer.
    private static func beginning(_ descriptor: Int32, name: String) throws -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < beginningBytes, let chunk = try readChunk(descriptor, name: name) { bytes += chunk }
        return bytes
    }

    /// The bytes of one read; `nil` at the end.
    private static func readChunk(_ descriptor: Int32, name: String) throws -> [UInt8]? {
        while true {
            var count = 0
            let chunk = [UInt8](unsafeUninitializedCapacity: beginningBytes) { target, written in
                count = Foundation.read(descriptor, target.baseAddress, target.count)
                written = max(count, 0)
            }
            if count > 0 { return chunk }
            if count == 0 { return nil }
            if errno != EINTR { throw ImageError.unreadable(name: name, reason: String(cString: strerror(errno))) }
        }
    }

    private static func path(ofFileURL url: String) throws -> String {
        var rest = url.dropFirst(5)
        if rest.hasPrefix("//") {
            rest = rest.dropFirst(2)
            let host = rest.prefix { $0 != "/" }
            guard host.isEmpty || host.lowercased() == "localhost", host.endIndex < rest.endIndex else {
                throw ImageError.argument(
                    name: String(url.prefix(80)), reason: "expected file:///PATH, a file of this machine, found the host \"\(host.prefix(60))\"")
            }
            rest = rest[host.endIndex...]
        }
        let bytes = try percentDecoded(SystemPath.bytes(String(rest)), of: "file: URL")
        guard !bytes.contains(0) else { throw ImageError.argument(name: "file: URL", reason: "expected the path of a file, found a zero byte in it") }
        return SystemPath.text(bytes)
    }

    /// - Parameter body: the text after `data:`.
    private static func bytes(ofDataURL body: Substring) throws -> [UInt8] {
        guard let comma = body.utf8.firstIndex(of: UInt8(ascii: ",")) else {
            throw ImageError.argument(name: "data: URL", reason: "expected `data:image/png;base64,…`, found no comma")
        }
        let parameters = body[..<comma].split(separator: ";").map { $0.lowercased().filter { !$0.isWhitespace } }
        let content = try percentDecoded(body[comma...].utf8.dropFirst(), of: "data: URL")
        guard parameters.last == "base64" else { return content }
        // Padding may be missing and both alphabets are in use; white space comes from wrapped lines.
        var letters = content.filter { ![0x20, 0x09, 0x0A, 0x0D, UInt8(ascii: "=")].contains($0) }
        for index in letters.indices {
            if letters[index] == UInt8(ascii: "-") { letters[index] = UInt8(ascii: "+") }
            if letters[index] == UInt8(ascii: "_") { letters[index] = UInt8(ascii: "/") }
        }
        letters += [UInt8](repeating: UInt8(ascii: "="), count: (4 - letters.count % 4) % 4)
        guard let data = Data(base64Encoded: Data(letters)) else {
            throw ImageError.argument(name: "data: URL", reason: "expected base64 after the comma, found other characters or a wrong length")
        }
        return [UInt8](data)
    }

    private static func percentDecoded(_ text: some Sequence<UInt8>, of name: String) throws -> [UInt8] {
        var decoded: [UInt8] = []
        var iterator = text.makeIterator()
        while let byte = iterator.next() {
            guard byte == UInt8(ascii: "%") else {
                decoded.append(byte)
                continue
            }
            guard let high = iterator.next().flatMap(hexadecimalDigit), let low = iterator.next().flatMap(hexadecimalDigit) else {
                throw ImageError.argument(name: name, reason: "expected two hexadecimal digits after `%`")
            }
            decoded.append(high << 4 | low)
        }
        return decoded
    }
}
