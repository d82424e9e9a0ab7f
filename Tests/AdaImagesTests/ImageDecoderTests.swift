import AdaLLaVA
import Foundation
import Synchronization
import Testing

@testable import AdaImages

@Suite struct ImageDecoderTests {
    @Test("the list of sample images can be read") func samplesAreThere() {
        // A failure means that the fixture list could not be read, so the test below would pass without trying anything.
        #expect(ImageSamples.names.count >= 113)
    }

    @Test("decoded pixels equal Pillow's", arguments: ImageSamples.names)
    func pixelsEqualPillow(name: String) throws {
        // A difference means that the model sees another picture than the one its preprocessing in Python would have given it.
        let expected = try #require(ImageSamples.expected[name])
        let source = ImageSource.file(ImageSamples.folder.appendingPathComponent(name).path)
        let read = try source.image(tolerance: .asPillow), image = read.image
        #expect((read.damage != nil) == (expected.damaged ?? false))
        #expect(image.width == expected.width)
        #expect(image.height == expected.height)
        let pixels = ImageSamples.pixels(expected)
        try #require(image.pixels.count == pixels.count)
        let difference = zip(image.pixels, pixels).map { abs(Int($0) - Int($1)) }.max() ?? 0
        #expect(difference <= expected.tolerance)
    }

    @Test("A damaged picture that Pillow reads is refused by a strict reader, which says so", arguments: ImageSamples.names.filter { ImageSamples.expected[$0]?.damaged ?? false })
    func damageIsToldApart(name: String) throws {
        // A failure means that a damaged picture is answered about without a word, or that nobody learns that it can be read.
        let path = ImageSamples.folder.appendingPathComponent(name).path
        let damage = try #require(try ImageSource.file(path).image(tolerance: .asPillow).damage)
        #expect(damage.name == path && !damage.reason.isEmpty)
        #expect(throws: ImageError.readable(damage)) { try RGBImage(contentsOf: path) }
        #expect(ImageError.readable(damage).category == .badData && "\(ImageError.readable(damage))".contains("--lenient"))
    }

    @Test("A picture that is cut off is refused by a lenient reader too", arguments: ["jpeg-420-odd.jpg", "jpeg-progressive.jpg", "png-rgba.png", "png-interlaced.png", "webp-lossy.webp", "gif-87a.gif", "bmp-24.bmp"])
    func cutOffIsNoSmallDamage(name: String) throws {
        // A failure means that the grey rest of a broken download is scored as a picture, which Pillow refuses.
        let bytes = try ImageSamples.bytes(name)
        for tenth in 0..<9 {
            #expect {
                try ImageDecoder.decode(Array(bytes[..<(bytes.count * tenth / 10)]), name: "half", tolerance: .asPillow)
            } throws: {
                if case .readable? = $0 as? ImageError { false } else { ($0 as? ImageError)?.category == .badData }
            }
        }
    }

    @Test("Each damaged picture is counted once, whoever meets it") func damagedImagesAreCountedOnce() async {
        // A failure means that a result counts a picture once for each question, or that a warning is repeated.
        let told = DamagedImages(), first = ImageDamage(name: "a", format: .png, reason: "x"), second = ImageDamage(name: "b", format: .png, reason: "x")
        let warnings = Mutex<[String]>([])
        let damaged = DamagedImages { damage in warnings.withLock { $0.append(damage.name) } }
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<50 { group.addTask { for damage in [first, nil, second] { damaged.note(damage) } } }
        }
        #expect(damaged.count == 2 && warnings.withLock { $0.sorted() } == ["a", "b"] && told.count == 0)
    }

    @Test("name does not decide the format") func nameDoesNotDecideTheFormat() throws {
        // A failure means that a JPEG called photo.png, which is common, cannot be opened.
        let jpeg = try ImageSamples.bytes("jpeg-444.jpg")
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("ada-images-\(UUID().uuidString).png").path
        try Data(jpeg).write(to: URL(fileURLWithPath: path))
        defer { try? FileManager.default.removeItem(atPath: path) }
        #expect(try RGBImage(contentsOf: path).width == 40)
    }

    @Test("encoded images read back") func encodedImagesReadBack() throws {
        // A difference means that pictures written by the project are not the ones it was given.
        let expected = try #require(ImageSamples.expected["png-rgb.png"])
        let image = try #require(
            RGBImage(width: expected.width, height: expected.height, pixels: Array(ImageSamples.pixels(expected))))
        #expect(try ImageDecoder.decode(ImageEncoder.png(image)) == image)
        let jpeg = try ImageEncoder.jpeg(image, quality: 100)
        let decoded = try ImageDecoder.decode(jpeg)
        #expect((decoded.width, decoded.height) == (image.width, image.height))
        let smooth = try #require(RGBImage(width: 9, height: 5, pixels: [UInt8](repeating: 77, count: 135)))
        let again = try ImageDecoder.decode(ImageEncoder.jpeg(smooth, quality: 92))
        #expect(again.pixels.allSatisfy { abs(Int($0) - 77) <= 2 })
        #expect(try ImageEncoder.jpeg(image, quality: 30).count < jpeg.count)
        #expect(try ImageEncoder.jpeg(image, quality: 92) == ImageEncoder.jpeg(image, quality: 92))
    }

    @Test("sides beyond JPEG are refused") func sidesBeyondJPEGAreRefused() throws {
        // A failure means that libjpeg's error jump does not come back as an error.
        let long = try #require(RGBImage(width: 70_000, height: 1, pixels: [UInt8](repeating: 0, count: 210_000)))
        #expect(throws: ImageError.self) { try ImageEncoder.jpeg(long) }
        #expect(try ImageDecoder.decode(ImageEncoder.png(long), limits: ImageLimits(maxPixels: 70_000, maxSide: 70_000)) == long)
    }
}
