import Foundation
import Synchronization

/// A vision tower by itself, of any architecture: image features without a language model.
///
///     let tower = try VisionTower(contentsOf: folder)
///     let features = try tower.features(of: images)   // [images][tokens * width]
///
/// Safe to use from several threads; one image is encoded at a time, on all of the tower's threads.
public final class VisionTower: Sendable {
    /// The tower's shape.
    package let configuration: VisionConfiguration
    /// How a picture becomes the tower's input.
    package let imageProcessor: CLIPImageProcessor
    /// Rows of features of an image.
    public let tokens: Int
    /// Values of a row.
    public var width: Int { configuration.hiddenSize }

    private let network: any VisionNetwork
    private let location: String
    private let withClassToken: Bool
    /// One image at a time: the workspace's memory and threads are used by one computation.
    private let turn: Mutex<WorkspaceBox>

    /// Opens a tower's own folder (`config.json` and weights), or the tower of a whole checkpoint.
    /// - Parameters:
    ///   - url: the folder.
    ///   - selectLayer: the hidden state that a transformer's own folder outputs, as `mm_vision_select_layer`. A checkpoint has this field
    ///     itself, and other towers have none.
    ///   - threads: `nil` takes one per processor.
    ///   - precision: the arithmetic of the products.
    ///   - kernels: a kernel set by name; `nil` takes the best one of this processor.
    /// - Throws: an ``AdaLLaVAError``
    public convenience init(
        contentsOf url: URL, selectLayer: Int = -2, threads: Int? = nil, precision: Precision = .automatic, kernels: String? = nil
    ) throws {
        let workspace = try Workspace(threads: threads, precision: precision, kernels: kernels)
        let config = url.appendingPathComponent("config.json")
        if FileKind(config) == .file, case .string(let type) = try JSONValue.read(contentsOf: config)["model_type"],
            VisionConfiguration.towerTypes.contains(type)
        {
            let files = try VisionTowerFiles(folder: url)
            let llava = LlavaConfiguration(projector: .identity, selectLayer: selectLayer, towerInside: false)
            try llava.validate(for: files.configuration, file: config.path)
            try self.init(files.tensors, files.configuration, files.imageProcessor, llava, workspace)
        } else {
            try self.init(Checkpoint.open(at: url), workspace: workspace)
        }
    }

    /// The tower of an opened checkpoint, with the features that its projector takes when no tokens are selected.
    /// - Throws: ``CheckpointError``, ``ComputeError``; ``CheckpointError/unsupported(what:file:hint:)`` for text models.
    package convenience init(
        _ checkpoint: Checkpoint, threads: Int? = nil, precision: Precision = .automatic, kernels: String? = nil
    ) throws {
        try self.init(checkpoint, workspace: Workspace(threads: threads, precision: precision, kernels: kernels))
    }

    private convenience init(_ checkpoint: Checkpoint, workspace: Workspace) throws {
        guard let configuration = checkpoint.configuration.vision, var llava = checkpoint.configuration.llava, let tensors = checkpoint.vision
        else {
            throw CheckpointError.unsupported(
                what: "a model without a vision tower", file: checkpoint.name, hint: "expected a LLaVA checkpoint, or a tower of its own")
        }
        llava.tokenSelection = .none
        try self.init(tensors, configuration, checkpoint.imageProcessor ?? .standard(for: configuration), llava, workspace)
    }

    private init(
        _ tensors: any TensorSource, _ configuration: VisionConfiguration, _ processor: ImageProcessorConfiguration,
        _ llava: LlavaConfiguration, _ workspace: Workspace
    ) throws {
        switch configuration.architecture {
        case .clip, .siglip, .efficientNetLite: break
        case .qwen2VL, .siglip2:
            throw CheckpointError.unsupported(
                what: "the tower of a \(configuration.modelType) by itself", file: tensors.location, hint: "AdaptiveModel.features(of:) gives its features")
        }
        self.configuration = configuration
        location = tensors.location
        withClassToken = llava.selectFeature == .classAndPatches
        tokens = configuration.patches + (withClassToken ? 1 : 0)
        imageProcessor = try CLIPImageProcessor(processor, tower: configuration, file: location)
        network = try VisionNetworks.load(
            tensors, configuration, for: llava, packer: WeightPacker(kernels: workspace.kernels, pool: workspace.pool), cancellation: Cancellation(), onLayer: { _, _ in })
        turn = Mutex(WorkspaceBox(workspace))
    }

    /// The features of one image.
    /// - Parameter pixels: `[3, S, S]` normalized values, as ``imageProcessor`` makes them.
    /// - Returns: `[tokens, width]`, row-major.
    /// - Throws: ``VisionError/pixels(expected:found:)``, `CancellationError`
    package func features(_ pixels: [Float], cancellation: Cancellation = Cancellation()) throws -> [Float] {
        let expected = 3 * configuration.imageSize * configuration.imageSize
        guard pixels.count == expected else { throw VisionError.pixels(expected: expected, found: pixels.count) }
        return try turn.withLock { box in
            try network(pixels, grid: nil, box.workspace, cancellation: cancellation, progress: { _, _ in }).rows(withClassToken: withClassToken).values
        }
    }

    /// The features of decoded images, each padded to a square.
    /// - Parameter images: encoded one after another.
    /// - Returns: for each image `[tokens, width]`, row-major.
    public func features(of images: [RGBImage]) throws -> [[Float]] { try features(of: images, cancellation: Cancellation()) }

    /// The same, stopping within one layer when `cancellation` is cancelled.
    package func features(of images: [RGBImage], cancellation: Cancellation) throws -> [[Float]] {
        try images.map { try features(imageProcessor($0, mode: .pad), cancellation: cancellation) }
    }
}

/// Lets a mutex own a workspace: who holds the lock is the only one that computes with it.
private struct WorkspaceBox: @unchecked Sendable {
    let workspace: Workspace
    init(_ workspace: Workspace) { self.workspace = workspace }
}

/// Pixels that a tower cannot take.
package enum VisionError: AdaLLaVAError, Equatable {
    /// A number of values that is not `3 * S * S`.
    case pixels(expected: Int, found: Int)

    package var category: ErrorCategory { .usage }

    package var description: String {
        switch self {
        case .pixels(let expected, let found): "pixels for the vision tower: expected \(expected) values, [3, S, S], found \(found)"
        }
    }
}
