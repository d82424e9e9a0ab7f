import AdaKernels
import AdaProbes
import Testing

@testable import AdaLLaVA

extension LayerSelection {
    /// What a plan's row runs of a layer whose switches are single heads.
    convenience init(_ row: ExecutionPlan.Row, _ c: DecoderConfiguration) {
        let switches = SwitchSpace(c, grouped: false).layers[0]
        self.init(heads: row.heads.flatMap { Array(switches.heads[$0]) }, neurons: row.groups.map { switches.neurons[$0] }, c)
    }
}

/// A small decoder with made-up weights of any types.
struct MadeUpModel: TensorSource {
    static let shape = DecoderConfiguration(
        vocabularySize: 50, hiddenSize: 96, intermediateSize: 200, numHiddenLayers: 4, numAttentionHeads: 6, numKeyValueHeads: 2, ropeInterleaved: true,
        maxPositionEmbeddings: 4096)

    private let tensors: [String: StoredTensor]
    var names: [String] { tensors.keys.sorted() }
    let location = "made-up weights"

    /// - Parameter type: of a matrix by the last part of its name; float16 instead where blocks do not divide its inputs.
    init(_ c: DecoderConfiguration = MadeUpModel.shape, type: (String) -> ElementType) {
        var random = SplitMix64(seed: 5), made: [String: StoredTensor] = [:]
        func add(_ name: String, _ shape: [Int], _ type: ElementType) {
            let type = shape[shape.count - 1] % type.block.values == 0 ? type : .f16
            let count = shape.reduce(1, *)
            var bytes: [UInt8] = []
            RandomWeights(type, deviation: 0.15, &random).read(type.bytes(for: count) ?? 0, &random) { bytes.append(contentsOf: $0) }
            let file = MappedFile(copying: bytes, path: "made-up weights")
            made[name] = StoredTensor(name: name, type: type, shape: shape, bytes: file.bytes, file: file)
        }
        let (width, keyWidth) = (c.numAttentionHeads * c.headDim, c.numKeyValueHeads * c.headDim)
        add("model.embed_tokens.weight", [c.vocabularySize, c.hiddenSize], .f16)
        add("lm_head.weight", [c.vocabularySize, c.hiddenSize], type("lm_head"))
        add("model.norm.weight", [c.hiddenSize], .f16)
        for layer in 0 ..< c.numHiddenLayers {
            let prefix = "model.layers.\(layer)."
            for norm in ["input_layernorm", "post_attention_layernorm"] { add(prefix + norm + ".weight", [c.hiddenSize], .f16) }
            for (name, rows, inputs) in [
                ("self_attn.q_proj", width, c.hiddenSize), ("self_attn.k_proj", keyWidth, c.hiddenSize), ("self_attn.v_proj", keyWidth, c.hiddenSize),
                ("self_attn.o_proj", c.hiddenSize, width), ("mlp.gate_proj", c.intermediateSize, c.hiddenSize),
                ("mlp.up_proj", c.intermediateSize, c.hiddenSize), ("mlp.down_proj", c.hiddenSize, c.intermediateSize),
            ] { add(prefix + name + ".weight", [rows, inputs], type(name)) }
        }
        tensors = made
    }

    func find(_ name: String) -> StoredTensor? { tensors[name] }

    /// A decoder whose layers from the second on are packed for plans, and a workspace for it.
    static func decoder(
        _ c: DecoderConfiguration = shape, kernels: String, threads: Int = 2, precision: Precision = .automatic, type: (String) -> ElementType
    ) throws -> (decoder: Decoder, workspace: Workspace) {
        let workspace = try Workspace(threads: threads, precision: precision, kernels: kernels)
        let packer = WeightPacker(kernels: workspace.kernels, pool: workspace.pool)
        let decoder = try Decoder(
            MadeUpModel(c, type: type), c, packer: packer, switched: 1 ..< c.numHiddenLayers, cancellation: Cancellation()) { _ in }
        return (decoder, workspace)
    }
}

/// Passes one sequence's tokens through a decoder.
final class SequenceReader {
    let sequence: TokenSequence
    private(set) var length = 0

    /// - Parameter selections: what runs of each layer; `nil` runs everything.
    init(_ decoder: Decoder, selections: [LayerSelection]? = nil, promptLength: Int = 0) {
        sequence = TokenSequence(decoder)
        sequence.promptLength = promptLength
        if let selections { sequence.select(selections, from: 0) }
    }

    /// The next rows as a chunk.
    /// - Parameters:
    ///   - output: where hidden states after the last layer go.
    ///   - logitRows: of how many of the last rows logits are wanted.
    func chunk(_ tokens: some Collection<Int>, output: Tensor? = nil, logitRows: Int = 1) throws -> BatchSegment {
        let rows = Tensor(rows: tokens.count, columns: sequence.decoder.configuration.hiddenSize)
        for (row, token) in tokens.enumerated() { try sequence.decoder.embed(token, into: rows, row: row) }
        defer { length += rows.rows }
        return BatchSegment(
            sequence: sequence, role: .chunk, position: length, slot: length, layers: 0 ..< sequence.decoder.layers.count, input: .hidden(rows),
            output: output, logitRows: logitRows)
    }

    /// The next token as a single row.
    func single(_ token: Int) -> BatchSegment {
        defer { length += 1 }
        return BatchSegment(
            sequence: sequence, role: .single, position: length, slot: length, layers: 0 ..< sequence.decoder.layers.count, input: .token(token),
            logitRows: 1)
    }
}

extension BatchRunner {
    convenience init(_ decoder: Decoder, _ workspace: Workspace) { self.init(decoder, workspace, pages: PagePool()) }

    /// The bits of the logits of each segment's last row; `nil` where none were wanted.
    func bits(_ segments: [BatchSegment]) throws -> [[UInt32]?] {
        let output = try step(segments)
        return segments.indices.map { output.last($0)?.values.map(\.bitPattern) }
    }
}
