/// The shape of an EfficientNet-Lite (Tan and Le, 2019; the Lite variants without squeeze-and-excitation and with ReLU6), used without
/// its classifier as a vision tower.
///
///     let lite0 = try EfficientNetConfiguration(variant: "lite0")
///     lite0.grid          // 7: the last map has 7 x 7 cells at 224 pixels
///     lite0.featureWidth  // 2368 = 1280 + 4 * 112 + 16 * 40
package struct EfficientNetConfiguration: Sendable, Equatable {
    /// The name of this architecture in `config.json`.
    package static let modelType = "efficientnet_lite"

    /// Inverted bottleneck blocks of one shape, one after another. The first has the stage's stride and inputs.
    package struct Stage: Sendable, Equatable {
        /// Blocks of the stage.
        package var repeats: Int
        /// Taps of a side of the depthwise filters: 3, 5 or 7.
        package var kernelSize: Int
        /// Of the first block: 1 or 2.
        package var stride: Int
        /// Channels in the middle of a block for each that enters it; a block of 1 has no expanding convolution.
        package var expandRatio: Int
        /// Channels that enter the first block.
        package var inputs: Int
        /// Channels that leave every block.
        package var outputs: Int

        /// A stage given by value.
        package init(repeats: Int, kernelSize: Int, stride: Int, expandRatio: Int, inputs: Int, outputs: Int) {
            (self.repeats, self.kernelSize, self.stride) = (repeats, kernelSize, stride)
            (self.expandRatio, self.inputs, self.outputs) = (expandRatio, inputs, outputs)
        }
    }

    /// One of the network's maps that becomes image features.
    package enum FeatureMap: String, Sendable, CaseIterable {
        /// The last map: the head convolution's channels, which the classifier averages.
        case head
        /// The output of the last block whose cells are 16 pixels apart.
        case stride16
        /// The output of the last block whose cells are 8 pixels apart.
        case stride8
        /// The mean of each 8 x 8 pixels, red, green, blue, as the network gets them: colours, which a network that names things forgets.
        case color8

        /// Those that a configuration without `feature_maps` has.
        package static let standard: [FeatureMap] = [.head, .stride16, .stride8]

        /// Pixels between cells; `nil` for the last map, whatever its stride.
        var stride: Int? {
            switch self {
            case .head: nil
            case .stride16: 16
            case .stride8, .color8: 8
            }
        }
    }

    /// One block of the network's sequence.
    package struct Block: Equatable {
        package let kernelSize, stride, inputs, outputs: Int
        /// Channels in the middle.
        package let expanded: Int
        /// Cells of a side before and after the block.
        package let side, outputSide: Int
        /// Pixels from one cell to the next after the block.
        package let totalStride: Int
        /// Whether the block's input is added to its output.
        package var isResidual: Bool { stride == 1 && inputs == outputs }
    }

    /// Pixels of a side of the square image the network sees.
    package var imageSize: Int
    /// Channels of the first convolution.
    package var stemChannels: Int
    /// Channels of the last convolution.
    package var headChannels: Int
    /// The blocks between the two.
    package var stages: [Stage]
    /// The feature maps of a row of features, in order.
    package var featureMaps: [FeatureMap]

    /// A network given by value.
    package init(
        imageSize: Int, stemChannels: Int, headChannels: Int, stages: [Stage], featureMaps: [FeatureMap] = FeatureMap.standard
    ) {
        (self.imageSize, self.stemChannels, self.headChannels) = (imageSize, stemChannels, headChannels)
        (self.stages, self.featureMaps) = (stages, featureMaps)
    }

    // MARK: - Derived sizes

    /// Cells of a side of the map after the stem: every stride rounds up, as with TensorFlow's "same" padding.
    package var stemSide: Int { (imageSize + 1) / 2 }

    /// The blocks of all stages.
    package var blocks: [Block] {
        var (side, total) = (stemSide, 2)
        return stages.flatMap { stage in
            (0 ..< stage.repeats).map { index in
                let (inputs, stride) = index == 0 ? (stage.inputs, stage.stride) : (stage.outputs, 1)
                let before = side
                side = (side + stride - 1) / stride
                total *= stride
                return Block(
                    kernelSize: stage.kernelSize, stride: stride, inputs: inputs, outputs: stage.outputs,
                    expanded: inputs * stage.expandRatio, side: before, outputSide: side, totalStride: total)
            }
        }
    }

    /// Cells of a side of the last map; each becomes one token.
    package var grid: Int { blocks.last?.outputSide ?? stemSide }

    /// Pixels from one token to the next.
    package var totalStride: Int { blocks.last?.totalStride ?? 2 }

    /// The index of the block whose output a feature map is; `nil` for the head and for pixels, and for strides that the network does not have.
    func blockIndex(of map: FeatureMap) -> Int? {
        map == .color8 ? nil : map.stride.flatMap { stride in blocks.lastIndex { $0.totalStride == stride } }
    }

    /// Values that a feature map adds to a row: its channels, times its cells under one cell of the last map.
    package func width(of map: FeatureMap) -> Int {
        guard let stride = map.stride else { return headChannels }
        let cells = max(1, totalStride / stride)
        return (map == .color8 ? 3 : blockIndex(of: map).map { blocks[$0].outputs } ?? 0) * cells * cells
    }

    /// Values of a row of features.
    package var featureWidth: Int { featureMaps.reduce(0) { $0 + width(of: $1) } }

    /// The published variant that this is, `lite0` to `lite4`, at any image size; `nil` if it is none.
    package var variant: String? {
        EfficientNetConfiguration.variants.first { EfficientNetConfiguration(scaling: $0).hasWeights(like: self) }?.name
    }

    /// Whether the weights of one fit the other: all but image size and feature maps.
    func hasWeights(like other: EfficientNetConfiguration) -> Bool {
        stemChannels == other.stemChannels && headChannels == other.headChannels && stages == other.stages
    }

    // MARK: - The published variants

    /// Width, depth and image size of the published variants.
    private static let variants: [(name: String, width: Double, depth: Double, imageSize: Int)] = [
        ("lite0", 1.0, 1.0, 224), ("lite1", 1.0, 1.1, 240), ("lite2", 1.1, 1.2, 260), ("lite3", 1.2, 1.4, 280), ("lite4", 1.4, 1.8, 300),
    ]

    static var variantNames: [String] { variants.map(\.name) }

    /// Lite0's stages, which the others scale: blocks, taps, stride, expansion, output channels.
    private static let base = [
        (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
    ]

    private init(scaling variant: (name: String, width: Double, depth: Double, imageSize: Int)) {
        // Channels become multiples of 8, at most a tenth below the scaled width.
        func channels(_ count: Int) -> Int {
            let wanted = Double(count) * variant.width
            let rounded = max(8, Int(wanted + 4) / 8 * 8)
            return Double(rounded) < 0.9 * wanted ? rounded + 8 : rounded
        }
        var inputs = 32
        let stages = EfficientNetConfiguration.base.enumerated().map { index, stage in
            // The Lite variants scale neither stem nor head, nor how often the first and the last stage repeat.
            let isEnd = index == 0 || index == EfficientNetConfiguration.base.count - 1
            let repeats = isEnd ? stage.0 : Int((Double(stage.0) * variant.depth).rounded(.up))
            defer { inputs = channels(stage.4) }
            return Stage(
                repeats: repeats, kernelSize: stage.1, stride: stage.2, expandRatio: stage.3, inputs: inputs, outputs: channels(stage.4))
        }
        self.init(imageSize: variant.imageSize, stemChannels: 32, headChannels: 1280, stages: stages)
    }

    /// A published variant, `lite0` to `lite4`, at its own image size.
    /// - Throws: ``CheckpointError/configuration(field:expected:found:file:)`` for another name.
    package init(variant name: String, file: String = "config.json") throws {
        guard let found = EfficientNetConfiguration.variants.first(where: { $0.name == name }) else {
            throw CheckpointError.configuration(
                field: "variant", expected: "one of \(EfficientNetConfiguration.variantNames.joined(separator: ", "))",
                found: String(name.prefix(60)), file: file)
        }
        self.init(scaling: found)
    }
}
