import AdaImages
import Foundation
import Testing

@testable import AdaLLaVA

private let clipMean = [0.48145466, 0.4578275, 0.40821073]
private let clipStandardDeviation = [0.26862954, 0.26130258, 0.27577711]

private func processor(_ size: Int, shortestEdge: Int? = nil) throws -> CLIPImageProcessor {
    try CLIPImageProcessor(
        cropSize: size, shortestEdge: shortestEdge ?? size, mean: clipMean, standardDeviation: clipStandardDeviation)
}

private func picture(_ path: String) throws -> RGBImage {
    try RGBImage(contentsOf: ImageFixtures.folder.appendingPathComponent(path).path)
}

private func largestDifference(_ a: some Sequence<Float>, _ b: some Sequence<Float>) -> Float {
    zip(a, b).map { abs($0 - $1) }.max() ?? .infinity
}

@Suite struct ImageProcessorTests {
    struct ResizeCases: Decodable {
        struct Case: Decodable {
            let id: String
            let file: String
            let expected: [String: Expected]
        }
        struct Expected: Decodable {
            let file: String
            let sum_of_bytes: Int
            let pixels_rgb: [String: [Int]]
        }
        let cases: [Case]
    }

    @Test("preprocessed pixels equal Pillow's", arguments: ["a", "b", "c", "d"], CLIPImageProcessor.AspectMode.allCases)
    func pixelsEqualPillow(id: String, mode: CLIPImageProcessor.AspectMode) throws {
        // A difference means that the tower sees other pixels than the one the checkpoint was trained with.
        let cases = try ImageFixtures.json(ResizeCases.self, "resize/cases.json").cases
        let found = try #require(cases.first { $0.id == id })
        let expected = try #require(found.expected[mode.rawValue])
        let reference = try picture("resize/\(expected.file)")
        let pixels = try processor(336).croppedPixels(picture("resize/\(found.file)"), mode: mode)
        #expect(pixels == reference.pixels)
        #expect(pixels.reduce(0) { $0 + Int($1) } == expected.sum_of_bytes)
        for (place, colour) in expected.pixels_rgb {
            let position = place.split(separator: ",").compactMap { Int($0) }
            let start = (position[0] * 336 + position[1]) * 3
            #expect(pixels[start..<start + 3].map { Int($0) } == colour, "pixel \(place)")
        }
    }

    @Test("pixel values equal reference", arguments: ["a", "b", "c", "d"], CLIPImageProcessor.AspectMode.allCases)
    func pixelValuesEqualReference(id: String, mode: CLIPImageProcessor.AspectMode) throws {
        // A difference means that normalization rounds elsewhere than Hugging Face's processor does.
        let source = try picture("resize/\(id).png")
        let values = try processor(336)(source, mode: mode)
        let rows = try ImageFixtures.tensor("\(id).\(mode.rawValue).pixel_values_rows_164_171", in: "resize/expected.safetensors")
        #expect(values.count == 3 * 336 * 336)
        #expect(rows.shape == [3, 8, 336])
        for channel in 0..<3 {
            let start = (channel * 336 + 164) * 336
            #expect(values[start..<start + 8 * 336].elementsEqual(rows.values[channel * 8 * 336..<(channel + 1) * 8 * 336]))
        }
        if id == "c", mode == .pad {
            let all = try ImageFixtures.tensor("c.pad.pixel_values", in: "resize/expected.safetensors")
            #expect(largestDifference(values, all.values) <= 2e-3)
        }
    }

    @Test("tower inputs equal reference", arguments: [
        ("images/im0.png", "image.im0.pixel_values", "ada-L"), ("images/im1.png", "image.im1.pixel_values", "ada-L"),
        ("images/im2.png", "image.im2.pixel_values", "ada-L"), ("images/im3.png", "image.im3.pixel_values", "ada-L"),
        ("prumerge/pm0.png", "pm0.pixel_values", "prumerge"), ("prumerge/pm1.png", "pm1.pixel_values", "prumerge"),
        ("prumerge/pm2.png", "pm2.pixel_values", "prumerge"), ("prumerge/pm3.png", "pm3.pixel_values", "prumerge"),
        ("prumerge/pm4.png", "pm4.pixel_values", "prumerge"),
    ])
    func towerInputsEqualReference(file: String, tensor: String, set: String) throws {
        // A difference means that every inference case starts from other numbers than the reference's.
        let expected = try ImageFixtures.tensor(tensor, in: "\(set)/expected.safetensors")
        let values = try processor(56)(picture(file), mode: .pad)
        #expect(expected.shape == [1, 3, 56, 56])
        #expect(values == expected.values)
    }

    @Test("padding colour is the mean rounded down") func paddingColourIsTheMeanRoundedDown() throws {
        // Another colour means that the borders of every photo differ from LLaVA's.
        #expect(try processor(336).paddingColour == [122, 116, 104])
    }

    @Test("smaller than the crop is framed with zeros") func smallerThanTheCropIsFramedWithZeros() throws {
        // A failure means that a processor whose resize is smaller than its crop places the picture elsewhere than the reference.
        let white = try #require(RGBImage(width: 4, height: 4, pixels: [UInt8](repeating: 255, count: 48)))
        let pixels = try processor(7, shortestEdge: 4).croppedPixels(white, mode: .crop)
        let rows = (0..<7).map { row in (0..<7).map { pixels[(row * 7 + $0) * 3] == 255 ? "#" : "." }.joined() }
        #expect(rows == [".......", ".......", "..####.", "..####.", "..####.", "..####.", "......."])
    }

    @Test("extreme proportions need no memory", arguments: [(1, 600), (600, 1), (1, 1), (3, 2)])
    func extremeProportionsNeedNoMemory(width: Int, height: Int) throws {
        // A failure or a hang means that the whole resized picture (here up to 201,600 pixels long) is made before it is cut.
        let image = try #require(RGBImage(width: width, height: height, pixels: [UInt8](repeating: 90, count: width * height * 3)))
        let cropped = try processor(336).croppedPixels(image, mode: .crop)
        #expect(cropped == [UInt8](repeating: 90, count: 336 * 336 * 3))
        #expect(try processor(336).croppedPixels(image, mode: .pad).count == 336 * 336 * 3)
    }

    @Test("A picture with margins is resized as if the margins were pixels", arguments: [(7, 301), (301, 7), (1, 900), (900, 1), (400, 399), (5, 6)])
    func marginsAreSummedUp(width: Int, height: Int) throws {
        // A difference means that the edge of a padded picture differs from Pillow's, whose margins are pixels like others.
        var random = SplitMix64(seed: 9)
        let image = try #require(RGBImage(width: width, height: height, pixels: (0 ..< width * height * 3).map { _ in UInt8(truncatingIfNeeded: random.next()) }))
        let side = max(width, height), processor = try processor(36)
        let (left, top) = ((side - width) / 2, (side - height) / 2)
        var square = (0 ..< side * side).flatMap { _ in processor.paddingColour }
        for row in 0 ..< height {
            let start = ((top + row) * side + left) * 3
            square.replaceSubrange(start ..< start + width * 3, with: image.pixels[row * width * 3 ..< (row + 1) * width * 3])
        }
        let padded = try #require(RGBImage(width: side, height: side, pixels: square))
        #expect(processor.croppedPixels(image, mode: .pad) == processor.croppedPixels(padded, mode: .crop))
    }

    @Test("The work of resizing follows the picture, not the square around it") func workFollowsThePicture() {
        // A failure means that a file of 41 bytes costs seconds.
        let axis = ResampleAxis(inputSize: 65_535, outputSize: 336, window: 0 ..< 336, image: 32_762 ..< 32_772)
        #expect(axis.stride <= 16 && axis.inputRange == 32_762 ..< 32_772)
        let without = ResampleAxis(inputSize: 100, outputSize: 50, window: 0 ..< 5, image: 90 ..< 100)
        #expect(without.inputRange.isEmpty && without.starts.allSatisfy { $0 == 90 } && without.outside == without.total)
    }

    @Test("resizing to the same size changes nothing") func resizingToTheSameSizeChangesNothing() throws {
        // A difference means that a picture of the tower's own size is blurred or shifted.
        let image = try picture("resize/c.png")
        #expect(ImageResize.resize(image, width: image.width, height: image.height) == image)
        #expect(ImageResize.resize(image, width: 0, height: 5) == nil)
        #expect(ImageResize.resize(image, width: 5, height: 1 << 21) == nil)
    }

    @Test("unusable settings are refused") func unusableSettingsAreRefused() {
        // A failure means that a damaged preprocessor_config.json divides by zero or asks for gigabytes.
        func make(_ crop: Int, _ edge: Int, _ mean: [Double], _ deviation: [Double]) throws -> CLIPImageProcessor {
            try CLIPImageProcessor(cropSize: crop, shortestEdge: edge, mean: mean, standardDeviation: deviation)
        }
        #expect(throws: CheckpointError.self) { try make(0, 336, clipMean, clipStandardDeviation) }
        #expect(throws: CheckpointError.self) { try make(336, 1 << 40, clipMean, clipStandardDeviation) }
        #expect(throws: CheckpointError.self) { try make(336, 336, [0.5], clipStandardDeviation) }
        #expect(throws: CheckpointError.self) { try make(336, 336, clipMean, [1, 0, 1]) }
        #expect(throws: CheckpointError.self) { try make(336, 336, [.nan, 0, 0], clipStandardDeviation) }
    }
}
