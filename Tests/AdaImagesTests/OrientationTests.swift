import AdaLLaVA
import Foundation
import Testing

@testable import AdaImages

/// Turning pictures upright. What the files `orientation-…` in the fixtures expect is what Pillow's `ImageOps.exif_transpose` makes of them.
@Suite struct OrientationTests {
    @Test("orientations are turns of one picture") func orientationsAreTurnsOfOnePicture() {
        // A failure means that a photo taken with a turned camera is shown to the model on its side or mirrored.
        let stored: [UInt8] = [1, 2, 3, 4, 5, 6].flatMap { [$0, $0, $0] }  // 3 x 2: 1 2 3 / 4 5 6
        let upright: [ExifOrientation: [UInt8]] = [
            .upright: [1, 2, 3, 4, 5, 6], .mirrored: [3, 2, 1, 6, 5, 4], .rotated180: [6, 5, 4, 3, 2, 1], .flipped: [4, 5, 6, 1, 2, 3],
            .transposed: [1, 4, 2, 5, 3, 6], .rotated90Clockwise: [4, 1, 5, 2, 6, 3], .transversed: [6, 3, 5, 2, 4, 1],
            .rotated90Counterclockwise: [3, 6, 2, 5, 1, 4],
        ]
        for orientation in ExifOrientation.allCases {
            let turned = orientation.upright(stored, width: 3, height: 2)
            #expect(turned.pixels == upright[orientation].map { $0.flatMap { [$0, $0, $0] } }, "\(orientation)")
            #expect(turned.width == (orientation.exchangesSides ? 2 : 3))
        }
    }

    private static let entry: [UInt8] = [0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 8, 0, 0]
    private static let bigEndian: [UInt8] = Array("MM".utf8) + [0, 42, 0, 0, 0, 8, 0, 1] + entry
    private static let littleEndian: [UInt8] = Array("II".utf8) + [42, 0, 8, 0, 0, 0, 1, 0, 0x12, 0x01, 3, 0, 1, 0, 0, 0, 8, 0, 0, 0]

    @Test("EXIF is read in both byte orders, and broken EXIF means upright") func byteOrders() {
        // A failure means that photos of some makers stay on their side, or that broken metadata makes a picture unreadable.
        #expect(OrientationMetadata(exif: Self.bigEndian).orientation == .rotated90Counterclockwise)
        #expect(OrientationMetadata(exif: OrientationMetadata.exifPrefix + Self.littleEndian).orientation == .rotated90Counterclockwise)
        for length in 0..<Self.bigEndian.count {
            #expect(OrientationMetadata(exif: Array(Self.bigEndian[..<length])).orientation == .upright)
        }
        var strange = Self.bigEndian
        strange[19] = 9
        #expect(OrientationMetadata(exif: strange).orientation == .upright)
        strange.replaceSubrange(4..<8, with: [0xFF, 0xFF, 0xFF, 0xFF])
        #expect(OrientationMetadata(exif: strange).orientation == .upright)
    }

    @Test("A broken raw profile gives way to XMP, and strange XMP means upright") func brokenTexts() {
        // A failure means that one damaged text hides a good one, or that text decides what is not a turn.
        let packet = Array("<tiff:Orientation>6</tiff:Orientation>".utf8)
        for profile in ["", "\nexif\n 4\n0", "\nexif\n 4\nxx", "\nexif\n", "no lines at all"] {
            #expect(OrientationMetadata(rawProfile: Array(profile.utf8), xmp: packet).orientation == .rotated90Clockwise)
        }
        for text in ["", "tiff:Orientation", "tiff:Orientation=\"", "tiff:Orientation>", "tiff:Orientation=6", "tiff:Orientation=\"0\"", "tiff:Orientation>9"] {
            #expect(OrientationMetadata(xmp: Array(text.utf8)).orientation == .upright, "\(text)")
        }
    }

    /// A PNG's signature and the chunks of some kinds; PNGMetadata reads nothing else.
    private func metadata(_ chunks: [(kind: String, body: [UInt8])]) -> PNGMetadata {
        let bytes = chunks.reduce(into: [UInt8](repeating: 0, count: 8)) { bytes, chunk in
            bytes += (0..<4).map { UInt8(truncatingIfNeeded: chunk.body.count >> (24 - $0 * 8)) } + Array(chunk.kind.utf8) + chunk.body + [0, 0, 0, 0]
        }
        return PNGMetadata(EncodedImage(bytes: bytes, format: .png, name: "image", limits: .standard))
    }

    @Test("A text that unpacks to more than a mebibyte is left alone") func compressedBomb() throws {
        // A failure means that a text chunk of a few kilobytes makes the program unpack gigabytes.
        let heading = Array("XML:com.adobe.xmp\0\0".utf8), packet = Array("tiff:Orientation>6".utf8)
        func stored(_ text: [UInt8]) -> [UInt8] {
            // zlib's stored blocks, without the checksum: cut off, as far as it goes.
            [0x78, 0x01] + stride(from: 0, to: text.count, by: 65_535).flatMap { start in
                let part = text[start..<min(start + 65_535, text.count)], length = UInt16(part.count)
                return [0, UInt8(length & 255), UInt8(length >> 8), UInt8(~length & 255), UInt8(~length >> 8)] + part
            }
        }
        #expect(metadata([("zTXt", heading + stored(packet))]).orientation == .rotated90Clockwise)
        let long = packet + [UInt8](repeating: 0x20, count: 1 << 20)
        #expect(metadata([("zTXt", heading + stored(long))]).orientation == .upright)
        #expect(metadata([("tEXt", heading.dropLast() + long)]).orientation == .rotated90Clockwise)
        #expect(metadata([("zTXt", heading + [1, 2, 3, 4])]).orientation == .upright)
        #expect(metadata([("zTXt", heading.dropLast())]).orientation == .upright)
        #expect(metadata([("iTXt", heading), ("iTXt", heading + [0, 0]), ("eXIf", []), ("tEXt", [])]).orientation == .upright)
    }
}
