import AdaImages
import AdaLLaVA
import Dispatch
import Foundation

/// An image that a request names.
struct ImageReference: Sendable, Equatable {
    let url: String
    /// The most positions of the prompt, and the most pixels at the tower's size, that the image may take.
    var maxTokens: Int?, maxPixels: Int?

    init(url: String) { self.url = url }

    /// An `image_url` part. `detail` is low, high or auto: a model here brings every image to its tower's one size, so it changes nothing.
    init(_ part: inout RequestFields) throws {
        guard let value = part.take("image_url") else { throw part.wrong("image_url", expected: #"{"url": "data:image/png;base64,…"}"#, found: nil) }
        if case .string(let text) = value {
            url = text
            return
        }
        var image = try RequestFields(value, path: part.path + "image_url")
        guard let text = try image.string("url") else { throw image.wrong("url", expected: "a data: URL", found: nil) }
        url = text
        try image.neutral("detail") { [.string("low"), .string("high"), .string("auto")].contains($0) }
        maxTokens = try image.integer("max_image_tokens", in: 1 ... .max)
        maxPixels = try image.integer("max_pixels", in: 1 ... .max)
        try image.expectNothingElse()
    }
}

/// Reads the images that requests name: `data:` URLs, and files of one folder and addresses of some hosts where that is allowed.
struct MediaLoader: Sendable {
    /// The folder that `file:` URLs may name.
    let folder: URL?
    /// The most bytes that are read of a file.
    let maxBytes: Int
    private let fetcher: MediaFetcher
    /// One request's images at a time are decoded, which bounds the memory that they take.
    private let queue = DispatchQueue(label: "adallava.media", qos: .userInitiated)

    init(folder: URL?, hosts: [String], maxBytes: Int) {
        (self.folder, self.maxBytes, fetcher) = (folder, maxBytes, MediaFetcher(hosts: hosts))
    }

    /// The images at the size of a model's tower.
    /// - Throws: ``APIError``, ``ImageError``, ``GenerationError``
    func images(_ references: [ImageReference], for model: AdaptiveModel) async throws -> [PreparedImage] {
        if references.isEmpty { return [] }
        let prepare = try model.imagePreparation
        try prepare.check(images: references.count)
        for reference in references {
            if let limit = reference.maxTokens, prepare.tokens > limit {
                throw APIError.parameter("max_image_tokens", expected: "at least \(prepare.tokens), which every image takes in this model", found: "\(limit)")
            }
            if let limit = reference.maxPixels, prepare.pixels > limit {
                throw APIError.parameter("max_pixels", expected: "at least \(prepare.pixels), the size of this model's tower", found: "\(limit)")
            }
        }
        var fetched: [String: [UInt8]] = [:]
        for reference in references where ["http", "https"].contains(Self.scheme(reference.url)) && fetched[reference.url] == nil {
            if fetcher.hosts.isEmpty {
                throw Self.refused(reference.url, "images are not fetched from the network (--allow-media-host HOST allows it); send them as data: URLs")
            }
            fetched[reference.url] = try await fetcher.fetch(reference.url, maxBytes: maxBytes)
        }
        return try await queue.run { [self, fetched] in
            let batch = ImageBatch(try references.map { reference in try fetched[reference.url].map(ImageSource.data) ?? source(reference) })
            try batch.check()
            return try batch.read { prepare($0.image) }
        }
    }

    /// The bytes that a URL names.
    private func source(_ reference: ImageReference) throws -> ImageSource {
        let url = reference.url
        switch Self.scheme(url) {
        case "data": return try ImageSource(argument: url)
        case "file": return .data(try MediaFolder(folder).read(url, maxBytes: maxBytes))
        default: throw Self.refused(url, "expected a data: URL such as data:image/png;base64,…")
        }
    }

    private static func scheme(_ url: String) -> String { url.prefix { $0 != ":" }.lowercased() }

    static func refused(_ url: String, _ reason: String) -> APIError {
        APIError(.badRequest, "image_url \(url.prefix(80)): \(reason)", parameter: "messages", code: "invalid_image_url")
    }
}

/// The one folder whose files requests may name. Links are not followed, so no file outside the folder can be reached.
struct MediaFolder {
    private let folder: URL?

    init(_ folder: URL?) { self.folder = folder }

    /// The bytes of a file given by a `file:` URL, its path below the folder or the folder's own path before it.
    /// - Throws: ``APIError`` with the same text for missing files and for files that must not be read.
    func read(_ url: String, maxBytes: Int) throws -> [UInt8] {
        guard let folder else { throw MediaLoader.refused(url, "files are not read here (--allow-media-dir DIR allows those of one folder)") }
        let missing = MediaLoader.refused(url, "no such image in the folder that --allow-media-dir names")
        guard let components = URLComponents(string: url), components.host ?? "" == "" || components.host == "localhost" else { throw missing }
        let root = folder.standardizedFileURL.path
        var path = components.path
        if path.hasPrefix(root + "/") { path = String(path.dropFirst(root.count)) }
        let names = path.split(separator: "/").map(String.init)
        guard !names.isEmpty, names.allSatisfy({ $0 != ".." && $0 != "." && !$0.contains("\0") }) else { throw missing }

        var descriptor = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw missing }
        defer { close(descriptor) }
        for (index, name) in names.enumerated() {
            let isLast = index == names.count - 1
            // A pipe would make the opening wait.
            let next = openat(descriptor, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | (isLast ? O_NONBLOCK : O_DIRECTORY))
            guard next >= 0 else { throw missing }
            close(descriptor)
            descriptor = next
        }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { throw missing }
        guard status.st_size <= maxBytes else { throw APIError(.contentTooLarge, "image_url \(url.prefix(80)): more than \(maxBytes) bytes", parameter: "messages", code: "image_too_large") }
        let handle = FileHandle(fileDescriptor: descriptor, closeOnDealloc: false)
        guard let data = try? handle.read(upToCount: maxBytes) else { throw missing }
        return [UInt8](data)
    }
}
