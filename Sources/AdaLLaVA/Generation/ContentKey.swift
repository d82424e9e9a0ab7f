import Crypto
import Foundation

/// Key of cached content: a SHA-256 digest of everything from which it was computed.
struct ContentKey: Hashable, Sendable {
    private let words: (UInt64, UInt64, UInt64, UInt64)

    init(_ digest: SHA256.Digest) {
        words = digest.withUnsafeBytes { $0.loadUnaligned(as: (UInt64, UInt64, UInt64, UInt64).self) }
    }

    /// A key that no content has, for tests.
    init(forged word: UInt64) { words = (word, word, word, word) }

    static func == (a: ContentKey, b: ContentKey) -> Bool { a.words == b.words }

    func hash(into hasher: inout Hasher) { hasher.combine(words.0) }

    /// 64 bits of it, for random choices that differ from content to content.
    var word: UInt64 { words.0 }

    func add(to hash: inout SHA256) { withUnsafeBytes(of: words) { hash.update(bufferPointer: $0) } }
}

/// One position of a prompt: a token, or a row of an image's features.
enum PromptElement: Hashable, Sendable {
    case token(Int32)
    case image(ContentKey, row: Int32)

    /// Whole integers only: bytes between the members of a tuple are of no defined value.
    fileprivate func add(to hash: inout SHA256) {
        // Both halves are of one size: between a byte and a word there are bytes of padding, which hold anything.
        switch self {
        case .token(let token): withUnsafeBytes(of: (Int32(0), token)) { hash.update(bufferPointer: $0) }
        case .image(let key, let row):
            withUnsafeBytes(of: (Int32(1), row)) { hash.update(bufferPointer: $0) }
            key.add(to: &hash)
        }
    }
}

/// Keys of a prompt's beginnings, one for each ``length`` positions.
struct PromptKeys {
    /// Positions from one key to the next.
    static let length = 16
    let keys: [ContentKey]

    /// - Parameter model: other dependencies of the content: model, precision, rotary frequencies.
    init(_ elements: [PromptElement], model: ContentKey) {
        var keys: [ContentKey] = [], previous = model
        for start in stride(from: 0, to: elements.count - elements.count % PromptKeys.length, by: PromptKeys.length) {
            var hash = SHA256()
            previous.add(to: &hash)
            for element in elements[start ..< start + PromptKeys.length] { element.add(to: &hash) }
            previous = ContentKey(hash.finalize())
            keys.append(previous)
        }
        self.keys = keys
    }

    /// Keys given by value, for tests.
    init(forged keys: [ContentKey]) { self.keys = keys }
}

extension ContentKey {
    /// The key of decoded pixels under a model's preprocessing.
    /// - Parameter context: everything else that image features depend on: preprocessing, tower, model.
    init(image: RGBImage, mode: String, context: ContentKey) {
        var hash = SHA256()
        context.add(to: &hash)
        hash.update(data: Data(mode.utf8))
        withUnsafeBytes(of: (Int64(image.width), Int64(image.height))) { hash.update(bufferPointer: $0) }
        image.pixels.withUnsafeBytes { hash.update(bufferPointer: $0) }
        self.init(hash.finalize())
    }

    /// The key of pixels at a tower's size.
    init(prepared tiles: ImageTiles, context: ContentKey) {
        var hash = SHA256()
        context.add(to: &hash)
        hash.update(data: Data("prepared".utf8))
        withUnsafeBytes(of: (Int64(tiles.width), Int64(tiles.height), Int64(tiles.rows), Int64(tiles.columns))) { hash.update(bufferPointer: $0) }
        for pixels in tiles.pixels { pixels.withUnsafeBytes { hash.update(bufferPointer: $0) } }
        self.init(hash.finalize())
    }

    /// The key of a tower's input.
    init(pixels: [Float], context: ContentKey) {
        var hash = SHA256()
        context.add(to: &hash)
        withUnsafeBytes(of: Int64(pixels.count)) { hash.update(bufferPointer: $0) }
        pixels.withUnsafeBytes { hash.update(bufferPointer: $0) }
        self.init(hash.finalize())
    }

    /// The key of a description in words.
    init(_ text: String) { self.init(SHA256.hash(data: Data(text.utf8))) }
}
