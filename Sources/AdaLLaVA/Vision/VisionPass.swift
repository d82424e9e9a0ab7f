/// One image on its way through a network, as a list of phases that can stop after any row.
///
/// A server runs some rows between two steps of the answers that grow meanwhile, so that an image delays no other answer. Rows of a phase do not depend on
/// each other, and their sums do not depend on how a phase is cut: the output is the same bit for bit.
final class VisionPass {
    /// Rows that can be computed in any parts, once the phases before are complete.
    struct Phase {
        let rows: Int
        /// Fewest rows that are worth a call.
        var leastRows = 1
        /// The layer that begins with this phase, if one does.
        var layer: Int?
        let run: (Range<Int>) throws -> Void
    }

    /// Phases, and layers for progress.
    let count: Int, layers: Int
    private let make: (Int) throws -> Phase?
    private let finish: () -> VisionOutput
    private var phase: Phase?
    /// The phase that is under way, and its next row.
    private(set) var index = 0, row = 0

    /// - Parameters:
    ///   - make: makes a phase once the ones before it are complete; `nil` leaves it out.
    ///   - finish: called after the last phase.
    init(count: Int, layers: Int, make: @escaping (Int) throws -> Phase?, finish: @escaping () -> VisionOutput) {
        (self.count, self.layers, self.make, self.finish) = (count, layers, make, finish)
    }

    var isComplete: Bool { index == count }

    /// Rows of the phase that is under way that are left, and the fewest worth a call; `nil` after the last phase.
    func next() throws -> (rows: Int, least: Int)? {
        while index < count {
            if phase == nil { phase = try make(index) }
            if let phase, row < phase.rows { return (phase.rows - row, min(phase.leastRows, phase.rows - row)) }
            (phase, row) = (nil, 0)
            index += 1
        }
        return nil
    }

    /// Computes some rows of the phase that is under way.
    /// - Parameter progress: called at the beginning of a layer with the layers that are done and all of them.
    /// - Throws: `CancellationError`
    func run(rows: Int, cancellation: Cancellation, progress: (Int, Int) -> Void) throws {
        guard let left = try next(), let phase else { return }
        if row == 0, let layer = phase.layer {
            try cancellation.check()
            progress(layer, layers)
        }
        let end = row + min(max(rows, left.least), left.rows)
        try phase.run(row ..< end)
        row = end
        _ = try next()
    }

    /// Computes everything that is left.
    func runToEnd(cancellation: Cancellation, progress: (Int, Int) -> Void) throws -> VisionOutput {
        while let left = try next() { try run(rows: left.rows, cancellation: cancellation, progress: progress) }
        return finish()
    }
}

extension VisionNetwork {
    /// Encodes one image without stopping.
    /// - Parameters:
    ///   - pixels: `[3, S, S]` normalized values, `S` the tower's image size; rows of patches for towers of any proportions.
    ///   - grid: the patches, for those.
    ///   - progress: called with the layers that are done and all of them.
    /// - Throws: `CancellationError` within one layer.
    func callAsFunction(
        _ pixels: [Float], grid: PatchGrid? = nil, _ workspace: Workspace, cancellation: Cancellation, progress: (Int, Int) -> Void
    ) throws -> VisionOutput {
        try pass(pixels, grid: grid, workspace).runToEnd(cancellation: cancellation, progress: progress)
    }
}
