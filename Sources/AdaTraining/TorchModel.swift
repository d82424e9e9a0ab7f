import AdaLLaVA
import CAdaTorch

/// How a model is computed.
package struct TorchOptions: Sendable, Equatable {
    /// `nil`: the CPU; otherwise the number of a CUDA device.
    package var cudaDevice: Int?
    package var bfloat16 = false
    package var gradientCheckpointing = false
    /// Batches of a step that are computed side by side, each by a thread of its own (CPU).
    package var workers = 1
    /// libtorch's threads for each of them.
    package var threads = 1
    /// Temperature of the Gumbel-softmax.
    package var temperature: Float = GumbelDraw.defaultTemperature
    package var loraRank = 0
    package var loraAlpha: Float = 0
    package var loraTargets: [String] = []
    /// Classes of each slot of region labels (``RegionVocabulary/slotClasses``); empty: the model has no head for them.
    package var regionClasses: [Int] = []

    package init() {}
}

/// A trainable model inside libtorch. Parameters have the engine's canonical names.
package final class TorchModel {
    package struct Parameter: Sendable, Equatable {
        package let index: Int
        package let name: String
        package let shape: [Int]
        package var count: Int { shape.reduce(1, *) }
    }

    /// The name of the head for region labels, which is a part of training and not of the model.
    static let regionHead = "region_labels."

    /// The part of a parameter that is read or written.
    package enum Part: Int32, Sendable {
        case value, gradient, firstMoment, secondMoment
        /// The value with LoRA's product added; can only be read.
        case merged
    }

    package let library: TorchLibrary
    package let configuration: ModelConfiguration
    package let parameters: [Parameter]
    let handle: OpaquePointer

    /// A model whose parameters are all zeros.
    /// - Throws: ``TrainingError``, ``CheckpointError`` for shapes that cannot be trained.
    package init(_ configuration: ModelConfiguration, options: TorchOptions = TorchOptions(), library: TorchLibrary) throws {
        let language = configuration.language
        let rotary = try RotaryEmbedding(language).frequencies(sequenceLength: language.maxPositionEmbeddings)
        if language.ropeInterleaved {
            throw CheckpointError.unsupported(what: "training GGUF weights", file: "the model", hint: "train the safetensors checkpoint")
        }
        let targets = options.loraTargets.joined(separator: ",")
        let classes = options.regionClasses.map { Int32($0) }
        let created = rotary.inverseFrequencies.withUnsafeBufferPointer { frequencies in
            targets.withCString { targets in
                classes.withUnsafeBufferPointer { classes in
                    var config = TorchModel.config(configuration, options)
                    config.inverse_frequencies = frequencies.baseAddress
                    config.rotary_scale = rotary.attentionScaling
                    config.lora_targets = targets
                    config.label_slots = Int32(classes.count)
                    config.label_classes = classes.baseAddress
                    return library.functions.model_create(&config)
                }
            }
        }
        guard let created else { throw library.failure("making the model") }
        var parameters: [Parameter] = []
        for index in 0 ..< library.functions.parameter_count(created) {
            var name: UnsafePointer<CChar>?
            var shape: [Int64] = [0, 0, 0, 0]
            let dimensions = library.functions.parameter_info(created, index, &name, &shape)
            guard dimensions >= 0, let name else {
                library.functions.model_free(created)
                throw library.failure("parameter \(index)")
            }
            parameters.append(Parameter(index: Int(index), name: String(cString: name), shape: shape.prefix(Int(dimensions)).map { Int($0) }))
        }
        (handle, self.parameters, self.library, self.configuration) = (created, parameters, library, configuration)
    }

    deinit { library.functions.model_free(handle) }

    /// Values of a parameter, row-major; zeros for moments and gradients that do not exist yet.
    package func read(_ parameter: Parameter, _ part: Part = .value) throws -> [Float] {
        var values = [Float](repeating: 0, count: parameter.count)
        try library.check(
            library.functions.read(handle, Int32(parameter.index), part.rawValue, &values, Int64(values.count)), "reading \(parameter.name)")
        return values
    }

    package func write(_ values: [Float], to parameter: Parameter, _ part: Part = .value) throws {
        try library.check(
            library.functions.write(handle, Int32(parameter.index), part.rawValue, values, Int64(values.count)), "setting \(parameter.name)")
    }

    /// - Parameter learningRate: 0 freezes the parameter.
    package func setTraining(_ parameter: Parameter, learningRate: Double, weightDecay: Double) throws {
        try library.check(
            library.functions.set_training(handle, Int32(parameter.index), learningRate, weightDecay), "freezing \(parameter.name)")
    }

    /// AdamW's settings for one step.
    package struct UpdateOptions: Sendable, Equatable {
        /// Factor of every parameter's learning rate, from the schedule.
        package var learningRateScale = 1.0
        package var beta1 = 0.9
        package var beta2 = 0.999
        package var epsilon = 1e-8
        /// Gradients with a larger norm are scaled down to it; 0 leaves them.
        package var maxGradNorm = 0.0
        /// Counts from 1.
        package var step = 1

        package init() {}
    }

    /// One AdamW step with the gradients so far, summed over the processes of `group`; clears them.
    /// - Returns: the gradient's norm before clipping. Nothing has changed if it is not finite.
    package func update(_ options: UpdateOptions, group: TorchProcessGroup? = nil) throws -> Double {
        var settings = at_update_options(
            learning_rate_scale: options.learningRateScale, beta1: options.beta1, beta2: options.beta2, epsilon: options.epsilon,
            max_grad_norm: options.maxGradNorm, step: Int64(options.step))
        var norm = 0.0
        try library.check(library.functions.update(handle, group?.handle, &settings, &norm), "the optimizer's step")
        return norm
    }

    package func clearGradients() { library.functions.clear_gradients(handle) }

    /// Device memory in use at most so far, in bytes; `nil` on the CPU.
    package var peakDeviceMemory: Int? {
        let bytes = library.functions.peak_memory(handle)
        return bytes > 0 ? Int(bytes) : nil
    }

    private static func config(_ configuration: ModelConfiguration, _ options: TorchOptions) -> at_config {
        var c = at_config()
        let language = configuration.language
        c.vocabulary_size = Int32(language.vocabularySize)
        c.hidden_size = Int32(language.hiddenSize)
        c.intermediate_size = Int32(language.intermediateSize)
        c.layers = Int32(language.numHiddenLayers)
        c.heads = Int32(language.numAttentionHeads)
        c.key_value_heads = Int32(language.numKeyValueHeads)
        c.head_dim = Int32(language.headDim)
        c.padding_token = Int32(language.padTokenID ?? -1)
        c.tied_embeddings = language.tieWordEmbeddings ? 1 : 0
        c.attention_bias = language.attentionBias ? 1 : 0
        c.mlp_bias = language.mlpBias ? 1 : 0
        c.rms_epsilon = language.normEpsilon
        if let llava = configuration.llava, let vision = configuration.vision {
            c.vision_hidden_size = Int32(vision.hiddenSize)
            c.vision_intermediate_size = Int32(vision.intermediateSize)
            c.vision_layers = Int32(llava.layersToRun(of: vision))
            c.vision_heads = Int32(vision.numAttentionHeads)
            // Other towers than CLIP's are frozen, and the engine computes their features.
            c.image_size = vision.architecture == .clip ? Int32(vision.imageSize) : 0
            c.feature_rows = Int32(vision.patches)
            c.patch_size = Int32(vision.patchSize)
            c.vision_epsilon = vision.layerNormEpsilon
            let activations: [Activation: Int] = [.quickGELU: AT_QUICK_GELU, .gelu: AT_GELU, .geluTanh: AT_GELU_TANH]
            c.vision_activation = Int32(activations[vision.activation] ?? AT_GELU)
            c.keeps_class_token = llava.selectFeature == .classAndPatches ? 1 : 0
            switch llava.projector {
            case .identity: c.projector_layers = 0
            // Models with a pixel shuffle are not trained.
            case .linear, .pixelShuffle, .pixelUnshuffle: c.projector_layers = 1
            case .mlp(let layers): c.projector_layers = Int32(layers)
            }
            c.projector_bias = llava.projectorBias ? 1 : 0
        }
        if let adaptive = configuration.adaptive {
            c.scheduler = Int32(adaptive.schedulerType == .layers ? AT_SCHEDULER_LAYERS : AT_SCHEDULER_HEADS)
            c.prefix_layers = Int32(adaptive.numPrefixLayers)
            c.scheduler_rank = Int32(adaptive.schedulerRank)
        }
        c.temperature = options.temperature
        c.lora_rank = Int32(options.loraRank)
        c.lora_alpha = options.loraAlpha
        c.device = options.cudaDevice.map { Int32($0) } ?? -1
        c.bfloat16 = options.bfloat16 ? 1 : 0
        c.gradient_checkpointing = options.gradientCheckpointing ? 1 : 0
        c.workers = Int32(options.workers)
        c.threads = Int32(options.threads)
        return c
    }
}
