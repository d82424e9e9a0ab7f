import AdaLLaVA
import Foundation
import Testing

@testable import AdaImages

/// Limits for all images of a request together.
@Suite struct ImageBatchTests {
    private func path(_ name: String) -> String { ImageSamples.folder.appendingPathComponent(name).path }

    /// A PNG's header alone.
    private func header(_ width: UInt8, _ height: UInt8) -> ImageSource {
        .data([0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A, 0, 0, 0, 13] + Array("IHDR".utf8) + [0, 0, 0, width, 0, 0, 0, height])
    }

    @Test("Too many pixels are told from the headers, before anything is decoded") func totalIsToldFirst() throws {
        // A failure means that a dozen files of a few kilobytes take minutes, or gigabytes, before they are refused.
        let limits = ImageLimits(maxPixels: 10_000, maxSide: 200, maxRequestPixels: 20_000)
        let hundred = header(100, 100)
        try ImageBatch([hundred, hundred], limits: limits).check()
        #expect(throws: ImageError.requestTooLarge(images: 3, pixels: 30_000, limit: 20_000)) {
            try ImageBatch([hundred, hundred, hundred], limits: limits).check()
        }
        #expect(throws: ImageError.tooLarge(name: "data: URL", format: .png, width: 101, height: 100, limits: limits)) {
            try ImageBatch([header(101, 100)], limits: limits).check()
        }
        #expect(ImageError.requestTooLarge(images: 3, pixels: 1, limit: 1).category == .badData)
        #expect(ImageLimits.standard.maxRequestPixels == 1_000_000_000)
    }

    @Test("Headers of every format say the size", arguments: ImageSamples.names.filter { !(ImageSamples.expected[$0]?.damaged ?? false) })
    func headersSayTheSize(name: String) throws {
        // A failure means that pictures of some format escape the limit.
        let expected = try #require(ImageSamples.expected[name])
        let size = try #require(try ImageSource.file(path(name)).announcedSize(limits: .standard))
        #expect(size.width * size.height == expected.width * expected.height)
    }

    @Test("What is no image is told before the others are read") func strangersAreToldFirst() throws {
        // A failure means that a wrong last argument is found after minutes of work.
        #expect(throws: ImageError.missing(name: "/nowhere.png")) { try ImageBatch([header(1, 1), .file("/nowhere.png")]).check() }
        #expect(throws: ImageError.empty(name: "data: URL")) { try ImageBatch([.data([])]).check() }
        #expect {
            try ImageBatch([header(1, 1), .data(Array("%PDF-1.7".utf8))]).check()
        } throws: {
            "\($0)".contains("PDF")
        }
        #expect {
            try ImageBatch([.standardInput, header(1, 1), .standardInput]).check()
        } throws: {
            ($0 as? ImageError)?.category == .usage && "\($0)".contains("standard input")
        }
        try ImageBatch([]).check()
    }

    @Test("Images are read one after another, damage is told, and the total holds for sizes that were not known") func readsInOrder() throws {
        // A failure means that images are mixed up, or that a limit is passed by what the headers did not tell.
        let names = ["png-rgb.png", "damaged-without-end.png", "jpeg-444.jpg"]
        let batch = ImageBatch(names.map { .file(path($0)) }, tolerance: .asPillow)
        let read = try batch.read { ($0.image.width, $0.damage?.name) }
        #expect(read.map(\.0) == names.map { ImageSamples.expected[$0]?.width ?? 0 })
        #expect(read.map(\.1) == [nil, path(names[1]), nil])
        #expect {
            try ImageBatch(names.map { .file(path($0)) }).read { $0.image }
        } throws: {
            if case .readable? = $0 as? ImageError { true } else { false }
        }
        let few = ImageLimits(maxPixels: 1000, maxSide: 100, maxRequestPixels: 1500)
        #expect(throws: ImageError.requestTooLarge(images: 2, pixels: 1850, limit: 1500)) {
            try ImageBatch([.file(path("png-rgb.png")), .file(path("png-rgba.png"))], limits: few).read { _ in }
        }
    }
}
