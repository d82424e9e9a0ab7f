import AdaKernels
import Foundation

/// A float32 matrix of activations, `[rows, columns]`, row-major.
///
/// Rows are padded to whole blocks of 32 values so that kernels need no tails; the padding stays zero. A tensor is a handle:
/// copies share the values.
package struct Tensor: @unchecked Sendable {
    /// Rows, such as positions.
    package let rows: Int
    /// Values of a row, padding left out.
    package let columns: Int
    /// Values from one row to the next: `columns` rounded up to a multiple of 32.
    package let stride: Int
    let memory: AlignedMemory
    package let data: UnsafeMutablePointer<Float>

    /// A tensor of zeros.
    package init(rows: Int, columns: Int) { self.init(rows: rows, columns: columns, arena: nil) }

    /// A tensor of zeros that stays as long as the computation that uses it.
    /// - Parameter arena: where its memory comes from.
    init(rows: Int, columns: Int, arena: HugePageArena?) {
        (self.rows, self.columns) = (rows, columns)
        stride = Tensor.padded(columns)
        let bytes = rows * stride * MemoryLayout<Float>.stride
        memory = arena?.scratch(byteCount: bytes) ?? AlignedMemory(byteCount: bytes)
        data = memory.address.bindMemory(to: Float.self, capacity: max(rows * stride, 1))
    }

    /// A tensor of zeros whose size depends on input.
    /// - Parameter what: its content, for the error.
    /// - Throws: ``ComputeError/noMemory(what:bytes:)`` if the system has not enough memory.
    package init(checked rows: Int, columns: Int, what: String) throws {
        (self.rows, self.columns) = (rows, columns)
        stride = Tensor.padded(columns)
        let (bytes, overflows) = rows.multipliedReportingOverflow(by: stride * MemoryLayout<Float>.stride)
        guard !overflows, let memory = AlignedMemory(checked: bytes) else { throw ComputeError.noMemory(what: what, bytes: overflows ? Int.max : bytes) }
        self.memory = memory
        data = memory.address.bindMemory(to: Float.self, capacity: max(rows * stride, 1))
    }

    /// One row, `[1, values]`.
    package init(_ values: [Float]) {
        self.init(rows: 1, columns: values.count)
        for (index, value) in values.enumerated() { data[index] = value }
    }

    private init(of tensor: Tensor, rows range: Range<Int>) {
        (rows, columns, stride, memory) = (range.count, tensor.columns, tensor.stride, tensor.memory)
        data = tensor.data + range.lowerBound * tensor.stride
    }

    /// The same memory as a matrix of other dimensions, whose values are undefined except the padding, which is zero; `nil` if it is too small.
    func reshaped(rows: Int, columns: Int) -> Tensor? {
        guard rows * Tensor.padded(columns) <= memory.byteCount / MemoryLayout<Float>.stride, data == memory.address.assumingMemoryBound(to: Float.self) else {
            return nil
        }
        let tensor = Tensor(memory, rows: rows, columns: columns)
        if tensor.stride > columns { tensor.clear(columns: [columns ..< tensor.stride]) }
        return tensor
    }

    private init(_ memory: AlignedMemory, rows: Int, columns: Int) {
        (self.rows, self.columns, self.memory) = (rows, columns, memory)
        stride = Tensor.padded(columns)
        data = memory.address.assumingMemoryBound(to: Float.self)
    }

    /// A view of some rows; it shares the values.
    /// - Precondition: `range` is within `0 ..< rows`.
    package func rows(_ range: Range<Int>) -> Tensor {
        precondition(range.lowerBound >= 0 && range.upperBound <= rows)
        return Tensor(of: self, rows: range)
    }

    /// The values of one row without padding.
    package func row(_ index: Int) -> [Float] { Array(UnsafeBufferPointer(start: data + index * stride, count: columns)) }

    /// All values without padding, `rows * columns`.
    package var values: [Float] { (0 ..< rows).flatMap(row) }

    package func set(row index: Int, to values: some Sequence<Float>) {
        for (column, value) in values.prefix(columns).enumerated() { data[index * stride + column] = value }
    }

    /// Makes some columns of every row zero.
    func clear(columns: [Range<Int>]) {
        if columns.isEmpty { return }
        for row in 0 ..< rows {
            for range in columns { (data + row * stride + range.lowerBound).update(repeating: 0, count: range.count) }
        }
    }

    package func copyRows(from source: Tensor, to first: Int) {
        for row in 0 ..< source.rows {
            (data + (first + row) * stride).update(from: source.data + row * source.stride, count: min(columns, source.columns))
        }
    }

    /// Rows of equally wide tensors under each other.
    init(stacking parts: [Tensor]) {
        self.init(rows: parts.reduce(0) { $0 + $1.rows }, columns: parts.first?.columns ?? 0)
        var first = 0
        for part in parts {
            copyRows(from: part, to: first)
            first += part.rows
        }
    }

    static func padded(_ columns: Int) -> Int { (columns + Int(AK_BLOCK) - 1) / Int(AK_BLOCK) * Int(AK_BLOCK) }
}

extension Tensor {
    /// Every value becomes `cap * tanh(value / cap)`.
    func softcap(_ cap: Float) {
        for row in 0 ..< rows {
            let values = data + row * stride
            for column in 0 ..< columns { values[column] = cap * tanhf(values[column] / cap) }
        }
    }
}
