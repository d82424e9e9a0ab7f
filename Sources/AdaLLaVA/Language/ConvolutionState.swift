import AdaKernels

/// State of a layer's convolution for one sequence: its inputs at the last `taps - 1` slots, and copies of the state after earlier slots, from which
/// a request with the same beginning goes on.
///
/// A sequence of a plan that leaves channels out, or all of them, does not write those: plans only shrink, so channels that were off are never read.
package final class ConvolutionState {
    /// Copies are kept every so many slots, after a chunk's last row, and before it, for the last token of a prompt that is asked again is computed anew.
    package static let interval = 64

    /// Values from one row to the next.
    let stride: Int
    /// Rows that are kept: one less than there are taps.
    let rows: Int
    /// Slots that have passed.
    private(set) var length: Int
    private var current: KeyValuePage?
    private var kept: [Int: KeyValuePage]
    /// Memory for copies that the rows of a step leave.
    private var spare: [KeyValuePage] = []

    /// - Parameters:
    ///   - channels: values of a row.
    ///   - taps: of the convolution.
    package init(channels: Int, taps: Int) {
        (stride, rows, length, kept) = (Tensor.padded(channels), max(taps - 1, 1), 0, [:])
    }

    /// A sequence that goes on after the first `length` slots of another one's, of which the other has a copy; see ``longest(_:)``.
    init(sharing other: ConvolutionState, length: Int) {
        (stride, rows, self.length) = (other.stride, other.rows, length)
        kept = other.kept.filter { $0.key <= length }
    }

    private var pageBytes: Int { rows * stride * MemoryLayout<Float>.stride }

    var byteCount: Int { (kept.count + spare.count + (current == nil ? 0 : 1)) * pageBytes }

    /// Bytes that `positions` positions take.
    static func byteCount(channels: Int, taps: Int, positions: Int) -> Int {
        (positions / interval + 3) * max(taps - 1, 1) * Tensor.padded(channels) * MemoryLayout<Float>.stride
    }

    /// The most slots, at most `length`, after which a sequence can go on.
    func longest(_ length: Int) -> Int { kept.keys.filter { $0 <= length }.max() ?? 0 }

    /// Lets others go on after the last slot too, once no more slots follow.
    func seal() {
        if let current { kept[length] = current }
        current = nil
    }

    /// Makes sure that rows of `slots` can pass.
    /// - Parameter keepsEnd: whether copies after the last slot and before it are kept.
    /// - Throws: ``ComputeError/memory(what:bytes:used:limit:)``
    package func reserve(_ slots: Range<Int>, keepsEnd: Bool, _ pool: PagePool) throws {
        let copies = slots.upperBound / Self.interval - slots.lowerBound / Self.interval + (keepsEnd ? 2 : 0)
        while spare.count < copies { spare.append(try pool.take(pageBytes)) }
        if current != nil { return }
        let page = try pool.take(pageBytes)
        if let start = kept[length] {
            page.address.copyMemory(from: start.address, byteCount: pageBytes)
        } else {
            page.address.initializeMemory(as: UInt8.self, repeating: 0, count: pageBytes)
        }
        current = page
    }

    /// Inputs of a slot before ``length``, of the last ones only; `nil` for others.
    fileprivate func row(_ slot: Int) -> UnsafePointer<Float>? {
        let index = slot - (length - rows)
        guard let current, (0 ..< rows).contains(index) else { return nil }
        return UnsafePointer(current.address.assumingMemoryBound(to: Float.self) + index * stride)
    }

    /// Takes over the inputs of the next `count` slots.
    /// - Parameter keepsEnd: whether copies after the last slot and before it are kept.
    func advance(_ inputs: ConvolutionInputs, count: Int, keepsEnd: Bool) {
        guard let current, count > 0 else { return }
        let end = length + count
        var lengths = Set((length / Self.interval + 1 ..< end / Self.interval + 1).map { $0 * Self.interval })
        if keepsEnd { lengths.formUnion([end - 1, end].filter { $0 > length }) }
        for length in lengths {
            // Without memory for it a copy is left out: only reuse suffers.
            guard let page = spare.popLast() else { break }
            write(inputs, upTo: length, to: page)
            kept[length] = page
        }
        // Ascending: a row is read before it is overwritten.
        write(inputs, upTo: end, to: current)
        length = end
    }

    private func write(_ inputs: ConvolutionInputs, upTo length: Int, to page: KeyValuePage) {
        let out = page.address.assumingMemoryBound(to: Float.self)
        for index in 0 ..< rows {
            let target = out + index * stride
            guard let source = inputs.row(length - rows + index) else {
                target.update(repeating: 0, count: stride)
                continue
            }
            if UnsafePointer(target) != source { target.update(from: source, count: stride) }
        }
    }
}

/// Inputs of a convolution by slot: those of a batch's rows, and before them those that the state keeps.
struct ConvolutionInputs: @unchecked Sendable {
    let state: ConvolutionState
    /// `[rows of the batch, channels]`; row `first` is of slot `slot`.
    let rows: Tensor
    let first: Int
    let slot: Int

    /// Zeros, as `nil`, before the first slot.
    func row(_ slot: Int) -> UnsafePointer<Float>? {
        slot >= self.slot ? UnsafePointer(rows.data + (first + slot - self.slot) * rows.stride) : state.row(slot)
    }
}
