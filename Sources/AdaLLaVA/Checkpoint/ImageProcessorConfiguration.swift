/// How a picture becomes the tower's input: resized, cut, scaled and normalized, as `preprocessor_config.json` says.
package struct ImageProcessorConfiguration: Sendable, Equatable {
    /// A size in pixels.
    package struct Size: Sendable, Equatable {
        /// Pixels from left to right.
        package var width: Int
        /// Pixels from top to bottom.
        package var height: Int

        /// A size given by value.
        package init(width: Int, height: Int) { (self.width, self.height) = (width, height) }
    }

    /// Target size of a picture.
    package enum Resize: Sendable, Equatable {
        /// The shorter side gets this many pixels, the longer one keeps the proportion.
        case shortestEdge(Int)
        /// The longer side gets this many pixels, the shorter one keeps the proportion, rounded to an even number (Idefics3).
        case longestEdge(Int)
        case exact(Size)
        /// Both sides become multiples of the patches that the tower merges, the proportions are kept, and the pixels are between these (Qwen2-VL).
        case pixels(ClosedRange<Int>)
    }

    /// How Idefics3 cuts a picture.
    package struct Tiles: Sendable, Equatable {
        /// Pixels of a tile's side.
        package var side: Int
        /// Whether pictures are cut; otherwise each is resized to one tile.
        package var splits: Bool

        package init(side: Int, splits: Bool) { (self.side, self.splits) = (side, splits) }
    }

    /// The filters of Pillow, by its numbers.
    package enum Resampling: Int, Sendable {
        case nearest = 0, lanczos, bilinear, bicubic, box, hamming
    }

    /// `nil` leaves the size as it is.
    package var resize: Resize?
    /// The filter that resizes.
    package var resampling: Resampling
    /// The part cut from the middle; `nil` cuts nothing.
    package var centerCrop: Size?
    /// Factor of bytes, usually 1/255; `nil` for none.
    package var rescaleFactor: Double?
    /// Subtracted from each channel, red first. Zeros and ones where nothing is normalized.
    package var mean: [Float]
    /// Divisor of each channel.
    package var standardDeviation: [Float]
    /// Whether a picture is squared with its mean colour before it is resized (`do_pad` of Hugging Face's LLaVA processor).
    package var padsToSquare: Bool
    /// `nil` for processors that cut nothing into tiles.
    package var tiles: Tiles?
    /// LFM2-VL's settings; `nil` for other processors.
    package var lfm2VL: LFM2VLTiles?

    /// SigLIP's mean and deviation in each channel: bytes become values from -1 to 1.
    private static let half: [Float] = [0.5, 0.5, 0.5]

    /// OpenAI's CLIP, the default of a file without these fields.
    package static let clipMean: [Float] = [0.48145466, 0.4578275, 0.40821073]
    /// Divisors of the channels in OpenAI's CLIP, red first.
    package static let clipStandardDeviation: [Float] = [0.26862954, 0.26130258, 0.27577711]

    /// A configuration given by value; defaults are CLIP's.
    package init(
        resize: Resize?, resampling: Resampling = .bicubic, centerCrop: Size?, rescaleFactor: Double? = 1.0 / 255,
        mean: [Float] = clipMean, standardDeviation: [Float] = clipStandardDeviation, padsToSquare: Bool = false
    ) {
        self.resize = resize
        self.resampling = resampling
        self.centerCrop = centerCrop
        self.rescaleFactor = rescaleFactor
        self.mean = mean
        self.standardDeviation = standardDeviation
        self.padsToSquare = padsToSquare
    }

    /// CLIP's processing for a tower that sees `imageSize` by `imageSize` pixels.
    package static func clip(imageSize: Int) -> ImageProcessorConfiguration {
        .init(resize: .shortestEdge(imageSize), centerCrop: Size(width: imageSize, height: imageSize))
    }

    /// SigLIP's processing: both sides are resized without keeping the proportions.
    package static func siglip(imageSize: Int) -> ImageProcessorConfiguration {
        .init(resize: .exact(Size(width: imageSize, height: imageSize)), centerCrop: nil, mean: half, standardDeviation: half)
    }

    /// EfficientNet-Lite's values, `(byte - 127) / 128`, for a tower that sees `imageSize` by `imageSize` pixels.
    ///
    /// The published models were trained on the middle 224 / 256 of a picture, resized bicubically to the tower's size. Here the whole
    /// shorter side is kept, as for CLIP, because a question may be about the edge.
    package static func efficientNetLite(imageSize: Int) -> ImageProcessorConfiguration {
        .init(
            resize: .shortestEdge(imageSize), centerCrop: Size(width: imageSize, height: imageSize), rescaleFactor: nil,
            mean: [127, 127, 127], standardDeviation: [128, 128, 128])
    }

    /// The processing that a tower without a `preprocessor_config.json` means.
    package static func standard(for tower: VisionConfiguration) -> ImageProcessorConfiguration {
        switch tower.architecture {
        case .clip: .clip(imageSize: tower.imageSize)
        case .siglip: .siglip(imageSize: tower.imageSize)
        case .efficientNetLite: .efficientNetLite(imageSize: tower.imageSize)
        case .siglip2: .init(resize: nil, resampling: .bilinear, centerCrop: nil, mean: half, standardDeviation: half)
        case .qwen2VL: .init(resize: .pixels(qwen2VLPixels), centerCrop: nil)
        }
    }

    /// Defaults of Qwen2-VL's processor.
    private static let qwen2VLPixels = 56 * 56...28 * 28 * 1280

    /// `min_pixels` and `max_pixels`, or the edges of `size`, which transformers 5 calls so.
    private static func readPixels(_ fields: ConfigurationFields) throws -> Resize {
        let (size, limits) = (try fields.optionalObject("size"), 1...1 << 28)
        let least = try fields.optionalInteger("min_pixels", in: limits) ?? size?.optionalInteger("shortest_edge", in: limits) ?? qwen2VLPixels.lowerBound
        let most = try fields.optionalInteger("max_pixels", in: limits) ?? size?.optionalInteger("longest_edge", in: limits) ?? qwen2VLPixels.upperBound
        guard least <= most else { throw fields.invalid("max_pixels", expected: "at least min_pixels, \(least)") }
        return .pixels(least...most)
    }

    /// Reads `preprocessor_config.json`, in the old form (`"size": 224`) and the new (`"size": {"shortest_edge": 224}`), or the
    /// `image_processor` of a `processor_config.json`.
    /// - Throws: ``CheckpointError/configuration(field:expected:found:file:)``
    package static func read(_ json: JSONValue, file: String) throws -> ImageProcessorConfiguration {
        let whole = try ConfigurationFields(json, file: file)
        let fields = try whole.optionalObject("image_processor") ?? whole
        let defaults = Defaults(type: try fields.optionalString("image_processor_type") ?? fields.optionalString("feature_extractor_type") ?? "")
        let resizes = try fields.bool("do_resize", missing: true)
        let crops = try fields.bool("do_center_crop", missing: defaults.crops)
        let rescales = try fields.bool("do_rescale", missing: true)
        let normalizes = try fields.bool("do_normalize", missing: true)
        let filter = try fields.integer("resample", in: 0...5, missing: defaults.resampling.rawValue)
        let deviations = try fields.optionalNumbers("image_std", counts: 3...3, in: 1e-6...1e6)?.map { Float($0) }
        let means = try fields.optionalNumbers("image_mean", counts: 3...3, in: -1e6...1e6)?.map { Float($0) }
        var configuration = ImageProcessorConfiguration(
            resize: defaults.isLFM2VL ? nil : defaults.keepsProportions ? try readPixels(fields) : resizes ? try readResize(fields, byLongestEdge: defaults.cutsTiles) : nil,
            resampling: Resampling(rawValue: filter) ?? defaults.resampling,
            centerCrop: crops ? try readCrop(fields) : nil,
            rescaleFactor: rescales ? try fields.number("rescale_factor", in: 1e-9...1e9, missing: 1.0 / 255) : nil,
            mean: normalizes ? means ?? defaults.mean : [0, 0, 0],
            standardDeviation: normalizes ? deviations ?? defaults.standardDeviation : [1, 1, 1],
            padsToSquare: try !defaults.cutsTiles && !defaults.isLFM2VL && fields.bool("do_pad", missing: false))
        if defaults.isLFM2VL { configuration.lfm2VL = try LFM2VLTiles(fields) }
        if defaults.cutsTiles {
            guard case .longestEdge = configuration.resize else {
                throw fields.invalid(resizes ? "size" : "do_resize", expected: resizes ? "longest_edge" : "true")
            }
            let sides = ConfigurationLimits.imageSide
            configuration.tiles = Tiles(
                side: try fields.optionalObject("max_image_size")?.integer("longest_edge", in: sides, missing: nil) ?? 364,
                splits: try fields.bool("do_image_splitting", missing: true))
        }
        return configuration
    }

    /// Defaults of absent fields, by the processor's class.
    private struct Defaults {
        var crops = true
        var resampling = Resampling.bicubic
        var mean = clipMean
        var standardDeviation = clipStandardDeviation
        var cutsTiles = false
        var keepsProportions = false
        var isLFM2VL = false

        init(type: String) {
            keepsProportions = type.hasPrefix("Qwen2VL") || type.hasPrefix("Qwen2_5_VL")
            if keepsProportions { crops = false }
            cutsTiles = type.hasPrefix("Idefics3") || type.hasPrefix("SmolVLM")
            isLFM2VL = type.hasPrefix("Lfm2Vl")
            guard cutsTiles || isLFM2VL || type.hasPrefix("Siglip") else { return }
            (crops, mean, standardDeviation) = (false, half, half)
            if cutsTiles { resampling = .lanczos }
            if isLFM2VL { resampling = .bilinear }
        }
    }

    /// - Parameter byLongestEdge: whether the longer side may be given.
    private static func readResize(_ fields: ConfigurationFields, byLongestEdge: Bool) throws -> Resize {
        let sides = ConfigurationLimits.imageSide
        guard case .object = fields.raw("size"), let size = try fields.optionalObject("size") else {
            return .shortestEdge(try fields.integer("size", in: sides, missing: 224))
        }
        if byLongestEdge, size.has("longest_edge") { return .longestEdge(try size.integer("longest_edge", in: sides, missing: nil)) }
        if size.has("shortest_edge") { return .shortestEdge(try size.integer("shortest_edge", in: sides, missing: nil)) }
        guard size.has("height"), size.has("width") else {
            throw fields.invalid("size", expected: "a number of pixels, shortest_edge, or height and width")
        }
        return .exact(
            Size(width: try size.integer("width", in: sides, missing: nil), height: try size.integer("height", in: sides, missing: nil)))
    }

    private static func readCrop(_ fields: ConfigurationFields) throws -> Size {
        let sides = ConfigurationLimits.imageSide
        guard case .object = fields.raw("crop_size"), let size = try fields.optionalObject("crop_size") else {
            let side = try fields.integer("crop_size", in: sides, missing: 224)
            return Size(width: side, height: side)
        }
        return Size(width: try size.integer("width", in: sides, missing: nil), height: try size.integer("height", in: sides, missing: nil))
    }
}
