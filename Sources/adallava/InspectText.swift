import AdaLLaVA
import Foundation

extension ModelReport {
    /// Bytes of keys and values of a full context; layers with a window keep only the window.
    private var keyValueBytesAtFullContext: Int {
        let language = configuration.language, layers = (0 ..< language.numHiddenLayers).filter { language.kind($0) != .convolution }
        let positions = layers.reduce(0) { $0 + min(language.contextLength, language.window($1) ?? .max) }
        return keyValueBytesPerToken / max(layers.count, 1) * positions
    }

    private func imageTokensText(_ count: Int) -> String {
        switch configuration.llava?.tiling {
        case .dynamic?, .lfm2VL?: "as many tokens as the image has pixels for"
        case LlavaConfiguration.Tiling.none?, nil: "\(count) tokens an image"
        default: "\(count) tokens a tile"
        }
    }

    /// Lines for people.
    var lines: [String] {
        let language = configuration.language
        func millions(_ count: Int) -> String { String(format: "%.1f M", Double(count) / 1e6) }
        func megabytes(_ bytes: Int) -> String { String(format: "%.1f MB", Double(bytes) / 1e6) }
        var lines = ["format        \(format)"]
        var parts = ["language \(millions(parameters.language))"]
        if parameters.vision > 0 { parts.append("vision \(millions(parameters.vision))") }
        if parameters.projector > 0 { parts.append("projector \(millions(parameters.projector))") }
        if parameters.scheduler > 0 { parts.append("scheduler \(millions(parameters.scheduler))") }
        let all = parameters.language + parameters.vision + parameters.projector + parameters.scheduler
        lines.append("parameters    \(millions(all)): \(parts.joined(separator: ", "))")
        let attention = language.numKeyValueHeads == language.numAttentionHeads ? "" : " (\(language.numKeyValueHeads) for keys and values)"
        let sliding = (0 ..< language.numHiddenLayers).count { language.kind($0) == .slidingAttention }
        let place = sliding == language.numHiddenLayers ? "" : " in \(sliding) of the layers"
        let window = language.slidingWindow.map { ", window \($0)\(place)" } ?? ""
        lines.append(
            "decoder       \(language.architecture.name): \(language.numHiddenLayers) layers, hidden \(language.hiddenSize), intermediate \(language.intermediateSize), \(language.numAttentionHeads) heads of \(language.headDim)\(attention), vocabulary \(language.vocabularySize), context \(language.contextLength)\(window)"
        )
        if let vision = configuration.vision, let imageTokens {
            let shape: String
            switch vision.architecture {
            case .clip, .siglip:
                shape = "\(vision.architecture == .siglip ? "SigLIP, " : "")\(vision.numHiddenLayers) layers, hidden \(vision.hiddenSize), image \(vision.imageSize), patch \(vision.patchSize)"
            case .siglip2:
                shape = "SigLIP2, \(vision.numHiddenLayers) layers, hidden \(vision.hiddenSize), patch \(vision.patchSize), positions resized from \(vision.imageSize / vision.patchSize) x \(vision.imageSize / vision.patchSize)"
            case .qwen2VL(let tower):
                shape = "\(tower.isSecond ? "Qwen2.5-VL" : "Qwen2-VL"), \(vision.numHiddenLayers) layers, hidden \(vision.hiddenSize), patch \(vision.patchSize), \(tower.mergeSize) x \(tower.mergeSize) patches a token"
            case .efficientNetLite(let network):
                let maps = network.featureMaps.map { "\($0.rawValue) \(network.width(of: $0))" }.joined(separator: " + ")
                shape = "EfficientNet-Lite\(network.variant.map { " (\($0))" } ?? ""), \(vision.numHiddenLayers) blocks, image \(vision.imageSize), features \(maps)"
            }
            lines.append(
                "vision tower  \(shape): \(imageTokensText(imageTokens)), selection \(configuration.llava?.tokenSelection.rawValue ?? "none")")
        }
        lines.append("tensors       " + types.map { "\($0.tensors) \($0.name) (\(megabytes($0.bytes)))" }.joined(separator: ", "))
        lines.append("memory        weights \(megabytes(weightBytes)), keys and values \(String(format: "%.1f kB", Double(keyValueBytesPerToken) / 1e3)) a token, \(megabytes(keyValueBytesAtFullContext)) at full context")
        if let adaptive = configuration.adaptive, let units {
            let unit = adaptive.schedulerType == .layers ? "layers" : "units of \(adaptive.schedulerRank) heads and neuron groups"
            lines.append(
                String(
                    format: "adaptive      variant %@: %d of %d %@ always run, floor %.3g", adaptive.schedulerType.rawValue, units.prefix, units.total,
                    unit, units.floor))
        } else {
            lines.append("adaptive      no (no scheduler: it always runs whole)")
        }
        let unnamed = "none that is known (--template NAME or --chat-template FILE gives one; questions need it, token ids do not)"
        lines.append("tokenizer     " + (tokenizer.map { "\($0), template \(template ?? unnamed)" } ?? "none: it runs on token ids, not on questions"))
        lines += notes.map { "note          \($0)" }
        lines += ignored.map { "ignored       \($0)" }
        lines.append("problem       \(problem ?? "none")")
        return lines
    }
}
