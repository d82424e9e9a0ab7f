/// What a model does to a picture before its tower, known from the checkpoint's configuration before any weight is read.
///
///     let checkpoint = try Checkpoint.open(at: url)
///     let prepare = try ImagePreparation(checkpoint)
///     let pictures = files.map { prepare(read($0)) }     // a few hundred kilobytes each, whatever the files hold
///     let model = try await AdaptiveModel(checkpoint)
public struct ImagePreparation: Sendable, Equatable {
    let processor: CLIPImageProcessor
    let mode: CLIPImageProcessor.AspectMode
    /// Positions of a prompt that an image takes, at least.
    let leastPositions: Int
    private let contextLength: Int

    /// Positions of a prompt that an image takes; at least, where tokens are selected.
    public var tokens: Int { leastPositions }
    /// Pixels that are left of an image.
    public var pixels: Int { processor.cropSize * processor.cropSize }

    /// - Throws: ``GenerationError/noVision(model:)`` for text models, ``CheckpointError``
    public init(_ checkpoint: Checkpoint) throws {
        guard let llava = checkpoint.configuration.llava, let tower = checkpoint.configuration.vision else {
            throw GenerationError.noVision(model: checkpoint.name)
        }
        processor = try CLIPImageProcessor(checkpoint.imageProcessor ?? .standard(for: tower), tower: tower, file: checkpoint.name)
        mode = llava.imageAspectRatio == .pad ? .pad : .crop
        leastPositions = llava.leastPositions(of: tower)
        contextLength = checkpoint.configuration.language.contextLength
    }

    /// Refuses more images than the model's context holds.
    /// - Throws: ``GenerationError/promptTooLong(positions:limit:)``
    public func check(images count: Int) throws {
        let (positions, overflow) = count.multipliedReportingOverflow(by: leastPositions)
        guard !overflow, positions < contextLength else { throw GenerationError.promptTooLong(positions: positions, limit: contextLength) }
    }

    /// The picture at the tower's size.
    public func callAsFunction(_ image: RGBImage) -> PreparedImage {
        PreparedImage(preparation: self, pixels: processor.croppedPixels(image, mode: mode))
    }
}

/// A picture brought to the size of a model's vision tower.
public struct PreparedImage: Sendable {
    let preparation: ImagePreparation
    /// `[S, S, 3]`
    let pixels: [UInt8]
}

extension LlavaConfiguration {
    /// Rows of features that an image has at least: all of them, unless tokens are selected.
    func leastPositions(of tower: VisionConfiguration) -> Int {
        tokenSelection == .none ? tower.patches + (selectFeature == .classAndPatches ? 1 : 0) : 1
    }
}
