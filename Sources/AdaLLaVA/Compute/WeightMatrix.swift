import AdaKernels

/// The weights of a linear map, `[rows, inputs]`, ready for the kernels.
///
/// Immutable: any number of computations read it at once. Weights are packed into panels of 16 rows, once, at load, in types that the kernels multiply
/// fast: Q4_K as Q4_1, whose four bits are the same; the other quantized types as Q8_0 (`ak_packs_as_q8`), rounded once more where their whole numbers do
/// not fit; 8-bit floats as BF16. In float32 those stay in the mapped file as they are, and so do Q8_0, Q4_0 and Q4_1 of large files (see
/// ``WeightPlacement``), unless plans leave inputs out; 8-bit floats become float32.
package final class WeightMatrix: @unchecked Sendable {
    let matrix: ak_matrix
    /// Outputs.
    package let rows: Int
    /// Inputs.
    package let inputs: Int
    /// The element type of the weights, as the file stores them.
    package let type: ElementType
    /// Bytes this takes in memory of our own (0 when it stays in the mapped file).
    package let packedBytes: Int
    private let memory: AlignedMemory?
    private let file: MappedFile?

    /// Packs or maps `tensor`.
    /// - Parameters:
    ///   - shape: the architecture's shape, `[rows, inputs]`; a longer shape in the file (a convolution's) is flattened after
    ///     the first axis.
    ///   - picksInputs: whether plans will leave inputs out; the weights are then laid out for that.
    ///   - isAlwaysBatched: only ever multiplied with large batches (vision towers).
    ///   - packer: one that does not pack leaves every type in the mapped file.
    /// - Throws: ``CheckpointError`` on another shape or a type that cannot be multiplied.
    package init(_ tensor: StoredTensor, rows: Int, inputs: Int, picksInputs: Bool = false, isAlwaysBatched: Bool = false, packer: WeightPacker) throws {
        guard tensor.shape.first == rows, tensor.count == rows * inputs, tensor.shape.count >= 2 else {
            throw CheckpointError.shape(tensor: tensor.name, expected: [rows, inputs], found: tensor.shape, file: tensor.file.path)
        }
        _ = try RowReader(tensor, columns: inputs)
        guard let kernelType = tensor.type.kernelType, let rowBytes = tensor.type.bytes(for: inputs),
            rows <= Int32.max - 64, inputs <= Int32.max - 64, let base = tensor.bytes.baseAddress
        else {
            throw CheckpointError.elementType(
                tensor: tensor.name, expected: "a float or quantized type whose blocks divide \(inputs) inputs", found: tensor.typeName,
                file: tensor.file.path)
        }
        (self.rows, self.inputs, type) = (rows, inputs, tensor.type)
        let panels = (rows + Int(AK_PANEL) - 1) / Int(AK_PANEL)
        let blocks = (inputs + Int(AK_BLOCK) - 1) / Int(AK_BLOCK)
        let (precision, tuning) = (packer.kernels.precision, packer.kernels.tuning)
        let isRounded = precision == .q8 && inputs % Int(AK_BLOCK) == 0
        let isNarrow = isRounded && isAlwaysBatched && tuning.int8_tiles != 0 && tensor.type.isFloat && ak_panel_bytes(AK_I8, Int32(inputs)) > 0
        let packedType = isNarrow ? AK_I8 : (precision == .f32 ? tensor.type.exactType : tensor.type.packedType(isRounded: isRounded)) ?? kernelType
        let panelBytes = Int(ak_panel_bytes(packedType, Int32(inputs)))
        let bundle = picksInputs ? packer.panelsPerBundle(packedType, panels: panels) : 1
        let packedPanels = (panels + bundle - 1) / bundle * bundle
        if panelBytes > 0, !packer.maps(tensor, picksInputs: picksInputs),
            let memory = try packer.pack(
                tensor, as: packedType, bundle: bundle, rows: rows, inputs: inputs, panels: packedPanels, panelBytes: panelBytes)
        {
            (self.memory, file, packedBytes) = (memory, nil, packedPanels * panelBytes)
            matrix = ak_matrix(
                type: packedType, layout: AK_PANELS, rows: Int32(rows), inputs: Int32(inputs), panels: Int32(panels), blocks: Int32(blocks),
                bundle: Int32(bundle), stride: panelBytes, data: memory.address)
        } else {
            (memory, file, packedBytes) = (nil, tensor.file, 0)
            matrix = ak_matrix(
                type: kernelType, layout: AK_ROWS, rows: Int32(rows), inputs: Int32(inputs), panels: Int32(panels), blocks: Int32(blocks),
                bundle: 1, stride: rowBytes, data: base)
        }
    }

    /// Bytes that one pass over all the weights reads.
    package var streamedBytes: Int { matrix.layout == AK_ROWS ? rows * matrix.stride : Int(matrix.panels) * matrix.stride }
}

extension ElementType {
    /// Packed form of weights of this type, if they need not stay exact.
    /// - Parameter isRounded: whether floats are rounded to Q8_0.
    func packedType(isRounded: Bool) -> ak_type? {
        switch kernelType {
        case _ where isFloat: isRounded ? AK_Q8_0 : kernelType
        case _ where isFloat8: isRounded ? AK_Q8_0 : AK_BF16
        case AK_Q4_K: AK_Q4_1
        case let type? where ak_packs_as_q8(type) != 0: AK_Q8_0
        default: kernelType
        }
    }

    /// Packed or mapped form of weights of this type that stays exact.
    var exactType: ak_type? { isFloat8 ? AK_F32 : kernelType }

    /// Whether the kernels read this type as floats without blocks.
    var isFloat: Bool { [AK_F32, AK_F16, AK_BF16].contains(kernelType) }

    /// Whether the kernels multiply rows of this type in the mapped file, in the same arithmetic as packed panels.
    var multipliesInFile: Bool { [AK_Q8_0, AK_Q4_0, AK_Q4_1].contains(kernelType) }
}

/// A linear layer: weights and an optional bias.
package struct Linear: Sendable {
    package let weight: WeightMatrix
    let bias: Tensor?

    /// Reads `name.weight` and, if there, `name.bias`.
    init(
        _ source: any TensorSource, _ name: String, rows: Int, inputs: Int, picksInputs: Bool = false, isAlwaysBatched: Bool = false,
        packer: WeightPacker
    ) throws {
        weight = try WeightMatrix(
            source.tensor(name + ".weight"), rows: rows, inputs: inputs, picksInputs: picksInputs, isAlwaysBatched: isAlwaysBatched, packer: packer)
        bias = try source.find(name + ".bias").map { try Tensor(vector: $0, count: rows) }
    }

    package init(weight: WeightMatrix, bias: Tensor?) { (self.weight, self.bias) = (weight, bias) }
}

extension Tensor {
    /// A stored vector (norm weight, bias, class embedding) as float32 `[1, count]`, from any float or quantized type.
    init(vector tensor: StoredTensor, count: Int) throws {
        guard tensor.count == count else {
            throw CheckpointError.shape(tensor: tensor.name, expected: [count], found: tensor.shape, file: tensor.file.path)
        }
        try self.init(rows: 1, columns: count, stored: tensor)
    }

    /// A stored matrix as float32.
    init(matrix tensor: StoredTensor, rows: Int, columns: Int) throws {
        guard tensor.count == rows * columns, tensor.shape.last == columns else {
            throw CheckpointError.shape(tensor: tensor.name, expected: [rows, columns], found: tensor.shape, file: tensor.file.path)
        }
        try self.init(rows: rows, columns: columns, stored: tensor)
    }

    private init(rows: Int, columns: Int, stored tensor: StoredTensor) throws {
        self.init(rows: rows, columns: columns)
        let reader = try RowReader(tensor, columns: columns)
        for row in 0 ..< rows { reader.read(row, into: data + row * stride) }
    }
}

/// Lets a pointer cross into the pool's closures; the pool returns before its memory can be freed.
struct SendablePointer: @unchecked Sendable {
    let pointer: UnsafeMutableRawPointer
    init(_ pointer: UnsafeMutableRawPointer) { self.pointer = pointer }
}
