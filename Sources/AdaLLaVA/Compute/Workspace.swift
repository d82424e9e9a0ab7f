import AdaKernels

/// Resources of one computation besides the weights: threads, scratch memory, and the division of products into work items. One for each computation
/// that runs at the same time; any number of models can use it one after the other.
///
/// Not `Sendable`: its owner computes with it from one thread at a time.
package final class Workspace {
    package let kernels: KernelSet
    package let pool: ThreadPool
    private var scratch: [AlignedMemory]
    private var pieceValues = AlignedMemory(byteCount: 0)
    /// Address of each worker's scratch memory, until the next ``reserveScratch(_:)``. A plain address, not an array: threads that read an array
    /// count references to it, and wait for each other's counts.
    let scratchAddresses: UnsafeMutablePointer<UnsafeMutableRawPointer>
    /// Memory of each worker for rows that a product gathers, until the next ``reserveGathered(_:)``.
    let gatheredAddresses: UnsafeMutablePointer<UnsafeMutableRawPointer>
    private var gathered: [AlignedMemory]
    private var identityList = IndexList([])
    var workItemTable = WorkItemTable()
    /// Activations of a product's inputs, and of a feed-forward network's middle.
    package let inputs = ActivationBuffers()
    let middle = ActivationBuffers()
    let attention = AttentionScratch()
    private var tensors: [TensorKey: Tensor] = [:]
    /// Called when a tensor of ``tensor(_:rows:columns:)`` moved, so that prepared forms with its address are dropped.
    private(set) var generation = 0

    init(kernels: KernelSet, pool: ThreadPool) {
        (self.kernels, self.pool) = (kernels, pool)
        scratch = (0 ..< pool.threads).map { _ in AlignedMemory(byteCount: 1 << 16) }
        scratchAddresses = .allocate(capacity: scratch.count)
        for (worker, memory) in scratch.enumerated() { (scratchAddresses + worker).initialize(to: memory.address) }
        gathered = (0 ..< pool.threads).map { _ in AlignedMemory(byteCount: 0) }
        gatheredAddresses = .allocate(capacity: gathered.count)
        for (worker, memory) in gathered.enumerated() { (gatheredAddresses + worker).initialize(to: memory.address) }
    }

    /// - Throws: ``ComputeError``
    package convenience init(threads: Int? = nil, precision: Precision = .automatic, kernels name: String? = nil) throws {
        self.init(kernels: try KernelSet(named: name, precision: precision), pool: try ThreadPool(threads: threads))
    }

    deinit {
        scratchAddresses.deallocate()
        gatheredAddresses.deallocate()
    }

    /// Gives every worker at least `bytes` of scratch. Called between runs only.
    func reserveScratch(_ bytes: Int) {
        for worker in scratch.indices where scratch[worker].byteCount < bytes {
            scratch[worker] = AlignedMemory(byteCount: bytes)
            scratchAddresses[worker] = scratch[worker].address
        }
    }

    /// Gives every worker at least `bytes` for gathered rows. Called between runs only.
    func reserveGathered(_ bytes: Int) {
        for worker in gathered.indices where gathered[worker].byteCount < bytes {
            gathered[worker] = AlignedMemory(byteCount: bytes)
            gatheredAddresses[worker] = gathered[worker].address
        }
    }

    /// Memory for `count` values of each worker's part of a tensor that is used up by the same worker; valid until the next call.
    func pieceMemory(_ count: Int) -> (address: UnsafeMutablePointer<Float>, count: Int) {
        let padded = (count + 15) / 16 * 16, bytes = padded * pool.threads * MemoryLayout<Float>.stride
        if pieceValues.byteCount < bytes { pieceValues = AlignedMemory(byteCount: bytes) }
        return (pieceValues.address.assumingMemoryBound(to: Float.self), padded)
    }

    /// The list 0, 1, 2 … of all panels, at least `count` long.
    func identity(_ count: Int) -> IndexList {
        if identityList.count < count { identityList = IndexList((0 ..< Int32(max(count, 1024))).map { $0 }) }
        return identityList
    }

    /// The scratch tensors that computations share by name.
    enum ScratchTensor: Hashable {
        case rows, gathered, normed, query, key, value, attended, projected, gate, up, outputRows, logits
    }

    private struct TensorKey: Hashable {
        let name: ScratchTensor
        let columns: Int
    }

    /// The first `rows` rows of a scratch tensor, whose values are undefined except the padding, which is zero. It keeps its address until a
    /// larger one is requested, which changes ``generation``.
    func tensor(_ name: ScratchTensor, rows: Int, columns: Int) -> Tensor {
        let key = TensorKey(name: name, columns: columns)
        if let known = tensors[key], known.rows >= rows { return known.rows(0 ..< rows) }
        if tensors[key] != nil { generation += 1 }
        let made = Tensor(rows: max(rows, 1), columns: columns)
        tensors[key] = made
        return made.rows(0 ..< rows)
    }

    /// Rows that a thread takes at once.
    static let rowsAtOnce = 16

    /// Values from which even a few rows run on the pool: a run costs about as much as converting half of them.
    private static let valuesWorthSharing = 1 << 13

    /// Rows that a thread takes at once of `rows` rows of `stride` values.
    func rowsPerItem(_ rows: Int, stride: Int) -> Int {
        if rows > Workspace.rowsAtOnce { return Workspace.rowsAtOnce }
        return rows >= 8 && rows * stride >= Workspace.valuesWorthSharing ? (rows + pool.threads - 1) / pool.threads : rows
    }

    /// Calls `body` with ranges that cover `0 ..< rows` and the worker that runs it; on the pool if there are enough rows to be worth it.
    package func forRows(_ rows: Int, stride: Int = 0, _ body: (_ rows: Range<Int>, _ worker: Int) -> Void) {
        let step = rowsPerItem(rows, stride: stride)
        if rows <= step { return body(0 ..< rows, 0) }
        pool.run((rows + step - 1) / step) { item, worker in body(item * step ..< min(rows, (item + 1) * step), worker) }
    }

    /// Announces the weights that the run after the next one reads, so that threads prefetch them while they wait for each other. Single rows only,
    /// because chunks are bound by arithmetic.
    func prefetch(_ memory: Prefetches) { pool.expect(memory) }

    /// Weights that a product reads first, to prefetch: adjacent panels, divided among the threads as their shares are. Waiting threads have no time
    /// for more.
    /// - Parameters:
    ///   - panels: of outputs; `nil` reads all.
    ///   - blocks: of inputs; `nil` reads all.
    func prefetched(_ weight: WeightMatrix, panels: IndexList? = nil, blocks: IndexList? = nil) -> ak_prefetch_ranges {
        let matrix = weight.matrix
        let bytes = matrix.panelBytes
        // With many columns off, most of a prefetch would not be read.
        if let blocks, blocks.count * 4 < Int(matrix.blocks) * 3 { return ak_prefetch_ranges() }
        let (start, run) = (panels?.firstRun).map { ($0.lowerBound, $0.count) } ?? (0, Int(matrix.panels))
        return ak_prefetch_ranges(base: matrix.data.map { $0 + start * bytes }, stride: bytes, bytes: bytes, count: Int32(run))
    }
}
