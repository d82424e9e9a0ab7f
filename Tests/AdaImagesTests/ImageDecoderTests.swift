import AdaLLaVA
import Foundation
import Testing

@testable import AdaImages

@Suite struct ImageDecoderTests {
    @Test func samplesAreThere() {
        // A failure means that the fixture list could not be read, so the test below would pass without trying anything.
        #expect(ImageSamples.names.count >= 104)
    }

    @Test(arguments: ImageSamples.names)
    func pixelsEqualPillow(name: String) throws {
        // A difference means that the model sees another picture than the one its preprocessing in Python would have given it.
        let expected = try #require(ImageSamples.expected[name])
        let image = try RGBImage(contentsOf: ImageSamples.folder.appendingPathComponent(name).path)
        #expect(image.width == expected.width)
        #expect(image.height == expected.height)
        let pixels = ImageSamples.pixels(expected)
        try #require(image.pixels.count == pixels.count)
        let difference = zip(image.pixels, pixels).map { abs(Int($0) - Int($1)) }.max() ?? 0
        #expect(difference <= expected.tolerance)
    }

    @Test func nameDoesNotDecideTheFormat() throws {
        // A failure means that a JPEG called photo.png, which is common, cannot be opened.
        let jpeg = try ImageSamples.bytes("jpeg-444.jpg")
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("ada-images-\(UUID().uuidString).png").path
        try Data(jpeg).write(to: URL(fileURLWithPath: path))
        defer { try? FileManager.default.removeItem(atPath: path) }
        #expect(try RGBImage(contentsOf: path).width == 40)
    }

    @Test func encodedImagesReadBack() throws {
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

    @Test func sidesBeyondJPEGAreRefused() throws {
        // A failure means that libjpeg's error jump does not come back as an error.
        let long = try #require(RGBImage(width: 70_000, height: 1, pixels: [UInt8](repeating: 0, count: 210_000)))
        #expect(throws: ImageError.self) { try ImageEncoder.jpeg(long) }
        #expect(try ImageDecoder.decode(ImageEncoder.png(long), limits: ImageLimits(maxPixels: 70_000, maxSide: 70_000)) == long)
    }
}
