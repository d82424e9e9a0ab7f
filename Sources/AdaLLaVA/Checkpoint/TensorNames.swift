/// Every renaming of a weight: from the names of the formats that are read to the canonical ones, which are those of the AdaLLaVA
/// reference (`model.layers.N.…`, `model.mm_projector.…`, `scheduler.…`, `lm_head.weight`), and `vision_model.…` for the tower.
package enum TensorNames {
    /// Prefix of all names of tower weights.
    package static let visionPrefix = "vision_model."

    /// The row after each line of LLaVA-1.6's image features.
    static let imageNewline = "model.image_newline"

    // MARK: Hugging Face and LLaVA

    /// The canonical name of a tensor in a safetensors checkpoint of a language model: AdaLLaVA's and LLaVA's own layout, the three
    /// that llava-hf has had, and text models'. `nil` for tensors that no computation uses.
    package static func canonical(huggingFace name: String) -> String? {
        // Buffers that older libraries saved beside the weights.
        if name.hasSuffix(".position_ids") || name.hasSuffix(".rotary_emb.inv_freq") { return nil }
        for prefix in ["model.vision_tower.vision_tower.", "model.vision_tower.", "vision_tower."] where name.hasPrefix(prefix) {
            return withVisionPrefix(name.dropFirst(prefix.count))
        }
        // Qwen2-VL.
        for prefix in ["model.visual.", "visual."] where name.hasPrefix(prefix) { return visionPrefix + name.dropFirst(prefix.count) }
        for prefix in ["model.multi_modal_projector.", "multi_modal_projector."] where name.hasPrefix(prefix) {
            return canonicalProjector(llavaHF: name.dropFirst(prefix.count)) ?? name
        }
        if name == "image_newline" { return imageNewline }
        // Idefics3 and SmolVLM.
        if name.hasPrefix("model.\(visionPrefix)") { return String(name.dropFirst("model.".count)) }
        for (prefix, canonical) in [
            ("language_model.lm_head.", "lm_head."), ("language_model.model.", "model."), ("model.language_model.", "model."),
            ("model.text_model.", "model."), ("model.connector.modality_projection.proj.", "model.mm_projector."),
        ] where name.hasPrefix(prefix) {
            return canonicalDecoder(canonical + name.dropFirst(prefix.count))
        }
        return canonicalDecoder(name)
    }

    /// All architectures' own names, none of which means something else in another.
    private static let ownModules = DecoderArchitecture.allCases.flatMap { $0.fileDescription.huggingFaceModules }

    /// The canonical name of a decoder's tensor that has the place of LLaMA's.
    private static func canonicalDecoder(_ name: String) -> String {
        renameModule(name) { module in ownModules.first { $0.own == module }?.canonical }
    }

    /// The name that Hugging Face's class of an architecture has for a decoder's tensor.
    package static func huggingFace(canonical name: String, _ architecture: DecoderArchitecture) -> String {
        let modules = architecture.fileDescription.huggingFaceModules
        return renameModule(name) { module in modules.first { $0.canonical == module }?.own }
    }

    /// A tensor's name with its module renamed.
    /// - Parameter rename: given a module, of a layer without `model.layers.N.`; `nil` leaves the name as it is.
    private static func renameModule(_ name: String, _ rename: (String) -> String?) -> String {
        guard let (module, parameter) = splitParameter(name) else { return name }
        let layers = "model.layers."
        guard module.hasPrefix(layers) else { return rename(module).map { "\($0).\(parameter)" } ?? name }
        guard let (number, inner) = splitNumber(module.dropFirst(layers.count)), let renamed = rename(inner) else { return name }
        return "\(layers)\(number).\(renamed).\(parameter)"
    }

    /// The canonical name of a tensor of a CLIP checkpoint: a vision tower of its own, or CLIP as a whole. `nil` for what is not
    /// the tower's.
    package static func canonical(clip name: String) -> String? {
        if name.hasSuffix(".position_ids") { return nil }
        if name.hasPrefix(visionPrefix) { return name }
        let parts = ["embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm."]
        return parts.contains(where: name.hasPrefix) ? visionPrefix + name : nil
    }

    private static func withVisionPrefix(_ name: Substring) -> String {
        name.hasPrefix(visionPrefix) ? String(name) : visionPrefix + name
    }

    /// `linear_1.weight` → `model.mm_projector.0.weight`; LLaVA counts the activation between the layers too.
    private static func canonicalProjector(llavaHF name: Substring) -> String? {
        let parts = name.split(separator: ".", omittingEmptySubsequences: false)
        // LFM2-VL.
        if parts.count == 2, parts[0] == "layer_norm" { return "model.mm_projector.norm.\(parts[1])" }
        guard parts.count == 2, parts[0].hasPrefix("linear_"), let number = Int(parts[0].dropFirst(7)), (1...16).contains(number) else {
            return nil
        }
        return "model.mm_projector.\((number - 1) * 2).\(parts[1])"
    }

    // MARK: GGUF

    /// Modules with one weight, and maybe a bias: GGUF's name, canonical name.
    private static let ggufModules: [(gguf: String, canonical: String)] = [
        ("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head"),
        ("v.patch_embd", "vision_model.embeddings.patch_embedding"),
        ("v.position_embd", "vision_model.embeddings.position_embedding"),
        ("v.pre_ln", "vision_model.pre_layrnorm"), ("v.post_ln", "vision_model.post_layernorm"),
    ]

    /// Modules of a decoder layer, after `blk.N.` and `model.layers.N.`.
    private static let ggufLayerModules: [(gguf: String, canonical: String)] = [
        ("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm"),
        ("attn_q", "self_attn.q_proj"), ("attn_k", "self_attn.k_proj"), ("attn_v", "self_attn.v_proj"), ("attn_output", "self_attn.o_proj"),
        ("ffn_gate", "mlp.gate_proj"), ("ffn_up", "mlp.up_proj"), ("ffn_down", "mlp.down_proj"),
        ("attn_q_norm", "self_attn.q_norm"), ("attn_k_norm", "self_attn.k_norm"),
    ]

    /// Modules of a tower layer, after `v.blk.N.` and `vision_model.encoder.layers.N.`.
    private static let ggufTowerModules: [(gguf: String, canonical: String)] = [
        ("ln1", "layer_norm1"), ("ln2", "layer_norm2"),
        ("attn_q", "self_attn.q_proj"), ("attn_k", "self_attn.k_proj"), ("attn_v", "self_attn.v_proj"), ("attn_out", "self_attn.out_proj"),
        ("ffn_up", "mlp.fc1"), ("ffn_down", "mlp.fc2"),
    ]

    /// The text before the layer's number and after it: GGUF, canonical, modules.
    private static let ggufLayers = [
        ("blk.", "model.layers.", ggufLayerModules), ("v.blk.", "vision_model.encoder.layers.", ggufTowerModules),
    ]

    private static let classEmbedding = (gguf: "v.class_embd", canonical: "vision_model.embeddings.class_embedding")
    private static let projector = (gguf: "mm.", canonical: "model.mm_projector.")

    /// The canonical name of a tensor in a GGUF file, language model or `mmproj`. Names that GGUF shares with the canonical ones
    /// (`scheduler.…`, `rope_freqs.weight`) and unknown ones stay.
    /// - Parameters:
    ///   - architecture: some norms have another place in another architecture.
    ///   - swapsTowerMLP: older converters called the tower's first MLP layer `ffn_down` and its second `ffn_up`.
    package static func canonical(gguf name: String, _ architecture: DecoderArchitecture = .llama, swapsTowerMLP: Bool = false) -> String {
        if name == classEmbedding.gguf { return classEmbedding.canonical }
        if name.hasPrefix(projector.gguf) { return projector.canonical + name.dropFirst(projector.gguf.count) }
        guard let (module, parameter) = splitParameter(name) else { return name }
        for (prefix, canonicalPrefix, modules) in ggufLayers where module.hasPrefix(prefix) {
            guard let (number, inner) = splitNumber(module.dropFirst(prefix.count)) else { return name }
            let swapped = swapsTowerMLP && prefix == "v.blk." ? ["ffn_up": "ffn_down", "ffn_down": "ffn_up"][inner] ?? inner : inner
            let own = prefix == "blk." ? architecture.fileDescription.ggufLayerModules : []
            guard let found = (own + modules).first(where: { $0.gguf == swapped }) else { return name }
            return "\(canonicalPrefix)\(number).\(found.canonical).\(parameter)"
        }
        let own = architecture.fileDescription.ggufModules
        return (own + ggufModules).first { $0.gguf == module }.map { "\($0.canonical).\(parameter)" } ?? name
    }

    /// The canonical names of the matrices that a GGUF tensor stacks by rows, in order: `attn_qkv` is queries, keys and values. `nil` for every other tensor.
    package static func stacked(gguf name: String) -> [String]? {
        guard let (module, parameter) = splitParameter(name), module.hasPrefix("blk."),
            let (number, inner) = splitNumber(module.dropFirst(4)), inner == "attn_qkv"
        else { return nil }
        return ["q_proj", "k_proj", "v_proj"].map { "model.layers.\(number).self_attn.\($0).\(parameter)" }
    }

    /// The name under which a GGUF file of an architecture holds the tensor with this canonical name. Names without a GGUF form stay.
    package static func gguf(canonical name: String, _ architecture: DecoderArchitecture = .llama) -> String {
        if name == classEmbedding.canonical { return classEmbedding.gguf }
        if name.hasPrefix(projector.canonical) { return projector.gguf + name.dropFirst(projector.canonical.count) }
        guard let (module, parameter) = splitParameter(name) else { return name }
        for (ggufPrefix, prefix, modules) in ggufLayers where module.hasPrefix(prefix) {
            let own = ggufPrefix == "blk." ? architecture.fileDescription.ggufLayerModules : []
            guard let (number, inner) = splitNumber(module.dropFirst(prefix.count)),
                let found = (own + modules).first(where: { $0.canonical == inner })
            else { return name }
            return "\(ggufPrefix)\(number).\(found.gguf).\(parameter)"
        }
        let own = architecture.fileDescription.ggufModules
        return (own + ggufModules).first { $0.canonical == module }.map { "\($0.gguf).\(parameter)" } ?? name
    }

    /// `blk.0.attn_q.weight` → `blk.0.attn_q`, `weight`.
    private static func splitParameter(_ name: String) -> (module: String, parameter: String)? {
        for parameter in ["weight", "bias"] where name.hasSuffix(".\(parameter)") {
            return (String(name.dropLast(parameter.count + 1)), parameter)
        }
        return nil
    }

    /// `12.attn_q` → 12, `attn_q`.
    private static func splitNumber(_ name: Substring) -> (number: Int, rest: String)? {
        guard let dot = name.firstIndex(of: "."), let number = Int(name[..<dot]), number >= 0 else { return nil }
        return (number, String(name[name.index(after: dot)...]))
    }
}
