import AdaKernels

/// A norm of rows: RMSNorm (Zhang and Sennrich, 2019), or, with a bias, LayerNorm (Ba et al., 2016). A class, so that a decode, which passes it on at every
/// layer, counts one reference instead of two.
package final class Norm: Sendable {
    let weight: Tensor
    let bias: Tensor?
    let epsilon: Float

    init(weight: Tensor, bias: Tensor? = nil, epsilon: Float) { (self.weight, self.bias, self.epsilon) = (weight, bias, epsilon) }

    /// `out`, `[rows, columns]`, becomes the norm of `x`, which may be the same.
    func callAsFunction(_ out: Tensor, _ x: Tensor, _ workspace: Workspace) {
        let (rows, kernels) = (NormedRows(x, self), workspace.kernels.table)
        workspace.forRows(x.rows) { range, _ in rows.write(kernels, range, into: out.data + range.lowerBound * out.stride, stride: out.stride) }
    }
}

/// Rows and what norms them, as plain numbers and addresses: threads read them without counting references. Valid as long as the tensors.
private struct NormedRows {
    private let x: UnsafePointer<Float>, weight: UnsafePointer<Float>
    private let bias: UnsafePointer<Float>?
    private let stride: Int, columns: Int
    private let epsilon: Float

    init(_ x: Tensor, _ norm: Norm) {
        (self.x, weight, bias) = (UnsafePointer(x.data), UnsafePointer(norm.weight.data), norm.bias.map { UnsafePointer($0.data) })
        (stride, columns, epsilon) = (x.stride, x.columns, norm.epsilon)
    }

    func write(_ kernels: ak_kernels, _ rows: Range<Int>, into out: UnsafeMutablePointer<Float>, stride outStride: Int) {
        let (from, count) = (x + rows.lowerBound * stride, Int32(rows.count))
        if let bias {
            kernels.layer_norm(out, outStride, from, stride, weight, bias, epsilon, count, Int32(columns))
        } else {
            kernels.rms_norm(out, outStride, from, stride, weight, epsilon, count, Int32(columns))
        }
        let padding = outStride - columns
        if padding > 0 { for row in 0 ..< rows.count { (out + row * outStride + columns).update(repeating: 0, count: padding) } }
    }
}

/// Activations `[rows, stride]` that several threads make, part by part: addresses in an ``ActivationBuffer``, valid until its next use.
package struct ActivationWriter: BitwiseCopyable {
    let type: ak_type
    let rows, stride: Int
    fileprivate let values: UnsafeMutableRawPointer
    fileprivate let scales: UnsafeMutablePointer<Float>
    fileprivate let sums: UnsafeMutablePointer<Int32>

    /// The activations, once all of them that are read have been written.
    var activations: ak_activations {
        let hasScales = type.scalesPerRow(stride: stride) > 0
        return ak_activations(
            type: type, tokens: Int32(rows), blocks: Int32(stride / Int(AK_BLOCK)), stride: stride, data: UnsafeRawPointer(values),
            scales: hasScales ? UnsafePointer(scales) : nil, sums: type == AK_Q8_0 ? UnsafePointer(sums) : nil)
    }

    /// The first value, of BF16.
    var bf16: UnsafeMutablePointer<UInt16> { values.assumingMemoryBound(to: UInt16.self) }

    /// Sets some columns of all rows to zero, of types without scales.
    func clear(columns: Range<Int>) {
        if columns.isEmpty { return }
        let size = type.activationBytes
        for row in 0 ..< rows {
            (values + (row * stride + columns.lowerBound) * size).initializeMemory(as: UInt8.self, repeating: 0, count: columns.count * size)
        }
    }

    /// Writes some columns of some rows.
    /// - Parameters:
    ///   - columns: of types with a scale for each block or group, whole blocks or groups.
    ///   - from: the first of these values; the next row's lies `fromStride` values on.
    func write(_ kernels: ak_kernels, rows: Range<Int>, columns: Range<Int>, from: UnsafePointer<Float>, stride fromStride: Int) {
        let place = rows.lowerBound * stride + columns.lowerBound
        let scale = rows.lowerBound * type.scalesPerRow(stride: stride) + columns.lowerBound / type.columnsTogether
        let (count, blocks) = (Int32(rows.count), Int32(columns.count / Int(AK_BLOCK)))
        switch type {
        case AK_Q8_0:
            kernels.quantize_q8(
                values.assumingMemoryBound(to: Int8.self) + place, stride, scales + scale, sums + scale, from, fromStride, count, blocks)
        case AK_I8: kernels.quantize_i8(values.assumingMemoryBound(to: Int8.self) + place, stride, scales + scale, from, fromStride, count, blocks)
        case AK_I16: kernels.quantize_i16(values.assumingMemoryBound(to: Int16.self) + place, stride, scales + scale, from, fromStride, count, blocks)
        case AK_BF16: kernels.to_bf16(values.assumingMemoryBound(to: UInt16.self) + place, stride, from, fromStride, count, Int32(columns.count))
        default: break   // float32 is read where it was made
        }
    }
}

extension ak_activations {
    /// The rows of a tensor where they are; valid as long as it.
    fileprivate init(float32 x: Tensor) {
        self.init(
            type: AK_F32, tokens: Int32(x.rows), blocks: Int32(x.stride / Int(AK_BLOCK)), stride: x.stride, data: UnsafeRawPointer(x.data),
            scales: nil, sums: nil)
    }
}

extension ak_type {
    /// Bytes of an activation of this type.
    var activationBytes: Int { self == AK_Q8_0 || self == AK_I8 ? 1 : self == AK_F32 ? 4 : 2 }

    /// Columns of activations of this type that are converted together: those that share a scale.
    var columnsTogether: Int { self == AK_Q8_0 || self == AK_I16 ? Int(AK_BLOCK) : self == AK_I8 ? Int(AK_GROUP) : 1 }

    /// Scales of a row of activations of this type, `stride` values from one row to the next.
    func scalesPerRow(stride: Int) -> Int { columnsTogether == 1 ? 0 : (stride + columnsTogether - 1) / columnsTogether }
}

/// Activations of a batch's rows: chunks' rows first, then single rows, each in the type of its role.
package struct RowActivations: BitwiseCopyable {
    /// Rows from 0 on, in the chunks' type.
    var chunk = ak_activations()
    /// Rows from `split` on, in the single rows' type.
    var single = ak_activations()
    /// The first single row.
    var split = 0

    /// Of rows that all have one role.
    init(_ activations: ak_activations, role: RowRole) {
        if role == .chunk { (chunk, split) = (activations, Int(activations.tokens)) } else { single = activations }
    }

    init(chunk: ak_activations, single: ak_activations, split: Int) { (self.chunk, self.single, self.split) = (chunk, single, split) }

    /// Some rows of one role.
    @inline(__always)
    func rows(from first: Int, count: Int) -> ak_activations {
        first < split || single.tokens == 0 ? chunk.rows(from: first, count: count) : single.rows(from: first - split, count: count)
    }
}

/// Which rows of a tensor become activations: those of chunks first.
package struct RowsByRole: Equatable {
    /// Chunks' rows that are wanted.
    var chunk: Range<Int>
    /// The first single row, and the end of all.
    var single: Range<Int>

    /// All rows, of one role.
    package init(_ count: Int, _ role: RowRole) {
        chunk = 0 ..< (role == .chunk ? count : 0)
        single = chunk.upperBound ..< count
    }

    init(chunk: Range<Int>, single: Range<Int>) { (self.chunk, self.single) = (chunk, single) }

    var split: Int { single.lowerBound }
    var count: Int { chunk.count + single.count }
}

/// Activations in the types that weights ask for. Memory grows to the largest use and is kept.
package final class ActivationBuffer {
    private var values = AlignedMemory(byteCount: 0)
    private var scales = AlignedMemory(byteCount: 0)
    private var sums = AlignedMemory(byteCount: 0)

    /// Memory for activations of `type`, whose values are not defined; valid until the next use of this buffer.
    func reserve(_ type: ak_type, rows: Int, stride: Int) -> ActivationWriter {
        let count = rows * stride
        let scaleCount = rows * type.scalesPerRow(stride: stride)
        grow(&values, count * type.activationBytes)
        grow(&scales, scaleCount * MemoryLayout<Float>.stride)
        grow(&sums, type == AK_Q8_0 ? scaleCount * MemoryLayout<Int32>.stride : 0)
        return ActivationWriter(
            type: type, rows: rows, stride: stride, values: values.address, scales: scales.address.assumingMemoryBound(to: Float.self),
            sums: sums.address.assumingMemoryBound(to: Int32.self))
    }

    private func grow(_ memory: inout AlignedMemory, _ bytes: Int) {
        if memory.byteCount < bytes { memory = AlignedMemory(byteCount: bytes) }
    }
}

/// One ``ActivationBuffer`` for each role.
package final class ActivationBuffers {
    package let chunk = ActivationBuffer()
    let single = ActivationBuffer()

    func of(_ role: RowRole) -> ActivationBuffer { role == .chunk ? chunk : single }
}

extension Workspace {
    /// The rows of `x`, or a norm of them, as activations for `weight`; valid until the next use of `buffers`.
    package func convert(_ x: Tensor, norm: Norm? = nil, for weight: WeightMatrix, _ rows: RowsByRole, _ buffers: ActivationBuffers) -> RowActivations {
        let chunk = rows.chunk.isEmpty
            ? ak_activations() : convert(x, norm: norm, rows.chunk, to: kernels.activationType(weight, .chunk), buffers.chunk)
        let single = rows.single.isEmpty
            ? ak_activations()
            : convert(x.rows(rows.single), norm: norm, 0 ..< rows.single.count, to: kernels.activationType(weight, .single), buffers.single)
        return RowActivations(chunk: chunk, single: single, split: rows.split)
    }

    /// Some rows of `x`, or a norm of them, as `type`, at the same places; valid until the buffer's next use. A norm of a few rows is converted while it
    /// is in its worker's cache.
    package func convert(_ x: Tensor, norm: Norm? = nil, _ rows: Range<Int>, to type: ak_type, _ buffer: ActivationBuffer) -> ak_activations {
        if type == AK_F32, norm == nil { return ak_activations(float32: x) }
        let (made, kernels, stride, data) = (buffer.reserve(type, rows: rows.upperBound, stride: x.stride), self.kernels.table, x.stride, x.data)
        if let norm {
            let normed = NormedRows(x, norm)
            let memory = pieceMemory(type == AK_F32 ? 0 : min(rows.count, Workspace.rowsAtOnce) * stride)
            if rows.count <= rowsPerItem(rows.count, stride: stride) {
                made.write(kernels, normed, rows, piece: memory.address)
            } else {
                forRows(rows.count, stride: stride) { part, worker in
                    made.write(
                        kernels, normed, rows.lowerBound + part.lowerBound ..< rows.lowerBound + part.upperBound,
                        piece: memory.address + worker * memory.count)
                }
            }
        } else if rows.count <= rowsPerItem(rows.count, stride: stride) {
            made.write(kernels, rows: rows, columns: 0 ..< stride, from: data + rows.lowerBound * stride, stride: stride)
        } else {
            forRows(rows.count, stride: stride) { part, _ in
                let part = rows.lowerBound + part.lowerBound ..< rows.lowerBound + part.upperBound
                made.write(kernels, rows: part, columns: 0 ..< stride, from: data + part.lowerBound * stride, stride: stride)
            }
        }
        withExtendedLifetime((x, norm)) {}
        return made.activations
    }
}

extension ActivationWriter {
    /// Writes normed rows.
    /// - Parameter piece: memory for as many rows, where they are not float32.
    fileprivate func write(_ kernels: ak_kernels, _ normed: NormedRows, _ rows: Range<Int>, piece: UnsafeMutablePointer<Float>) {
        if type == AK_F32 {
            return normed.write(kernels, rows, into: values.assumingMemoryBound(to: Float.self) + rows.lowerBound * stride, stride: stride)
        }
        normed.write(kernels, rows, into: piece, stride: stride)
        write(kernels, rows: rows, columns: 0 ..< stride, from: piece, stride: stride)
    }
}
