/// Image processing before a model's tower, known from the checkpoint's configuration before any weight is read.
///
///     let checkpoint = try Checkpoint.open(at: url)
///     let prepare = try ImagePreparation(checkpoint)
///     let pictures = files.map { prepare(read($0)) }     // a few hundred kilobytes per picture or tile, for files of any size
///     let model = try await AdaptiveModel(checkpoint)
package struct ImagePreparation: Sendable, Equatable {
    let processor: CLIPImageProcessor
    let mode: CLIPImageProcessor.AspectMode
    /// `nil` where a picture is one input of the tower.
    let tiling: ImageTiling?
    /// Positions of a prompt that an image takes, at least.
    let leastPositions: Int
    private let contextLength: Int

    /// Positions of a prompt that an image takes; at least, where tokens are selected or pictures are cut into tiles.
    package var tokens: Int { leastPositions }
    /// Pixels that are left of an image, or of each of its tiles.
    package var pixels: Int { processor.cropSize * processor.cropSize }

    /// - Throws: ``GenerationError/noVision(model:)`` for text models, ``CheckpointError``
    package init(_ checkpoint: Checkpoint) throws {
        guard let llava = checkpoint.configuration.llava, let tower = checkpoint.configuration.vision else {
            throw GenerationError.noVision(model: checkpoint.name)
        }
        let configuration = checkpoint.imageProcessor ?? .standard(for: tower)
        processor = try CLIPImageProcessor(configuration, tower: tower, file: checkpoint.name)
        mode = llava.imageAspectRatio == .pad ? .pad : .crop
        switch (llava.tiling, configuration.tiles, configuration.resize) {
        case (.idefics3, let tiles?, .longestEdge(let edge)?):
            let idefics3 = Idefics3Tiling(side: tiles.side, longestEdge: edge, splits: tiles.splits, filter: processor.filter)
            (tiling, leastPositions) = (.idefics3(idefics3), llava.leastRows(of: tower) * idefics3.leastTiles)
        case (.dynamic, _, .pixels(let pixels)?):
            guard case .qwen2VL(let shape) = tower.architecture else { throw GenerationError.noVision(model: checkpoint.name) }
            let resizing = DynamicResizing(
                patch: tower.patchSize, merge: shape.mergeSize, frames: shape.temporalPatchSize, pixels: pixels, filter: processor.filter)
            (tiling, leastPositions) = (.dynamic(resizing), 1)
        case (.lfm2VL, _, _):
            guard let settings = configuration.lfm2VL else { throw GenerationError.noVision(model: checkpoint.name) }
            (tiling, leastPositions) = (.lfm2VL(LFM2VLTiling(settings: settings, filter: processor.filter)), 1)
        case (.anyRes(let resolutions), _, _):
            tiling = .anyRes(AnyResTiling(side: tower.imageSize, resolutions: resolutions, filter: processor.filter))
            leastPositions = llava.leastRows(of: tower)
        default: (tiling, leastPositions) = (nil, llava.leastRows(of: tower))
        }
        contextLength = checkpoint.configuration.language.contextLength
    }

    /// Refuses more images than the model's context holds.
    /// - Throws: ``GenerationError/promptTooLong(positions:limit:)``
    package func check(images count: Int) throws {
        let (positions, overflow) = count.multipliedReportingOverflow(by: leastPositions)
        guard !overflow, positions < contextLength else { throw GenerationError.promptTooLong(positions: positions, limit: contextLength) }
    }

    /// The picture at the tower's size.
    package func callAsFunction(_ image: RGBImage) -> PreparedImage { PreparedImage(preparation: self, tiles: tiles(of: image)) }

    /// Tiles of a picture from top to bottom and from left to right; zeros if it is one input of the tower.
    func grid(width: Int, height: Int) -> (rows: Int, columns: Int) { tiling?.grid(width: width, height: height) ?? (0, 0) }

    func tiles(of image: RGBImage) -> ImageTiles {
        tiling?(image) ?? ImageTiles(
            width: image.width, height: image.height, rows: 0, columns: 0, pixels: [processor.croppedPixels(image, mode: mode)])
    }

    /// The tower's inputs, `[tiles, 3, S, S]` or rows of patches.
    func values(of tiles: ImageTiles) -> [Float] {
        switch tiling {
        case .dynamic(let resizing): return resizing.rows(of: tiles, value: processor.value(channel:byte:))
        case .lfm2VL(let tiling): return tiling.rows(of: tiles, value: processor.value(channel:byte:))
        case .idefics3, .anyRes, nil: break
        }
        return tiles.pixels.count == 1 ? processor.values(of: tiles.pixels[0]) : tiles.pixels.flatMap(processor.values(of:))
    }
}

/// A picture brought to the size of a model's vision tower.
public struct PreparedImage: Sendable {
    let preparation: ImagePreparation
    let tiles: ImageTiles
}

extension LlavaConfiguration {
    /// Rows of features that an input of the tower has at least: all of them, unless tokens are selected.
    func leastRows(of tower: VisionConfiguration) -> Int { tokenSelection == .none ? featureRows(of: tower) : 1 }
}
