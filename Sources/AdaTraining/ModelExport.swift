import AdaLLaVA
import Foundation

/// Writes a model in the reference's layout: `config.json`, `model.safetensors`, and the other files of the folder that it started from.
struct ModelExport {
    let source: ModelSource
    let model: TorchModel
    let recipe: Recipe

    /// Files of a tokenizer and of generation, copied as they are.
    private static let companions = [
        "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
        "chat_template.json", "vocab.json", "merges.txt", "generation_config.json", "preprocessor_config.json",
    ]

    /// - Parameter folder: exists. `config.json` comes last, so that a folder which has one is complete.
    func write(to folder: URL) throws {
        try copyCompanions(to: folder)
        try writeWeights(to: folder.appendingPathComponent("model.safetensors"))
        var members = source.members
        if let tower { members["mm_vision_tower"] = .string(tower.name) }
        try writeJSON(.object(members), to: folder.appendingPathComponent("config.json"))
    }

    private func copyCompanions(to folder: URL) throws {
        for name in ModelExport.companions { try copy(name, from: source.folder, to: folder) }
        guard let tower else { return }
        let copied = folder.appendingPathComponent(tower.name)
        try makeFolder(copied)
        for name in tower.files { try copy(name, from: tower.folder, to: copied) }
    }

    /// A tower that `mm_vision_tower` names relative to the checkpoint: it goes with it, so that the checkpoint can be moved.
    private var tower: (folder: URL, name: String, files: [String])? {
        guard let tower = source.configuration.llava?.companionTower(of: source.folder), let files = try? Files.names(in: tower.folder) else {
            return nil
        }
        return (tower.folder, tower.name, files)
    }

    private func copy(_ name: String, from: URL, to: URL) throws {
        let (from, to) = (from.appendingPathComponent(name), to.appendingPathComponent(name))
        guard FileKind(from) == .file else { return }
        do {
            let data = try Files.data(from, mapped: true)
            if (try? Files.data(to, mapped: true)) == data { return }
            try Files.write(data, to: to)
        } catch {
            throw TrainingError.unwritable(path: to.path, reason: error.localizedDescription)
        }
    }

    /// One tensor of the file: from the model, or one that the model does not compute with and the checkpoint keeps.
    private enum Origin {
        case parameter(TorchModel.Parameter)
        case values([Float])
    }

    private func writeWeights(to url: URL) throws {
        var origins: [String: Origin] = [:]
        var descriptions: [TensorDescription] = []
        let type = recipe.saveDtype.elementType
        func add(_ name: String, _ shape: [Int], _ origin: Origin) {
            let stored = ModelExport.storedName(name)
            origins[stored] = origin
            descriptions.append(TensorDescription(name: stored, type: type, shape: shape))
        }
        for parameter in model.parameters where !parameter.name.contains(".lora_") && !parameter.name.hasPrefix(TorchModel.regionHead) {
            if parameter.name.hasPrefix(TensorNames.visionPrefix), !source.savesTower { continue }
            add(parameter.name, parameter.shape, .parameter(parameter))
        }
        if source.savesTower { for (name, shape, values) in try unusedTowerTensors() { add(name, shape, .values(values)) } }
        try SafetensorsWriter.write(descriptions, to: url) { tensor, sink in
            let values: [Float] =
                switch origins[tensor.name] {
                case .parameter(let parameter): try model.read(parameter, .merged)
                case .values(let values): values
                case nil: []
                }
            if type == .bf16 { try sink.write(values.map(bfloat16Bits)) } else { try sink.write(values) }
        }
    }

    /// Layers after the selected hidden state, and the last norm: part of a CLIP tower, though LLaVA never runs them.
    private func unusedTowerTensors() throws -> [(name: String, shape: [Int], values: [Float])] {
        let computed = Set(model.parameters.map(\.name))
        if let tensors = source.checkpoint?.vision {
            return try tensors.names.filter { !computed.contains($0) }.map {
                let tensor = try tensors.tensor($0)
                return ($0, tensor.shape, try tensor.widened())
            }
        }
        guard let vision = source.configuration.vision else { return [] }
        let layer = TorchModel.visionLayerShapes(vision)
        let names = (0 ..< vision.numHiddenLayers).flatMap { index in
            layer.map { ("\(TensorNames.visionPrefix)encoder.layers.\(index).\($0.name)", $0.shape) }
        }
        let last = ["weight", "bias"].map { (TensorNames.visionPrefix + "post_layernorm." + $0, [vision.hiddenSize]) }
        return (names + last).filter { !computed.contains($0.0) }.map { name, shape in
            var generator = SplitMix64(seed: UInt64(recipe.seed) ^ FNV1a(name).value)
            return (name, shape, TorchModel.initialValues(name, shape: shape, deviation: Float(recipe.initializerRange), using: &generator))
        }
    }

    /// The reference's name of a parameter.
    static func storedName(_ name: String) -> String {
        name.hasPrefix(TensorNames.visionPrefix) ? "model.vision_tower.vision_tower." + name : name
    }
}

extension TorchModel {
    /// Names and shapes of one layer of a CLIP tower.
    static func visionLayerShapes(_ vision: VisionConfiguration) -> [(name: String, shape: [Int])] {
        let (hidden, middle) = (vision.hiddenSize, vision.intermediateSize)
        var linears: [(String, Int, Int)] = ["q_proj", "k_proj", "v_proj", "out_proj"].map { ("self_attn." + $0, hidden, hidden) }
        linears += [("mlp.fc1", middle, hidden), ("mlp.fc2", hidden, middle)]
        var shapes: [(name: String, shape: [Int])] = []
        for (name, rows, inputs) in linears { shapes += [(name + ".weight", [rows, inputs]), (name + ".bias", [rows])] }
        for name in ["layer_norm1", "layer_norm2"] { shapes += [(name + ".weight", [hidden]), (name + ".bias", [hidden])] }
        return shapes
    }
}

/// Rounded to the nearest, ties to even.
func bfloat16Bits(_ value: Float) -> UInt16 {
    let bits = value.bitPattern
    if value.isNaN { return UInt16(truncatingIfNeeded: bits >> 16) | 0x40 }
    return UInt16(truncatingIfNeeded: (bits &+ 0x7FFF &+ (bits >> 16 & 1)) >> 16)
}

func makeFolder(_ url: URL) throws {
    do {
        try Files.createFolder(url)
    } catch {
        throw TrainingError.unwritable(path: url.path, reason: error.localizedDescription)
    }
}

/// Writes a value as JSON, keys sorted; the file appears whole or not at all.
func writeJSON(_ value: JSONValue, to url: URL) throws {
    do {
        let data = try JSONText.data(value, isPretty: true)
        try Files.write(data, to: url)
    } catch {
        throw TrainingError.unwritable(path: url.path, reason: error.localizedDescription)
    }
}
