extension CLIPImageProcessor {
    /// The processor that a checkpoint's `preprocessor_config.json` describes; of one that cuts tiles, the processing of a tile.
    package init(_ configuration: ImageProcessorConfiguration, tower: VisionConfiguration, file: String) throws {
        let side: Int, ignoresProportions: Bool
        switch configuration.resize {
        case .shortestEdge(let edge): (side, ignoresProportions) = (edge, false)
        case nil: (side, ignoresProportions) = (tower.imageSize, false)
        // Only processors that cut tiles have it; a tile has the tower's size already.
        case .longestEdge, .pixels: (side, ignoresProportions) = (tower.imageSize, true)
        case .exact(let size):
            guard size.width == size.height else {
                throw CheckpointError.unsupported(what: "resizing to \(size.width) by \(size.height)", file: file, hint: "it reads squares")
            }
            (side, ignoresProportions) = (size.width, true)
        }
        try self.init(
            cropSize: tower.imageSize, shortestEdge: side, mean: configuration.mean.map(Double.init),
            standardDeviation: configuration.standardDeviation.map(Double.init), rescaleFactor: configuration.rescaleFactor ?? 1,
            ignoresProportions: ignoresProportions, filter: ResampleFilter(configuration.resampling, file: file), fusesRescaling: configuration.lfm2VL != nil,
            file: file)
    }
}

extension ResampleFilter {
    /// - Throws: ``CheckpointError/unsupported(what:file:hint:)`` for filters that no published processor uses.
    init(_ resampling: ImageProcessorConfiguration.Resampling, file: String) throws {
        switch resampling {
        case .bilinear: self = .bilinear
        case .bicubic: self = .bicubic
        case .lanczos: self = .lanczos
        case .nearest, .box, .hamming:
            throw CheckpointError.unsupported(
                what: "resample \(resampling.rawValue)", file: file, hint: "it reads 1 (Lanczos), 2 (bilinear) and 3 (bicubic)")
        }
    }
}
