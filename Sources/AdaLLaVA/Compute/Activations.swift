import AdaKernels

/// A norm of rows: RMSNorm (Zhang and Sennrich, 2019), or, with a bias, LayerNorm (Ba et al., 2016). A class, because decode passes it on at every
/// layer and then counts one reference instead of two.
package final class Norm: Sendable {
    let weight: Tensor
    let bias: Tensor?
    let epsilon: Float

    init(weight: Tensor, bias: Tensor? = nil, epsilon: Float) { (self.weight, self.bias, self.epsilon) = (weight, bias, epsilon) }

    /// `out`, `[rows, columns]`, becomes the norm of `x`, which may be the same.
    func callAsFunction(_ out: Tensor, _ x: Tensor, _ workspace: Workspace) {
        let (source, kernels) = (RowSource(x, norm: self), workspace.kernels.functions)
        workspace.forRows(x.rows) { range, _ in source.writeNorm(kernels, range, into: out.data + range.lowerBound * out.stride, stride: out.stride) }
    }

    /// `x += norm(y)` of some rows; `y` is overwritten.
    func add(_ y: Tensor, to x: Tensor, _ rows: [Range<Int>], _ workspace: Workspace) {
        let (source, kernels) = (RowSource(y, norm: self), workspace.kernels.functions)
        for range in rows {
            workspace.forRows(range.count, stride: x.stride) { part, _ in
                let part = range.lowerBound + part.lowerBound ..< range.lowerBound + part.upperBound
                source.writeNorm(kernels, part, into: y.data + part.lowerBound * y.stride, stride: y.stride)
                for row in part { kernels.pointee.add(x.data + row * x.stride, y.data + row * y.stride, x.columns) }
            }
        }
    }

    /// The norm of each of `count` vectors of as many values as the weight has, one after the other at `x`, in place.
    func callAsFunction(_ x: UnsafeMutablePointer<Float>, count: Int, _ kernels: UnsafePointer<ak_kernels>) {
        kernels.pointee.rms_norm(x, weight.columns, x, weight.columns, weight.data, epsilon, Int32(count), Int32(weight.columns))
    }
}

/// Rows that become activations, and their norm, as plain numbers and addresses: threads read them without counting references. Valid as long as the
/// tensors.
private struct RowSource: BitwiseCopyable {
    private(set) var x: UnsafePointer<Float>
    private(set) var rows: Int
    let stride, columns: Int
    /// `nil`: rows are converted as they are.
    let weight: UnsafePointer<Float>?
    private let bias: UnsafePointer<Float>?
    private let epsilon: Float

    init(_ x: Tensor, norm: Norm?) {
        (self.x, rows, stride, columns) = (UnsafePointer(x.data), x.rows, x.stride, x.columns)
        (weight, bias, epsilon) = (norm.map { UnsafePointer($0.weight.data) }, norm?.bias.map { UnsafePointer($0.data) }, norm?.epsilon ?? 0)
    }

    /// The rows from one on.
    func from(_ row: Int) -> RowSource {
        var part = self
        (part.x, part.rows) = (x + row * stride, rows - row)
        return part
    }

    /// The rows where they are.
    var float32: ak_activations {
        ak_activations(
            type: AK_F32, tokens: Int32(rows), blocks: Int32(stride / Int(AK_BLOCK)), stride: stride, data: UnsafeRawPointer(x), scales: nil, sums: nil)
    }

    /// Writes a norm of some rows.
    func writeNorm(_ kernels: UnsafePointer<ak_kernels>, _ rows: Range<Int>, into out: UnsafeMutablePointer<Float>, stride outStride: Int) {
        let (from, count) = (x + rows.lowerBound * stride, Int32(rows.count))
        if let bias {
            kernels.pointee.layer_norm(out, outStride, from, stride, weight, bias, epsilon, count, Int32(columns))
        } else {
            kernels.pointee.rms_norm(out, outStride, from, stride, weight, epsilon, count, Int32(columns))
        }
        let padding = outStride - columns
        if padding > 0 { for row in 0 ..< rows.count { (out + row * outStride + columns).update(repeating: 0, count: padding) } }
    }
}

/// Activations `[rows, stride]` that several threads write: addresses in an ``ActivationBuffer``, valid until its next use.
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
    ///   - from: the first of these values; the next row begins `fromStride` values later.
    func write(
        _ kernels: UnsafePointer<ak_kernels>, rows: Range<Int>, columns: Range<Int>, from: UnsafePointer<Float>, stride fromStride: Int
    ) {
        let place = rows.lowerBound * stride + columns.lowerBound
        let scale = rows.lowerBound * type.scalesPerRow(stride: stride) + columns.lowerBound / type.columnsTogether
        let (count, blocks) = (Int32(rows.count), Int32(columns.count / Int(AK_BLOCK)))
        switch type {
        case AK_Q8_0:
            kernels.pointee.quantize_q8(
                values.assumingMemoryBound(to: Int8.self) + place, stride, scales + scale, sums + scale, from, fromStride, count, blocks)
        case AK_I8: kernels.pointee.quantize_i8(values.assumingMemoryBound(to: Int8.self) + place, stride, scales + scale, from, fromStride, count, blocks)
        case AK_I16: kernels.pointee.quantize_i16(values.assumingMemoryBound(to: Int16.self) + place, stride, scales + scale, from, fromStride, count, blocks)
        case AK_BF16: kernels.pointee.to_bf16(values.assumingMemoryBound(to: UInt16.self) + place, stride, from, fromStride, count, Int32(columns.count))
        default: break   // float32 is read where it was made
        }
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

/// Activations in the types of the products. Memory grows to the largest use and is kept.
package final class ActivationBuffer {
    private var values = AlignedMemory(byteCount: 0)
    private var scales = AlignedMemory(byteCount: 0)
    private var sums = AlignedMemory(byteCount: 0)

    /// Memory for activations of `type`, whose values are undefined; valid until the next use of this buffer.
    func reserve(_ type: ak_type, rows: Int, stride: Int) -> ActivationWriter {
        let count = rows * stride
        let scaleCount = rows * type.scalesPerRow(stride: stride)
        let sumBytes = type == AK_Q8_0 ? scaleCount * MemoryLayout<Int32>.stride : 0
        if values.byteCount < count * type.activationBytes { values = AlignedMemory(byteCount: count * type.activationBytes) }
        if scales.byteCount < scaleCount * MemoryLayout<Float>.stride { scales = AlignedMemory(byteCount: scaleCount * MemoryLayout<Float>.stride) }
        if sums.byteCount < sumBytes { sums = AlignedMemory(byteCount: sumBytes) }
        return ActivationWriter(
            type: type, rows: rows, stride: stride, values: values.address, scales: scales.address.assumingMemoryBound(to: Float.self),
            sums: sums.address.assumingMemoryBound(to: Int32.self))
    }
}

/// One ``ActivationBuffer`` for each role.
package final class ActivationBuffers {
    package let chunk = ActivationBuffer()
    let single = ActivationBuffer()

    func of(_ role: RowRole) -> ActivationBuffer { role == .chunk ? chunk : single }
}

/// The conversion of rows, or of a norm of them, to activations of a product. Prepared once, because decode converts the same rows at every token; plain
/// numbers and addresses, valid as long as the tensors.
struct RowConversion {
    private let source: RowSource
    let rows: RowsByRole
    let chunkType, singleType: ak_type

    init(_ x: Tensor, norm: Norm? = nil, for weight: WeightMatrix, _ rows: RowsByRole, _ kernels: KernelSet) {
        (source, self.rows) = (RowSource(x, norm: norm), rows)
        (chunkType, singleType) = (kernels.activationType(weight, .chunk), kernels.activationType(weight, .single))
    }

    /// - Returns: activations that are valid until the next use of `buffers`.
    func callAsFunction(_ buffers: ActivationBuffers, _ workspace: Workspace) -> RowActivations {
        let chunk = rows.chunk.isEmpty ? ak_activations() : workspace.convert(source, rows.chunk, to: chunkType, buffers.chunk)
        return RowActivations(chunk: chunk, single: single(buffers, workspace), split: rows.split)
    }

    /// The single rows' activations, valid until the next use of `buffers`.
    func single(_ buffers: ActivationBuffers, _ workspace: Workspace) -> ak_activations {
        if rows.single.isEmpty { return ak_activations() }
        return workspace.convert(source.from(rows.split), 0 ..< rows.single.count, to: singleType, buffers.single)
    }
}

extension Workspace {
    /// The rows of `x`, or a norm of them, as activations for `weight`; valid until the next use of `buffers`.
    package func convert(_ x: Tensor, norm: Norm? = nil, for weight: WeightMatrix, _ rows: RowsByRole, _ buffers: ActivationBuffers) -> RowActivations {
        defer { withExtendedLifetime((x, norm)) {} }
        return RowConversion(x, norm: norm, for: weight, rows, kernels)(buffers, self)
    }

    /// Some rows of `x`, or a norm of them, as `type`, at the same places; valid until the buffer's next use.
    package func convert(_ x: Tensor, norm: Norm? = nil, _ rows: Range<Int>, to type: ak_type, _ buffer: ActivationBuffer) -> ak_activations {
        defer { withExtendedLifetime((x, norm)) {} }
        return convert(RowSource(x, norm: norm), rows, to: type, buffer)
    }

    /// A norm of a few rows is converted while it is in its worker's cache.
    fileprivate func convert(_ source: RowSource, _ rows: Range<Int>, to type: ak_type, _ buffer: ActivationBuffer) -> ak_activations {
        let (stride, hasNorm) = (source.stride, source.weight != nil)
        if type == AK_F32, !hasNorm { return source.float32 }
        let (made, kernels) = (buffer.reserve(type, rows: rows.upperBound, stride: stride), self.kernels.functions)
        let memory = hasNorm ? pieceMemory(type == AK_F32 ? 0 : min(rows.count, Workspace.rowsAtOnce) * stride) : nil
        if rows.count <= rowsPerItem(rows.count, stride: stride) {
            made.write(kernels, source, rows, normed: memory?.address)
        } else {
            forRows(rows.count, stride: stride) { part, worker in
                made.write(
                    kernels, source, rows.lowerBound + part.lowerBound ..< rows.lowerBound + part.upperBound,
                    normed: memory.map { $0.address + worker * $0.count })
            }
        }
        return made.activations
    }
}

extension ActivationWriter {
    /// Writes rows, or a norm of them.
    /// - Parameter normed: memory for as many normed rows, where they are not float32.
    fileprivate func write(_ kernels: UnsafePointer<ak_kernels>, _ source: RowSource, _ rows: Range<Int>, normed: UnsafeMutablePointer<Float>?) {
        guard source.weight != nil else {
            return write(kernels, rows: rows, columns: 0 ..< stride, from: source.x + rows.lowerBound * stride, stride: stride)
        }
        if type == AK_F32 {
            return source.writeNorm(kernels, rows, into: values.assumingMemoryBound(to: Float.self) + rows.lowerBound * stride, stride: stride)
        }
        guard let normed else { return }
        source.writeNorm(kernels, rows, into: normed, stride: stride)
        write(kernels, rows: rows, columns: 0 ..< stride, from: normed, stride: stride)
    }
}
