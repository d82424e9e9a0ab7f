import AdaKernels

/// A map with channels last: one row for each cell, row by row.
struct FeatureGrid {
    /// `[side * side, channels]`.
    let cells: Tensor
    /// Cells of a side.
    let side: Int
}

/// TensorFlow's "same" padding of one axis: as many outputs as strides fit, zeros on both sides so that they do, the odd one at the end.
struct SamePadding {
    /// Positions of the output.
    let outputs: Int
    /// Zeros before the input.
    let before: Int

    init(size: Int, kernel: Int, stride: Int) {
        outputs = (size + stride - 1) / stride
        before = max(0, (outputs - 1) * stride + kernel - size) / 2
    }
}

/// A depthwise convolution followed by ReLU6.
struct DepthwiseConvolution: Sendable {
    private let kernel, stride, channels: Int
    /// `[kernel * kernel, channels]`: channels last, as the maps are.
    private let weight: Tensor
    private let bias: Tensor

    /// Reads `name.weight`, `[channels, 1, kernel, kernel]`, and `name.bias`.
    init(_ source: any TensorSource, _ name: String, channels: Int, kernel: Int, stride: Int) throws {
        (self.kernel, self.stride, self.channels) = (kernel, stride, channels)
        let stored = try source.tensor(name + ".weight")
        let taps = kernel * kernel
        guard stored.shape == [channels, 1, kernel, kernel] else {
            throw CheckpointError.shape(
                tensor: stored.name, expected: [channels, 1, kernel, kernel], found: stored.shape, file: stored.file.path)
        }
        let rows = try Tensor(vector: stored, count: channels * taps)
        weight = Tensor(rows: taps, columns: channels)
        for channel in 0 ..< channels {
            for tap in 0 ..< taps { weight.data[tap * weight.stride + channel] = rows.data[channel * taps + tap] }
        }
        bias = try Tensor(vector: source.tensor(name + ".bias"), count: channels)
    }

    /// - Parameters:
    ///   - output: receives the result; its side follows from "same" padding.
    ///   - rows: which of the output's rows of cells.
    func callAsFunction(_ x: FeatureGrid, output: Tensor, rows: Range<Int>, _ workspace: Workspace) {
        let padding = SamePadding(size: x.side, kernel: kernel, stride: stride)
        let shape = ak_depthwise(
            height: Int32(x.side), width: Int32(x.side), channels: Int32(channels), out_width: Int32(padding.outputs),
            kernel: Int32(kernel), stride: Int32(stride), top: Int32(padding.before), left: Int32(padding.before))
        let step = max(1, rows.count / (workspace.pool.threads * 8))
        let (kernels, input) = (workspace.kernels.table, x.cells)
        workspace.pool.run((rows.count + step - 1) / step) { item, _ in
            withUnsafePointer(to: shape) { shape in
                kernels.depthwise_relu6(
                    output.data, output.stride, input.data, input.stride, weight.data, weight.stride, bias.data, shape,
                    Int32(rows.lowerBound + item * step), Int32(min(step, rows.count - item * step)))
            }
        }
    }
}

/// The inverted bottleneck of MobileNetV2 (Sandler et al., 2018) as EfficientNet-Lite has it: expand, filter each channel, project back.
///
///     x + project(relu6(depthwise(relu6(expand(x)))))
struct MBConvBlock: Sendable {
    let shape: EfficientNetConfiguration.Block
    let expand: Linear?
    let depthwise: DepthwiseConvolution
    /// Added to the input of a residual block, which is overwritten with the sum.
    let project: Linear

    init(_ source: any TensorSource, _ name: String, _ shape: EfficientNetConfiguration.Block, packer: WeightPacker) throws {
        self.shape = shape
        expand = shape.expanded == shape.inputs
            ? nil : try Linear(pointwise: source, name + ".expand", rows: shape.expanded, inputs: shape.inputs, packer: packer)
        depthwise = try DepthwiseConvolution(
            source, name + ".depthwise", channels: shape.expanded, kernel: shape.kernelSize, stride: shape.stride)
        project = try Linear(pointwise: source, name + ".project", rows: shape.outputs, inputs: shape.expanded, packer: packer)
    }
}

/// The middle maps of the blocks, kept from image to image.
final class MapScratch: @unchecked Sendable {
    /// The blocks' outputs, and the stem's before them.
    var outputs: [Tensor] = []
    var patches: Tensor?
    private var expandedMemory: Tensor?, filteredMemory: Tensor?
    private let arena = HugePageArena(slabBytes: 16 << 20)

    /// A tensor that stays as long as this scratch.
    func tensor(_ rows: Int, _ columns: Int) -> Tensor { Tensor(rows: rows, columns: columns, arena: arena) }

    /// A block's input with more channels, and the same after the depthwise convolution: each valid until the next one is requested. All blocks use the
    /// same memory, which then stays in the processor's caches.
    func expanded(_ rows: Int, _ channels: Int) -> Tensor { map(&expandedMemory, rows, channels) }
    func filtered(_ rows: Int, _ channels: Int) -> Tensor { map(&filteredMemory, rows, channels) }

    private func map(_ memory: inout Tensor?, _ rows: Int, _ channels: Int) -> Tensor {
        let known = memory?.reshaped(rows: rows, columns: channels)
        let map = known ?? tensor(rows, channels)
        if known == nil { memory = map }
        return map
    }
}

extension Linear {
    /// A pointwise convolution, `name.weight` `[rows, inputs]`, whose bias must be there: it includes the batch norm after it.
    init(pointwise source: any TensorSource, _ name: String, rows: Int, inputs: Int, packer: WeightPacker) throws {
        _ = try source.tensor(name + ".bias")
        try self.init(source, name, rows: rows, inputs: inputs, packer: packer)
    }
}
