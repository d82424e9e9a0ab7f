import AdaLLaVA
import Foundation
import Testing

@testable import AdaImages

private func bigEndian(_ value: Int) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (24 - $0 * 8)) } }
private func littleEndian(_ value: Int, _ size: Int = 4) -> [UInt8] { (0..<size).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) } }

/// Headers that announce `width` x `height` pixels, with little or nothing behind them.
private enum Forged {
    static func png(_ width: Int, _ height: Int) -> [UInt8] {
        [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A, 0, 0, 0, 13] + Array("IHDR".utf8) + bigEndian(width) + bigEndian(height)
            + [8, 2, 0, 0, 0, 0, 0, 0, 0]
    }

    static func jpeg(_ width: Int, _ height: Int) -> [UInt8] {
        [0xFF, 0xD8, 0xFF, 0xC0, 0, 17, 8] + Array(bigEndian(height).suffix(2)) + Array(bigEndian(width).suffix(2))
            + [3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0, 0xFF, 0xDA]
    }

    static func gif(_ width: Int, _ height: Int) -> [UInt8] {
        Array("GIF89a".utf8) + littleEndian(width, 2) + littleEndian(height, 2) + [0, 0, 0, 0x2C, 0, 0, 0, 0] + littleEndian(width, 2)
            + littleEndian(height, 2) + [0, 2, 1, 0x44, 0]
    }

    static func bmp(_ width: Int, _ height: Int, bits: Int = 24, compression: Int = 0) -> [UInt8] {
        Array("BM".utf8) + littleEndian(0, 8) + littleEndian(54) + littleEndian(40) + littleEndian(width) + littleEndian(height)
            + littleEndian(1, 2) + littleEndian(bits, 2) + littleEndian(compression) + [UInt8](repeating: 0, count: 20)
    }

    /// An extended WebP whose canvas is `width` x `height`.
    static func webp(_ width: Int, _ height: Int) -> [UInt8] {
        let body =
            Array("WEBPVP8X".utf8) + littleEndian(10) + [2, 0, 0, 0] + littleEndian(width - 1, 3) + littleEndian(height - 1, 3)
            + Array("ANIM".utf8) + littleEndian(6) + [0, 0, 0, 0, 0, 0] + Array("ANMF".utf8) + littleEndian(16)
            + [UInt8](repeating: 0, count: 16)
        return Array("RIFF".utf8) + littleEndian(body.count) + body
    }
}

@Suite struct HostileImageTests {
    /// One file of every kind of coding.
    static let kinds = [
        "jpeg-420-odd.jpg", "jpeg-progressive.jpg", "jpeg-cmyk.jpg", "jpeg-restart.jpg", "png-rgba.png", "png-palette-4.png",
        "png-interlaced.png", "png-16bit-gray.png", "webp-lossy.webp", "webp-lossless.webp", "webp-alpha-lossy.webp",
        "webp-animated.webp", "webp-offset-frame.webp", "gif-87a.gif", "gif-interlaced.gif", "gif-offset.gif", "bmp-24.bmp", "bmp-4.bmp",
        "bmp-565.bmp", "bmp-rle8.bmp", "bmp-rle4.bmp", "bmp-v5.bmp", "exif-6.jpg", "exif-6.webp",
    ]

    @Test("cut off files are errors", arguments: kinds)
    func cutOffFilesAreErrors(name: String) throws {
        // A failure means that a download that broke off is answered about as if the grey rest were part of the picture.
        let bytes = try ImageSamples.bytes(name)
        for tenth in 0..<10 {
            let cut = Array(bytes[..<(bytes.count * tenth / 10)])
            #expect {
                try ImageDecoder.decode(cut)
            } throws: {
                ($0 as? ImageError)?.category == .badData
            }
        }
    }

    @Test("half a file is called cut off", arguments: ["jpeg-420-odd.jpg", "png-rgba.png", "gif-87a.gif", "bmp-24.bmp", "webp-lossy.webp"])
    func halfAFileIsCalledCutOff(name: String) throws {
        // A failure means that the message blames damage where the file is merely incomplete.
        let bytes = try ImageSamples.bytes(name)
        #expect {
            try ImageDecoder.decode(Array(bytes[..<(bytes.count * 6 / 10)]), name: "half.img")
        } throws: {
            "\($0)".contains("half.img") && "\($0)".contains("cut off")
        }
    }

    @Test("missing end marker is forgiven") func missingEndMarkerIsForgiven() throws {
        // A failure means that photos whose last two bytes some tool has dropped, but whose pixels are whole, are refused.
        let bytes = try ImageSamples.bytes("jpeg-420-odd.jpg")
        #expect(try ImageDecoder.decode(Array(bytes.dropLast(2))) == ImageDecoder.decode(bytes))
    }

    @Test("damaged files never crash") func damagedFilesNeverCrash() throws {
        // A crash, a hang or an untyped error means that a hostile file can take the process down.
        var generator = SplitMix64(seed: 2025)
        let limits = ImageLimits(maxPixels: 200_000, maxSide: 5_000)
        var refused = 0
        for round in 0..<2_400 {
            var bytes = try ImageSamples.bytes(Self.kinds[round % Self.kinds.count])
            for _ in 0..<Int.random(in: 1...6, using: &generator) {
                let isHeader = Bool.random(using: &generator)
                let position = Int.random(in: 0..<(isHeader ? min(64, bytes.count) : bytes.count), using: &generator)
                switch Int.random(in: 0..<4, using: &generator) {
                case 0: bytes[position] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
                case 1: bytes[position] = UInt8.random(in: 0...255, using: &generator)
                case 2: bytes[position] = 0xFF
                default: bytes.remove(at: position)
                }
            }
            do {
                let image = try ImageDecoder.decode(bytes, limits: limits)
                #expect(image.pixels.count == image.width * image.height * 3)
                #expect(image.width * image.height <= limits.maxPixels)
            } catch let error as ImageError {
                refused += 1
                #expect(error.category == .badData)
            }
        }
        #expect(refused > 500)
    }

    @Test("huge images are refused from their header", arguments: [
        (ImageFormat.png, Forged.png(60_000, 60_000)), (.jpeg, Forged.jpeg(60_000, 60_000)), (.gif, Forged.gif(60_000, 60_000)),
        (.bmp, Forged.bmp(60_000, 60_000)), (.bmp, Forged.bmp(60_000, -60_000)), (.webp, Forged.webp(60_000, 60_000)),
        (.bmp, Forged.bmp(60_000, 60_000, bits: 8, compression: 1)),
    ])
    func hugeImagesAreRefusedFromTheirHeader(format: ImageFormat, bytes: [UInt8]) {
        // A failure means that a file of a few bytes makes the program ask for ten gigabytes.
        let expected = ImageError.tooLarge(name: "image", format: format, width: 60_000, height: 60_000, limits: .standard)
        #expect(throws: expected) { try ImageDecoder.decode(bytes) }
        #expect(expected.description.contains("60000 x 60000") && expected.description.contains("100000000"))
    }

    @Test("empty images are refused", arguments: [
        Forged.png(0, 5), Forged.jpeg(5, 0), Forged.gif(0, 0), Forged.bmp(0, 7), Forged.bmp(7, 0),
    ])
    func emptyImagesAreRefused(bytes: [UInt8]) {
        // A failure means that an image without pixels reaches the resize, which would divide by its size.
        #expect {
            try ImageDecoder.decode(bytes)
        } throws: {
            if case ImageError.zeroSize? = $0 as? ImageError { true } else { false }
        }
    }

    @Test("absurd headers are typed errors", arguments: [
        Forged.bmp(Int(Int32.max), Int(Int32.min)), Forged.bmp(-5, 5), Forged.bmp(Int(Int32.min), 5), Forged.bmp(5, 5, bits: 7),
        Forged.bmp(5, 5, bits: 8, compression: 2), Forged.bmp(5, 5, bits: 24, compression: 77), Forged.bmp(5, 5, bits: 16, compression: 3),
        Forged.png(0xFFFF_FFFF, 0xFFFF_FFFF), Forged.webp(1 << 24, 1 << 24), Forged.webp(4, 4),
    ])
    func absurdHeadersAreTypedErrors(bytes: [UInt8]) {
        // A crash means that a size in a header overflows before it is checked.
        #expect {
            try ImageDecoder.decode(bytes)
        } throws: {
            ($0 as? ImageError)?.category == .badData
        }
    }

    @Test("compressed bomb is refused or decoded within the limit") func compressedBombIsRefusedOrDecodedWithinTheLimit() throws {
        // A failure means that a file that unpacks to more than the limit is unpacked, or that one below it is not.
        let side = 3_000
        let black = try #require(RGBImage(width: side, height: side, pixels: [UInt8](repeating: 0, count: side * side * 3)))
        let bomb = try ImageEncoder.png(black)
        #expect(bomb.count < 200_000)
        let limits = ImageLimits(maxPixels: side * side - 1, maxSide: 65_535)
        #expect(throws: ImageError.tooLarge(name: "image", format: .png, width: side, height: side, limits: limits)) {
            try ImageDecoder.decode(bomb, limits: limits)
        }
        #expect(try ImageDecoder.decode(bomb).width == side)
        #expect(throws: ImageError.self) { try ImageDecoder.decode(bomb, limits: ImageLimits(maxPixels: .max, maxSide: side - 1)) }
    }

    @Test("Exif frame cannot hide the frame header") func exifFrameCannotHideTheFrameHeader() throws {
        // A failure means that the size that is checked and the size that is decoded can come from two different headers.
        let small = try ImageSamples.bytes("jpeg-444.jpg")
        let forged = Array(small[..<2]) + Forged.jpeg(8, 8)[2..<21] + Array(small[2...])
        #expect(throws: ImageError.self) { try ImageDecoder.decode(forged) }
    }
}
