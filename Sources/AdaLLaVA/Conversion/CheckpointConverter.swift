import AdaKernels
import Foundation

/// Rewrites a checkpoint with its weights in another element type.
///
/// A destination that ends in `.gguf` becomes a GGUF file as llama.cpp reads it, with a second one for the tower of a LLaVA, or one file with
/// everything in it for models that llama.cpp cannot run.
/// Any other destination becomes a folder in the source's own Hugging Face layout, for a GGUF text model in that of its architecture, with float
/// weights (safetensors has no quantized types).
package struct CheckpointConverter: WeightConverter {
    /// The element types that weights can be written in.
    package enum Target: String, Sendable, CaseIterable {
        case q8_0, q4_0, q4_1, f16, bf16, f32

        /// Whether safetensors has it.
        var isFloat: Bool { [.f16, .bf16, .f32].contains(self) }

        /// The name that `torch_dtype` in a config.json has for it.
        var torchName: String { [.bf16: "bfloat16", .f32: "float32"][self] ?? "float16" }

        var elementType: ElementType {
            switch self {
            case .q8_0: .q8_0
            case .q4_0: .q4_0
            case .q4_1: .q4_1
            case .f16: .f16
            case .bf16: .bf16
            case .f32: .f32
            }
        }
    }

    let checkpoint: Checkpoint
    let source: URL
    let target: Target
    let output: URL
    let overwrites: Bool
    let scheduler: UntrainedScheduler?

    /// - Parameters:
    ///   - projector: the image part of a GGUF pair, if it is not found next to the model.
    ///   - visionTower: the folder of the tower that `mm_vision_tower` names, if it is not found.
    ///   - scheduler: makes a model adaptive that is not; only for an output in Hugging Face's layout.
    ///   - overwrites: replace an existing `output`.
    /// - Throws: ``CheckpointError``, ``ConversionError``
    package init(
        _ source: URL, projector: URL? = nil, visionTower: URL? = nil, to target: Target, scheduler: UntrainedScheduler? = nil, output: URL,
        overwrites: Bool = false
    ) throws {
        checkpoint = try Checkpoint.open(at: source, projector: projector, visionTower: visionTower)
        (self.source, self.target, self.scheduler, self.output, self.overwrites) = (source, target, scheduler, output, overwrites)
        if let scheduler {
            if let obstacle = schedulerObstacle { throw ConversionError.noScheduler(source.path, reason: obstacle) }
            let language = checkpoint.configuration.language
            try scheduler.configuration(language).validate(for: language, file: source.path)
        }
        try ConversionOutput.check(output, sources: [source, checkpoint.folder] + (projector.map { [$0] } ?? []), overwrites: overwrites)
        if writesGGUF {
            // The name of the image part, written now or found by loaders.
            try ConversionOutput.check(imageOutput, sources: [source] + (projector.map { [$0] } ?? []), overwrites: overwrites)
        }
        if writesGGUF { return }
        guard target.isFloat else { throw ConversionError.needsGGUF(target.rawValue, output: output.path) }
        if checkpoint.ggufMetadata != nil, let obstacle = safetensorsObstacle {
            throw ConversionError.onlyGGUF(obstacle, output: output.path)
        }
    }

    var writesGGUF: Bool { output.pathExtension == "gguf" }

    /// Writes the new checkpoint and opens it again to see that it loads. It appears under its name only when it is complete; stopped in
    /// between, nothing is left.
    /// - Throws: ``CheckpointError``; `CancellationError` between two parts of a tensor.
    package func run(cancellation: Cancellation = Cancellation(), progress: ConversionProgress = { _, _ in }) throws -> ConversionReport {
        // A checkpoint that does not load would become another one that does not.
        try CheckpointConverter.verify(checkpoint)
        if writesGGUF { return try writeGGUF(cancellation: cancellation, progress: progress) }
        var report = try ConversionOutput.writeFolder(output) {
            if checkpoint.ggufMetadata != nil {
                try writeHuggingFaceFolder($0, cancellation: cancellation, progress: progress)
            } else {
                try writeContents($0, cancellation: cancellation, progress: progress)
            }
        } verify: { try CheckpointConverter.report(Checkpoint.open(at: $0)) }
        report.files = [output.path]
        return report
    }

    /// The written files, once they have been loaded successfully.
    static func report(_ written: Checkpoint) throws -> ConversionReport {
        try verify(written)
        var sizes: [String: Int] = [:]
        for source in [written.language, written.vision, written.projector].compactMap({ $0 }) {
            for name in source.names { sizes[name] = source.find(name)?.bytes.count }
        }
        return ConversionReport(bytes: sizes.values.reduce(0, +), tensors: sizes.count)
    }

    /// Checks every tensor that the architecture needs, without reading the weights.
    private static func verify(_ checkpoint: Checkpoint) throws {
        _ = try LoadedModel(
            checkpoint, packer: WeightPacker(kernels: KernelSet(), pool: ThreadPool(threads: 1), packs: false), template: nil, cancellation: Cancellation(), onProgress: { _ in })
    }

    // MARK: - A Hugging Face folder

    private func writeContents(_ partial: URL, cancellation: Cancellation, progress: ConversionProgress) throws {
        let tower = checkpoint.configuration.llava?.companionTower(of: checkpoint.folder)
        do {
            for name in try WeightFiles.names(in: checkpoint.folder) where belongsToCheckpoint(name) {
                try Files.copy(checkpoint.folder.appendingPathComponent(name), to: partial.appendingPathComponent(name))
            }
            if let tower {
                let copy = partial.appendingPathComponent(tower.name)
                try Files.createFolder(copy.deletingLastPathComponent())
                try Files.copy(tower.folder, to: copy)
            }
            try adapt(config: partial.appendingPathComponent("config.json"), tower: tower?.name)
        } catch let error as SystemError {
            throw CheckpointError.unwritable(file: output.path, reason: error.localizedDescription)
        }
        let config = try JSONValue.read(contentsOf: checkpoint.folder.appendingPathComponent("config.json"))
        let weights = try ScaledTensors.joined(WeightFiles.open(in: checkpoint.folder).tensors, configuration: config)
        // A tensor of a type that is not read is needed by nothing: the checkpoint loads.
        let tensors = weights.names.compactMap { weights.find($0) }.filter { $0.type != .unread }
        let total = tensors.reduce(0) { $0 + $1.bytes.count }
        var done = 0
        let language = checkpoint.configuration.language
        let descriptions = tensors.map { tensor in
            TensorDescription(name: tensor.name, type: tensor.type.kernelType == nil ? tensor.type : target.elementType, shape: tensor.shape)
        } + (scheduler?.descriptions(language, type: target.elementType) ?? [])
        try SafetensorsWriter.write(descriptions, to: partial.appendingPathComponent("model.safetensors")) { description, sink in
            if try scheduler?.write(description, language, to: sink) == true { return }
            let tensor = try weights.tensor(description.name)
            try TensorRewriter(tensor, to: description.type, file: output.path).write(to: sink, cancellation: cancellation)
            done += tensor.bytes.count
            progress(done, total)
        }
    }

    /// Configuration, tokenizer and notes; neither the weights nor unrelated files.
    private func belongsToCheckpoint(_ name: String) -> Bool {
        let kinds = ["json", "model", "jinja", "txt", "md"]
        let url = checkpoint.folder.appendingPathComponent(name)
        return FileKind(url) == .file && kinds.contains(url.pathExtension) && !WeightFiles.isWeights(name)
    }

    /// Writes the weights' new type into a copied `config.json`, because loaders read it there, and the path of the tower.
    private func adapt(config: URL, tower: String?) throws {
        let json = try JSONValue.read(contentsOf: config)
        if case .object(var members) = json {
            // Weights are floats now, without factors: loaders would look for them.
            members["quantization_config"] = nil
            let adapted = scheduler?.adapt(.object(members), checkpoint.configuration.language) ?? .object(members)
            if adapted != json { try Files.write(Data(DecoderConfiguration.json(adapted).utf8), to: config) }
        }
        var values = ["torch_dtype", "dtype"].map { ($0, target.torchName) }
        if let tower, tower != checkpoint.configuration.llava?.visionTowerReference { values.append(("mm_vision_tower", tower)) }
        var text = String(decoding: try Files.data(config), as: UTF8.self)
        for (key, value) in values {
            guard let field = try? Regex("\"\(key)\"\\s*:\\s*\"[^\"\\\\]*\"") else { continue }
            text = text.replacing(field) { _ in "\"\(key)\": \"\(value)\"" }
        }
        try Files.write(Data(text.utf8), to: config)
    }
}

/// One tensor's bytes in another element type, made a few rows at a time.
struct TensorRewriter {
    private let tensor: StoredTensor
    private let type: ElementType
    private let columns: Int
    private let order: [Int]?
    private let shift: Float
    private let file: String

    /// - Parameters:
    ///   - order: for each row written, the row it is taken from; `nil` keeps the order.
    ///   - shift: added to each value.
    init(_ tensor: StoredTensor, to type: ElementType, order: [Int]? = nil, adding shift: Float = 0, file: String) {
        (self.tensor, self.type, self.order, self.shift, self.file) = (tensor, type, order, shift, file)
        // The values of a vector change places one by one.
        columns = tensor.shape.count > 1 ? tensor.shape[tensor.shape.count - 1] : order == nil ? tensor.count : 1
    }

    func write(to sink: TensorSink, cancellation: Cancellation) throws {
        if type == tensor.type, order == nil, shift == 0 { return try sink.write(tensor.bytes) }
        let reader = try RowReader(tensor, columns: columns)
        guard columns > 0, let targetType = type.kernelType,
            let sourceBytes = tensor.type.bytes(for: columns), let targetBytes = type.bytes(for: columns), let base = tensor.bytes.baseAddress
        else {
            throw CheckpointError.elementType(
                tensor: tensor.name, expected: "rows of \(columns) values in a type that becomes \(type.rawValue)", found: tensor.typeName,
                file: tensor.file.path)
        }
        let rows = tensor.count / columns
        let step = max(1, (1 << 18) / columns)
        var values = [Float](repeating: 0, count: columns)
        var out = [UInt8](repeating: 0, count: step * targetBytes)
        for first in stride(from: 0, to: rows, by: step) {
            try cancellation.check()
            let count = min(step, rows - first)
            for row in 0 ..< count {
                let from = order?[first + row] ?? first + row
                if type == tensor.type, shift == 0 {
                    out.withUnsafeMutableBytes { out in
                        out.baseAddress?.advanced(by: row * targetBytes).copyMemory(from: base + from * sourceBytes, byteCount: targetBytes)
                    }
                    continue
                }
                values.withUnsafeMutableBufferPointer { if let start = $0.baseAddress { reader.read(from, into: start) } }
                if shift != 0 { for index in values.indices { values[index] += shift } }
                let result = out.withUnsafeMutableBytes { out in
                    out.baseAddress.map { ak_quantize($0 + row * targetBytes, targetType, values, Int64(columns)) } ?? -1
                }
                guard result == 0 else {
                    throw CheckpointError.elementType(
                        tensor: tensor.name, expected: "a type that can be written", found: type.rawValue, file: file)
                }
            }
            try out.withUnsafeBytes { try sink.write(UnsafeRawBufferPointer(rebasing: $0[..<(count * targetBytes)])) }
        }
        withExtendedLifetime(tensor) {}
    }
}
