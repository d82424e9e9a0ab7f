/// One input of the tower on its way to features: tower, token selection, projector. It can stop between any two phases and rows, so that answers that grow
/// meanwhile get their tokens.
final class TileEncoding {
    /// `[patches, hidden of the tower]`, and the decoder's input, `[tokens, hidden]`.
    struct Output {
        let vision: Tensor
        let features: Tensor
    }

    private let part: ModelParts.VisionPart
    private let workspace: Workspace
    private let grid: PatchGrid?
    private let pass: VisionPass
    private var tower: VisionOutput?
    /// The projector's input and its output so far.
    private var selected: Tensor?, projected: Tensor?
    private var projectedRows = 0
    private(set) var output: Output?

    /// - Parameter pixels: `[3, S, S]` normalized values.
    init(_ pixels: [Float], grid: PatchGrid? = nil, _ part: ModelParts.VisionPart, _ workspace: Workspace) throws {
        (self.part, self.workspace, self.grid) = (part, workspace, grid)
        pass = try part.tower.pass(pixels, grid: grid, workspace)
    }

    /// The next phase, its remaining rows, and the fewest rows worth a call; `nil` once the image is encoded.
    func next() throws -> (phase: Int, rows: Int, least: Int)? {
        if output != nil { return nil }
        if let left = try pass.next() { return (pass.index, left.rows, left.least) }
        guard let selected else { return (pass.count, 1, 1) }
        return (pass.count + 1, selected.rows - projectedRows, min(16, selected.rows - projectedRows))
    }

    /// Computes some rows of the next phase.
    /// - Parameters:
    ///   - progress: called with the tower's layers that are done and all of them.
    ///   - selecting: called with the patches that token selection is done with and all of them.
    /// - Throws: `CancellationError`
    func run(rows: Int, _ cancellation: Cancellation, progress: (Int, Int) -> Void, selecting: (Int, Int) -> Void) throws {
        guard let next = try next() else { return }
        if next.phase < pass.count { return try pass.run(rows: rows, cancellation: cancellation, progress: progress) }
        guard let selected else { return try select(cancellation, selecting) }
        let range = projectedRows ..< projectedRows + min(max(rows, next.least), next.rows)
        let made = part.projector(selected.rows(range), workspace)
        let isWhole = range.count == selected.rows, all = isWhole ? made : projected ?? Tensor(rows: selected.rows, columns: made.columns)
        if !isWhole { all.copyRows(from: made, to: range.lowerBound) }
        (projected, projectedRows) = (all, range.upperBound)
        if projectedRows == selected.rows, let tower { output = Output(vision: tower.features, features: all) }
    }

    private func select(_ cancellation: Cancellation, _ progress: (Int, Int) -> Void) throws {
        let output = try pass.runToEnd(cancellation: cancellation, progress: { _, _ in })
        var features = output.rows(withClassToken: part.keepsClassToken)
        if part.selection != .none, let query = output.lastQuery, let key = output.lastKey {
            let attention = PruMerge.classAttention(query: query, key: key)
            features = try PruMerge.merge(
                features: output.features, key: key, attention: attention, plus: part.selection == .pruMergePlus, workspace.pool, cancellation,
                progress: progress
            ).merged
        }
        (tower, selected) = (output, part.projector.input(features, grid: grid))
    }
}

/// One image of a request on its way to features, tile after tile.
final class ImageEncoding {
    private let image: EngineImage
    private let part: ModelParts.VisionPart
    private let workspace: Workspace
    private let pixels: [Float]
    private var features: [Tensor] = []
    /// The tile that is under way.
    private var current: TileEncoding?
    /// Called with the tower's input and output for a tile.
    private let onTile: ((_ pixels: [Float], _ output: TileEncoding.Output) -> Void)?
    /// `[rows, hidden]`, once the image is encoded.
    private(set) var output: Tensor?

    /// Tiles that are encoded.
    var tile: Int { features.count }

    init(
        _ image: EngineImage, _ part: ModelParts.VisionPart, _ workspace: Workspace,
        onTile: ((_ pixels: [Float], _ output: TileEncoding.Output) -> Void)? = nil
    ) throws {
        (self.image, self.part, self.workspace, self.onTile) = (image, part, workspace, onTile)
        pixels = try image.pixels()
    }

    /// The next phase, as ``TileEncoding/next()``; `nil` once the image is encoded.
    func next() throws -> (phase: Int, rows: Int, least: Int)? {
        if output != nil { return nil }
        if current == nil { current = try TileEncoding(input(tile), grid: image.grids.isEmpty ? nil : image.grids[tile], part, workspace) }
        return try current?.next()
    }

    /// Computes some rows of the next phase.
    /// - Parameters:
    ///   - progress: called with the tower's layers that are done and all of them, of all tiles.
    ///   - selecting: called with the patches that token selection is done with and all of them, of one tile.
    /// - Throws: `CancellationError`
    func run(rows: Int, _ cancellation: Cancellation, progress: (Int, Int) -> Void, selecting: (Int, Int) -> Void) throws {
        guard try next() != nil, let current else { return }
        try current.run(
            rows: rows, cancellation, progress: { progress(tile * $1 + $0, image.tiles * $1) }, selecting: selecting)
        guard let made = current.output else { return }
        // A copy of the tile, which only traces read.
        onTile?(input(tile), made)
        features.append(made.features)
        self.current = nil
        guard tile == image.tiles else { return }
        if let arrangement = image.arrangement, let newline = part.newline {
            output = arrangement(features, newline: newline)
        } else {
            output = features.count == 1 ? features[0] : Tensor(stacking: features)
        }
    }

    /// The tower's input of a tile.
    private func input(_ tile: Int) -> [Float] {
        if image.tiles > 1, !image.grids.isEmpty {
            let patches = image.grids.map { $0.rows * $0.columns }, size = pixels.count / max(patches.reduce(0, +), 1)
            let first = patches[..<tile].reduce(0, +) * size
            return Array(pixels[first ..< first + patches[tile] * size])
        }
        let size = pixels.count / image.tiles
        return image.tiles == 1 ? pixels : Array(pixels[tile * size ..< (tile + 1) * size])
    }
}

extension Engine {
    /// The features of one image, `[rows, hidden]`, without stopping.
    func encode(_ image: EngineImage, cancellation: Cancellation) throws -> Tensor {
        guard let vision = parts.vision else { throw GenerationError.noVision(model: parts.name) }
        workspace.pool.enter()
        defer { workspace.pool.leave() }
        let encoding = try ImageEncoding(image, vision, workspace)
        while let next = try encoding.next() { try encoding.run(rows: next.rows, cancellation, progress: { _, _ in }, selecting: { _, _ in }) }
        guard let output = encoding.output else { throw CancellationError() }
        return output
    }

    /// Takes a task's images further: takes those whose features are known, and encodes of the first that is not.
    /// - Parameter nanoseconds: time limit; `nil` encodes the whole image.
    func encode(_ task: GenerationTask, within nanoseconds: Double? = nil) throws {
        takeKnownImages(task)
        let index = task.features.count, images = task.request.images
        if index < images.count, let vision = parts.vision {
            workspace.pool.enter()
            defer { workspace.pool.leave() }
            let encoding = try task.encoding ?? beginImage(task, images[index], vision)
            task.encoding = encoding
            try run(encoding, task, within: nanoseconds)
            guard let output = encoding.output else { return }
            task.encoding = nil
            task.result.encodedImages += 1
            task.result.encodedTiles += images[index].tiles
            if task.request.reuses { featureCache.insert(images[index].key, output) }
            task.features.append(output)
            takeKnownImages(task)
        }
        if task.features.count == images.count { try beginPrompt(task) }
    }

    private func beginImage(_ task: GenerationTask, _ image: EngineImage, _ vision: ModelParts.VisionPart) throws -> ImageEncoding {
        guard let trace = task.trace else { return try ImageEncoding(image, vision, workspace) }
        return try ImageEncoding(image, vision, workspace) { pixels, output in
            trace.recordPixels("pixel_values", pixels)
            trace.recordFeatures("vision_features", output.vision)
            trace.recordFeatures("image_features", output.features)
        }
    }

    private func run(_ encoding: ImageEncoding, _ task: GenerationTask, within nanoseconds: Double?) throws {
        let start = ContinuousClock.now
        defer { task.encodeNanoseconds += (ContinuousClock.now - start).nanoseconds }
        let (index, count) = (task.features.count + 1, task.request.images.count)
        var spent = 0.0, isFirst = true
        while let next = try encoding.next() {
            try task.cancellation.check()
            var rows = next.rows
            if let nanoseconds {
                rows = pacing.imageRows(phase: next.phase, left: next.rows, least: next.least, within: nanoseconds - spent)
                // Every step takes an image further.
                if rows == 0, !isFirst { return }
                rows = max(rows, next.least)
            }
            try encoding.run(
                rows: rows, task.cancellation, progress: { task.report(.encoding(image: index, of: count, layer: $0, layers: $1)) },
                selecting: { task.report(.selecting(image: index, of: count, done: $0, total: $1)) })
            let now = (ContinuousClock.now - start).nanoseconds
            pacing.note(phase: next.phase, rows: rows, measured: now - spent)
            (spent, isFirst) = (now, false)
        }
    }

    /// Takes over features that earlier requests, or other images of this one, left. A trace shows every step, so it takes none.
    private func takeKnownImages(_ task: GenerationTask) {
        while task.trace == nil, task.request.reuses, task.features.count < task.request.images.count,
            let known = featureCache.find(task.request.images[task.features.count].key)
        {
            task.features.append(known)
            task.encoding = nil
        }
    }
}
