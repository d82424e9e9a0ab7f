import Foundation

@testable import AdaImages

/// The image files in `Fixtures/image-files` and the pixels that Pillow reads from them.
enum ImageSamples {
    struct Expected: Decodable {
        let width: Int
        let height: Int
        /// Largest difference of a byte: 0 for lossless formats.
        let tolerance: Int
        /// Where the pixels start in `expected.rgb`.
        let offset: Int
        /// Pillow reads it although a strict reader refuses it.
        let damaged: Bool?
    }

    static let folder: URL = {
        var folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        while folder.path != "/", !FileManager.default.fileExists(atPath: folder.appendingPathComponent("Fixtures").path) {
            folder.deleteLastPathComponent()
        }
        return folder.appendingPathComponent("Fixtures/image-files")
    }()

    static let expected: [String: Expected] =
        (try? JSONDecoder().decode([String: Expected].self, from: Data(contentsOf: folder.appendingPathComponent("expected.json")))) ?? [:]

    static let names = expected.keys.sorted()

    private static let allPixels = (try? [UInt8](Data(contentsOf: folder.appendingPathComponent("expected.rgb")))) ?? []

    static func bytes(_ name: String) throws -> [UInt8] {
        try [UInt8](Data(contentsOf: folder.appendingPathComponent(name)))
    }

    static func pixels(_ expected: Expected) -> ArraySlice<UInt8> {
        allPixels[expected.offset..<expected.offset + expected.width * expected.height * 3]
    }
}
