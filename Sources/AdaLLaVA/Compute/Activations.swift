import AdaKernels

/// A norm of rows: RMSNorm (Zhang and Sennrich, 2019), or, with a bias, LayerNorm (Ba et al., 2016).
struct Norm {
    let weight: Tensor
    var bias: Tensor?
    let epsilon: Float

    /// `out`, `[rows, columns]`, becomes the norm of `x`, which may be the same.
    func callAsFunction(_ out: Tensor, _ x: Tensor, _ backend: Backend) {
        let (rows, kernels) = (NormedRows(x, self), backend.kernels)
        backend.forRows(x.rows) { range, _ in rows.write(kernels, range, into: out.data + range.lowerBound * out.stride, stride: out.stride) }
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
struct ActivationWriter {
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

/// A row, or its norm, that becomes activations of one type again and again: addresses are found once.
struct RowConversion {
    private let x: Tensor
    private let norm: Norm?
    private let normed: NormedRows?
    private let made: ActivationWriter
    private let room: Tensor

    /// - Parameters:
    ///   - x: one row.
    ///   - buffer: is not used for longer rows as long as this is.
    ///   - room: for a normed row.
    init(_ x: Tensor, _ norm: Norm? = nil, to type: ak_type, _ buffer: ActivationBuffer, room: Tensor) {
        (self.x, self.norm, self.room) = (x, norm, room)
        normed = norm.map { NormedRows(x, $0) }
        made = buffer.reserve(type, rows: 1, stride: x.stride)
    }

    /// The activations of what the row holds now; valid until the buffer's next use.
    func callAsFunction(_ kernels: ak_kernels) -> ak_activations {
        var values = x.data
        if let normed {
            values = made.type == AK_F32 ? made.values.assumingMemoryBound(to: Float.self) : room.data
            normed.write(kernels, 0 ..< 1, into: values, stride: made.stride)
        } else if made.type == AK_F32 {
            return ak_activations(float32: x)
        }
        made.write(kernels, rows: 0 ..< 1, columns: 0 ..< made.stride, from: values, stride: made.stride)
        return made.activations
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

/// Activations in the types that weights ask for. Buffers grow to the largest use and are kept.
final class ActivationBuffer {
    private var values = AlignedMemory(byteCount: 0)
    private var scales = AlignedMemory(byteCount: 0)
    private var sums = AlignedMemory(byteCount: 0)

    /// The rows of `x`, or their norm, as `type`; valid until the next use. The norm of a few rows is converted while it is in its worker's cache.
    func convert(_ x: Tensor, _ norm: Norm? = nil, to type: ak_type, _ backend: Backend) -> ak_activations {
        if type == AK_F32, norm == nil {
            return ak_activations(float32: x)
        }
        let (made, kernels, stride, data) = (reserve(type, rows: x.rows, stride: x.stride), backend.kernels, x.stride, x.data)
        if let norm {
            let normed = NormedRows(x, norm)
            let room = backend.pieceMemory(type == AK_F32 ? 0 : min(x.rows, Backend.rowsAtOnce) * stride)
            backend.forRows(x.rows) { rows, worker in
                if type == AK_F32 {
                    let out = made.values.assumingMemoryBound(to: Float.self) + rows.lowerBound * stride
                    return normed.write(kernels, rows, into: out, stride: stride)
                }
                let part = room.address + worker * room.count
                normed.write(kernels, rows, into: part, stride: stride)
                made.write(kernels, rows: rows, columns: 0 ..< stride, from: part, stride: stride)
            }
        } else {
            backend.forRows(x.rows) { rows, _ in
                made.write(kernels, rows: rows, columns: 0 ..< stride, from: data + rows.lowerBound * stride, stride: stride)
            }
        }
        withExtendedLifetime((x, norm)) {}
        return made.activations
    }

    /// Room for activations of `type`, whose values are not defined; valid until the next use of this buffer.
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

extension Backend {
    /// Rows that a thread takes at once.
    static let rowsAtOnce = 16

    /// Calls `body` with ranges that cover `0 ..< rows` and the worker that runs it; shared out when there are enough rows to be worth it.
    func forRows(_ rows: Int, _ body: (_ rows: Range<Int>, _ worker: Int) -> Void) {
        let step = Backend.rowsAtOnce
        if rows <= step { return body(0 ..< rows, 0) }
        pool.run((rows + step - 1) / step) { item, worker in body(item * step ..< min(rows, (item + 1) * step), worker) }
    }
}
