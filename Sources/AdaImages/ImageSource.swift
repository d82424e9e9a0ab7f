import Foundation

/// Where an image comes from, in the forms people write on a command line.
public enum ImageSource: Sendable, Equatable {
    case file(String)
    case standardInput
    /// The bytes of a `data:` URL.
    case data([UInt8])

    /// - Parameter argument: a path, `-` for standard input, or a `data:` URL (RFC 2397, base64 or percent-encoded).
    /// - Throws: ``ImageError/argument(name:reason:)``
    public init(argument: String) throws {
        let scheme = argument.prefix { $0 != ":" }.lowercased()
        if argument == "-" {
            self = .standardInput
        } else if argument.isEmpty {
            throw ImageError.argument(name: "image", reason: "expected a path, `-` for standard input, or a data: URL, found an empty text")
        } else if scheme == "data", argument.contains(":") {
            self = .data(try Self.bytes(ofDataURL: argument.dropFirst(5)))
        } else if argument.contains("://"), scheme == "http" || scheme == "https" {
            throw ImageError.argument(
                name: String(argument.prefix(80)),
                reason: "images are not fetched from the network; download it and pass the file, or pipe it in: curl URL | … -")
        } else {
            self = .file(argument)
        }
    }

    /// What messages call it.
    public var name: String {
        switch self {
        case .file(let path): path
        case .standardInput: "standard input"
        case .data: "data: URL"
        }
    }

    /// All its bytes. Reading stops with an error at the size that no image within `limits` can have, so an endless pipe ends.
    /// - Throws: ``ImageError``
    public func read(limits: ImageLimits = .standard) throws -> [UInt8] {
        switch self {
        case .data(let bytes):
            return bytes
        case .standardInput:
            return try Self.readAll(FileHandle.standardInput.fileDescriptor, name: name, limit: limits.maxFileBytes)
        case .file(let path):
            let descriptor = open(path, O_RDONLY | O_CLOEXEC)
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
            return try Self.readAll(descriptor, name: path, limit: limits.maxFileBytes)
        }
    }

    private static func readAll(_ descriptor: Int32, name: String, limit: Int) throws -> [UInt8] {
        var status = stat()
        let announced = fstat(descriptor, &status) == 0 ? Int(status.st_size) : 0
        guard announced <= limit else { throw ImageError.tooManyBytes(name: name, limit: limit) }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(max(0, announced))
        var chunk = [UInt8](repeating: 0, count: 1 << 18)
        while true {
            let count = chunk.withUnsafeMutableBytes { Foundation.read(descriptor, $0.baseAddress, $0.count) }
            if count == 0 { return bytes }
            if count < 0 {
                if errno == EINTR { continue }
                throw ImageError.unreadable(name: name, reason: String(cString: strerror(errno)))
            }
            guard bytes.count + count <= limit else { throw ImageError.tooManyBytes(name: name, limit: limit) }
            bytes.append(contentsOf: chunk[..<count])
        }
    }

    /// - Parameter body: what follows `data:`.
    private static func bytes(ofDataURL body: Substring) throws -> [UInt8] {
        guard let comma = body.utf8.firstIndex(of: UInt8(ascii: ",")) else {
            throw ImageError.argument(name: "data: URL", reason: "expected `data:image/png;base64,…`, found no comma")
        }
        let parameters = body[..<comma].split(separator: ";").map { $0.lowercased().filter { !$0.isWhitespace } }
        let content = try percentDecoded(body[comma...].utf8.dropFirst())
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

    private static func percentDecoded(_ text: some Sequence<UInt8>) throws -> [UInt8] {
        var decoded: [UInt8] = []
        var iterator = text.makeIterator()
        while let byte = iterator.next() {
            guard byte == UInt8(ascii: "%") else {
                decoded.append(byte)
                continue
            }
            guard let high = iterator.next().flatMap(hexadecimalDigit), let low = iterator.next().flatMap(hexadecimalDigit) else {
                throw ImageError.argument(name: "data: URL", reason: "expected two hexadecimal digits after `%`")
            }
            decoded.append(high << 4 | low)
        }
        return decoded
    }
}
