import AdaKernels
import Synchronization

/// EfficientNet-Lite (Tan and Le, 2019) of any size as a vision tower: its last map and finer ones as image features.
///
/// A row of features belongs to one cell of the last map, row by row. It holds, for each of the configuration's feature maps in turn, the
/// map's cells under this cell, row by row: all of one cell's channels, then the next one's. Where a side does not divide evenly,
/// the cells beyond the map's edge are zero.
///
/// Weights have batch norm folded in, as ``EfficientNetWeights`` writes them: `vision_model.stem`, `.blocks.N.expand`, `.depthwise`,
/// `.project`, `.head`, each with `weight` and `bias`.
final class EfficientNetLite: VisionNetwork {
    let configuration: EfficientNetConfiguration
    private let stem: Linear
    private let blocks: [MBConvBlock]
    private let head: Linear?
    /// Maps that are reused from image to image; an encoding takes them while it runs.
    private let spare = Mutex<MapScratch?>(nil)

    /// - Throws: ``CheckpointError``, `CancellationError`
    init(
        _ source: any TensorSource, _ configuration: EfficientNetConfiguration, packer: WeightPacker, cancellation: Cancellation,
        onLayer: (Int) -> Void
    ) throws {
        let (c, name) = (configuration, TensorNames.visionPrefix)
        self.configuration = c
        stem = try Linear(pointwise: source, name + "stem", rows: c.stemChannels, inputs: 3 * 3 * 3, packer: packer)
        blocks = try c.blocks.enumerated().map { index, shape in
            try cancellation.check()
            defer { onLayer(index + 1) }
            return try MBConvBlock(source, "\(name)blocks.\(index)", shape, packer: packer)
        }
        let channels = c.blocks.last?.outputs ?? c.stemChannels
        head = c.featureMaps.contains(.head)
            ? try Linear(pointwise: source, name + "head", rows: c.headChannels, inputs: channels, packer: packer) : nil
    }

    func pass(_ pixels: [Float], grid: PatchGrid?, _ workspace: Workspace) throws -> VisionPass {
        let c = configuration
        let scratch = spare.withLock { spare in
            defer { spare = nil }
            return spare
        } ?? MapScratch()
        let features = Tensor(rows: c.grid * c.grid, columns: c.featureWidth)
        if scratch.outputs.isEmpty {
            scratch.outputs = [scratch.tensor(c.stemSide * c.stemSide, c.stemChannels)]
                + blocks.map { scratch.tensor($0.shape.isResidual ? 0 : $0.shape.outputSide * $0.shape.outputSide, $0.shape.outputs) }
        }
        if c.featureMaps.contains(.color8) { store(colours(pixels), .color8, in: features) }
        // A block that overwrites its input belongs to the same map, so the last block of a stride is the one to read.
        let wanted = c.featureMaps.map { (map: $0, block: c.blockIndex(of: $0)) }
        let stem = FeatureGrid(cells: scratch.outputs[0], side: c.stemSide)
        // Result of the phases so far: a block's input, and its content.
        var map = stem, middle = stem
        return VisionPass(
            count: 2 + 3 * blocks.count + (head == nil ? 0 : 1), layers: blocks.count,
            make: { [self] index in
                switch index {
                case 0: return VisionPass.Phase(rows: c.stemSide, leastRows: 4) { self.patches(pixels, $0, scratch, workspace) }
                case 1:
                    let rows = scratch.patches ?? stem.cells
                    return mapPhase(rows, Product(linear: self.stem, output: stem.cells, relu6: true), workspace)
                case 2 + 3 * blocks.count:
                    guard let head else { return nil }
                    let last = FeatureGrid(cells: scratch.expanded(map.cells.rows, c.headChannels), side: map.side)
                    return mapPhase(map.cells, Product(linear: head, output: last.cells, relu6: true), workspace) { self.store(last, .head, in: features) }
                default: break
                }
                let (number, part) = ((index - 2) / 3, (index - 2) % 3), block = blocks[number]
                switch part {
                case 0:
                    middle = map
                    guard let expand = block.expand else { return VisionPass.Phase(rows: 1, layer: number) { _ in } }
                    middle = FeatureGrid(cells: scratch.expanded(map.cells.rows, block.shape.expanded), side: map.side)
                    return mapPhase(map.cells, Product(linear: expand, output: middle.cells, relu6: true), workspace, layer: number)
                case 1:
                    let side = block.shape.outputSide, input = middle
                    middle = FeatureGrid(cells: scratch.filtered(side * side, block.shape.expanded), side: side)
                    return VisionPass.Phase(rows: side, leastRows: 2) { [output = middle.cells] in block.depthwise(input, output: output, rows: $0, workspace) }
                default:
                    let isResidual = block.shape.isResidual
                    map = FeatureGrid(cells: isResidual ? map.cells : scratch.outputs[number + 1], side: middle.side)
                    let product = Product(linear: block.project, output: map.cells, accumulate: isResidual)
                    return mapPhase(middle.cells, product, workspace) { [map] in
                        for item in wanted where item.block == number { self.store(map, item.map, in: features) }
                    }
                }
            },
            finish: { [self] in
                spare.withLock { $0 = scratch }
                return VisionOutput(features: features)
            })
    }

    /// A pointwise convolution as a phase.
    /// - Parameter end: called after the last row.
    private func mapPhase(
        _ x: Tensor, _ product: Product, _ workspace: Workspace, layer: Int? = nil, end: @escaping () -> Void = {}
    ) -> VisionPass.Phase {
        VisionPass.Phase(rows: x.rows, leastRows: 48, layer: layer) { rows in
            workspace.multiplyMap(x.rows(rows), product.rows(rows))
            if rows.upperBound == x.rows { end() }
        }
    }

    /// Some rows of the first convolution's input, 3 x 3 with stride 2: patches of 27 values, in the order of its weights.
    private func patches(_ pixels: [Float], _ lines: Range<Int>, _ scratch: MapScratch, _ workspace: Workspace) {
        let (size, side) = (configuration.imageSize, configuration.stemSide)
        let before = SamePadding(size: size, kernel: 3, stride: 2).before
        let rows = scratch.patches ?? scratch.tensor(side * side, 27)
        scratch.patches = rows
        pixels.withUnsafeBufferPointer { pixels in
            guard let source = pixels.baseAddress, pixels.count >= 3 * size * size else { return }
            let address = SendableValues(source)
            workspace.pool.run(lines.count) { item, _ in
                let y = lines.lowerBound + item
                for x in 0 ..< side {
                    let out = rows.data + (y * side + x) * rows.stride
                    let (top, left) = (2 * y - before, 2 * x - before)
                    for line in 0 ..< 9 {
                        let row = top + line % 3
                        let values = address.pointer + (line / 3 * size + row) * size
                        for column in 0 ..< 3 {
                            let isInside = row >= 0 && row < size && left + column >= 0 && left + column < size
                            out[3 * line + column] = isInside ? values[left + column] : 0
                        }
                    }
                }
            }
        }
    }

    /// The mean of each 8 x 8 pixels, fewer at the edges: `[side * side, 3]`.
    private func colours(_ pixels: [Float]) -> FeatureGrid {
        let (size, step) = (configuration.imageSize, 8)
        let side = (size + step - 1) / step
        let means = Tensor(rows: side * side, columns: 3)
        guard pixels.count >= 3 * size * size else { return FeatureGrid(cells: means, side: side) }
        for cell in 0 ..< side * side {
            let rows = cell / side * step ..< min(size, (cell / side + 1) * step)
            let columns = cell % side * step ..< min(size, (cell % side + 1) * step)
            for channel in 0 ..< 3 {
                var sum: Float = 0
                for y in rows { for x in columns { sum += pixels[(channel * size + y) * size + x] } }
                means.data[cell * means.stride + channel] = sum / Float(rows.count * columns.count)
            }
        }
        return FeatureGrid(cells: means, side: side)
    }

    /// Copies a map into its columns of the features: space to depth.
    private func store(_ map: FeatureGrid, _ name: EfficientNetConfiguration.FeatureMap, in features: Tensor) {
        let c = configuration
        let column = c.featureMaps.prefix { $0 != name }.reduce(0) { $0 + c.width(of: $1) }
        let (factor, channels) = (name.stride.map { max(1, c.totalStride / $0) } ?? 1, map.cells.columns)
        for row in 0 ..< features.rows {
            let (top, left) = (row / c.grid * factor, row % c.grid * factor)
            for cell in 0 ..< factor * factor {
                let (y, x) = (top + cell / factor, left + cell % factor)
                guard y < map.side, x < map.side else { continue }
                (features.data + row * features.stride + column + cell * channels)
                    .update(from: map.cells.data + (y * map.side + x) * map.cells.stride, count: channels)
            }
        }
    }
}

/// Lets a pointer to values cross into the pool's closures; the pool returns before its memory can go away.
private struct SendableValues: @unchecked Sendable {
    let pointer: UnsafePointer<Float>
    init(_ pointer: UnsafePointer<Float>) { self.pointer = pointer }
}
