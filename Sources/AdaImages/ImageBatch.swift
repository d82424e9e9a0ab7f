import AdaLLaVA

/// The images of one request, under limits for all of them together.
///
///     let images = ImageBatch(try arguments.map { try ImageSource(argument: $0) })
///     try images.check()                                        // from the headers, before anything is decoded
///     let prepared = try images.read { preparation($0.image) }  // one decoded image is held at a time
package struct ImageBatch: Sendable {
    package let sources: [ImageSource]
    package let limits: ImageLimits
    package let tolerance: ImageTolerance

    package init(_ sources: [ImageSource], limits: ImageLimits = .standard, tolerance: ImageTolerance = .strict) {
        (self.sources, self.limits, self.tolerance) = (sources, limits, tolerance)
    }

    /// Checks every header: throws for a file that is not an image and for too many pixels in total. Decodes nothing.
    /// - Throws: ``ImageError``
    package func check() throws {
        let streams = sources.count { $0 == .standardInput }
        guard streams <= 1 else {
            throw ImageError.argument(name: "standard input", reason: "expected it for one image, found it for \(streams)")
        }
        var total = 0
        for source in sources {
            if let size = try source.announcedSize(limits: limits) { total += size.width * size.height }
        }
        try checkTotal(total, images: sources.count)
    }

    /// Reads the images one after another and releases each before reading the next.
    /// - Parameter use: called with each image in order; its results are returned.
    /// - Throws: ``ImageError``, and the errors of `use`.
    package func read<Result>(_ use: (ReadImage) throws -> Result) throws -> [Result] {
        var total = 0
        return try sources.enumerated().map { index, source in
            let read = try source.image(limits: limits, tolerance: tolerance)
            // Some sizes are known only after reading.
            total += read.image.width * read.image.height
            try checkTotal(total, images: index + 1)
            return try use(read)
        }
    }

    private func checkTotal(_ pixels: Int, images: Int) throws {
        guard pixels <= limits.maxRequestPixels else {
            throw ImageError.requestTooLarge(images: images, pixels: pixels, limit: limits.maxRequestPixels)
        }
    }
}
