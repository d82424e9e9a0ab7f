import AdaLLaVA

/// One field of a recipe: its name, its meaning, and how its value is stored in ``Recipe``.
package struct RecipeField: Sendable {
    package let name: String
    package let help: String
    /// Accepted values, for messages.
    package let expected: String
    /// Default value, for `--help-recipe`.
    package let missing: String
    let set: @Sendable (inout Recipe, RecipeValue) -> Bool
}

/// A YAML value: the text of a scalar, or a list of scalars.
enum RecipeValue: Sendable, Equatable {
    case scalar(String)
    case list([String])

    var text: String? { if case .scalar(let text) = self { text } else { nil } }
    var isNull: Bool { text.map { ["", "null", "~"].contains($0) } ?? false }
    var summary: String {
        switch self {
        case .scalar(let text): "'\(text.prefix(80))'"
        case .list(let texts): "a list of \(texts.count)"
        }
    }
}

package enum RecipeFields {
    /// Every field, in the order of ``Recipe``.
    package static let all: [RecipeField] = model + data + optimization + computing + output

    private static let model: [RecipeField] = [
        text("model_name_or_path", \.modelNameOrPath, "The folder to start from: a checkpoint, or with from_scratch only its config.json, tokenizer and vision_tower/."),
        flag("from_scratch", \.fromScratch, "Start from random weights in the shape that config.json gives."),
        number("initializer_range", \.initializerRange, 1e-6 ... 1, "Standard deviation of random weights."),
        flag("mimetic_attention", \.mimeticAttention, "Random query and key matrices of the decoder start equal, so that positions attend to similar ones at first."),
        optionalInteger("num_hidden_layers", \.numHiddenLayers, 1 ... 4096, "Layers of the decoder. Layers that the checkpoint lacks are added after its own with outputs of zero, so that they change nothing until trained (block expansion, Wu et al., LLaMA Pro, 2024). The scheduler is initialized anew, and the latency token counts the new units.", missing: "the checkpoint's"),
        RecipeField(name: "scheduler_type", help: "The scheduler switches layers (L), or attention heads and neuron groups (H).", expected: "L or H", missing: "the checkpoint's") {
            guard let type = $1.text.flatMap(AdaptiveConfiguration.SchedulerType.init) else { return false }
            $0.schedulerType = type
            return true
        },
        optionalInteger("scheduler_rank", \.schedulerRank, 1 ... 4096, "Heads, and as many neuron groups, that one unit of budget turns on (H).", missing: "the checkpoint's"),
        choice("scheduler_init", \.schedulerInit, "Initial choice of a new scheduler. random; front_to_back: the first layers first for every input, so that the decoder relies on them from the start."),
        number("scheduler_init_scale", \.schedulerInitScale, 0 ... 1e3, "Factor of front_to_back's scores. At 1 the scores of neighbouring layers differ by 1, which small learning rates hardly change; at 0.05 gradients can change the order."),
        optionalInteger("num_prefix_layers", \.numPrefixLayers, 1 ... 4096, "First layers, which always run.", missing: "the checkpoint's"),
        RecipeField(name: "token_selecting", help: "Image tokens that inference keeps; written to the checkpoint. Training keeps all.", expected: "none, prumerge or prumerge+", missing: "none") {
            guard let text = $1.text, LlavaConfiguration.TokenSelection(rawValue: text) != nil else { return false }
            $0.tokenSelecting = text
            return true
        },
        number("tau", \.tau, 1e-3 ... 1e3, "Temperature of the Gumbel-softmax."),
        number("gumbel_noise", \.gumbelNoise, 0 ... 1e3, "Factor of the Gumbel noise on the scheduler's scores. 1, as in the paper: the decoder learns to work under any plan; 0: it is trained under the plans that inference uses, and relies on them."),
        choice("objective", \.objective, "language: the next token of answers; region_labels: the content of each patch, from the data's `regions`, for tower, projector and output matrix."),
        optionalNumber("gumbel_noise_end", \.gumbelNoiseEnd, "Factor of the noise in the last step; it changes linearly from gumbel_noise. Noise at first explores plans; 0 at the end trains under the plans that inference uses.", missing: "gumbel_noise"),
        number("plan_balance_weight", \.planBalanceWeight, 0 ... 1e3, "Weight of a loss that makes plans differ between samples and each plan certain: minus the mutual information of sample and switch, over a micro-batch (micro_batch_size of 8 or more)."),
        number("plan_ranking_weight", \.planRankingWeight, 0 ... 1e3, "Weight of a loss that ranks plans: each sample also runs a second plan of its budget, drawn with noise, without a gradient, and the plan with the lower loss should have the higher scores, in proportion to the difference. Trains a scheduler before its own gradient can; the layers after the prefix run twice."),
        choice("train_budgets", \.trainBudgets, "uniform: a budget for each sample, uniform over whole units; full: all layers run."),
        number("floor_share", \.floorShare, 0 ... 1, "Fraction of the samples trained at the floor, with the prefix layers alone: the hardest budget, and only one of many under uniform budgets. With train_budgets full all other samples run all layers, so no plans are chosen and the decoder learns both extremes only."),
        number("full_share", \.fullShare, 0 ... 1, "Fraction of the remaining samples (after floor_share) that run all layers: under uniform budgets the last units run for few samples, and learn little."),
        flag("freeze_backbone", \.freezeBackbone, "Freeze the language model; projector and scheduler are trained."),
        integer("freeze_layers", \.freezeLayers, 0 ... 1000, "Freeze the first layers of the language model and everything before them: embeddings, projector and tower. With the prefix frozen, the scheduler's input stays constant while the other layers learn its plans."),
        flag("tune_mm_mlp_adapter", \.tuneMMMLPAdapter, "Train only the projector."),
        flag("unfreeze_mm_vision_tower", \.unfreezeMMVisionTower, "Train the vision tower too (CLIP towers; others stay frozen, and their features are computed once and stored in features_dir)."),
    ]

    private static let data: [RecipeField] = [
        RecipeField(name: "data_path", help: "LLaVA instruction files, JSON or JSON Lines: one path or a list.", expected: "a path or a list of paths", missing: "required") {
            switch $1 {
            case .scalar(let path) where !path.isEmpty: $0.dataPath = [path]
            case .list(let paths) where !paths.isEmpty: $0.dataPath = paths
            default: return false
            }
            return true
        },
        text("image_folder", \.imageFolder, "Folder that image paths are relative to.", missing: "each data file's folder"),
        RecipeField(name: "version", help: "The conversation template.", expected: "v1 or vicuna_v1", missing: "v1") {
            guard let text = $1.text, ["v1", "vicuna_v1"].contains(text) else { return false }
            $0.version = text
            return true
        },
        RecipeField(name: "image_aspect_ratio", help: "pad: pads an image to a square with the mean colour; square: crops its middle.", expected: "pad or square", missing: "the checkpoint's") {
            guard let text = $1.text, ["pad", "square"].contains(text) else { return false }
            $0.imageAspectRatio = text
            return true
        },
        integer("model_max_length", \.modelMaxLength, 16 ... 1 << 20, "Longer samples are truncated to this many tokens."),
        flag("independent_turns", \.independentTurns, "Train each question of a conversation as if it were the only one after its image: all in one pass with shared_plan or if no plan is chosen (train_budgets full, or a sample at the floor or the full budget), else one of them, drawn in each epoch."),
        flag("shared_plan", \.sharedPlan, "With independent_turns and random budgets: train all questions about an image in one pass, under the plan of one of them, drawn in each epoch. Cheaper; the scheduler learns more about the image than about the question."),
        flag("pack_by_task", \.packByTask, "With shared_plan: only questions with the same task as the drawn one (`tasks` of the records) are trained under its plan, so that one plan can suit all of them."),
        flag("group_by_modality_length", \.groupByModalityLength, "Form steps of samples with similar lengths, separately with and without images."),
        flag("skip_bad_samples", \.skipBadSamples, "Skip and count samples that cannot be used, instead of stopping."),
        integer("dataloader_num_workers", \.dataloaderNumWorkers, 1 ... 256, "Threads that decode images and tokenize, and compute the features of a frozen tower."),
        text("features_dir", \.featuresDir, "Folder for the features of a frozen tower, about 2 bytes per value; runs over the same images share them.", missing: "output_dir"),
    ]

    private static let optimization: [RecipeField] = [
        number("num_train_epochs", \.numTrainEpochs, 1e-6 ... 1e6, "Epochs."),
        integer("max_steps", \.maxSteps, 0 ... 1 << 40, "Number of steps; 0: num_train_epochs decides."),
        integer("per_device_train_batch_size", \.perDeviceTrainBatchSize, 1 ... 1 << 16, "Samples per batch and device."),
        integer("gradient_accumulation_steps", \.gradientAccumulationSteps, 1 ... 1 << 16, "Batches per step. The loss is the mean over all scored tokens of the step."),
        number("learning_rate", \.learningRate, 0 ... 10, "AdamW's learning rate after warm-up."),
        optionalNumber("mm_projector_lr", \.mmProjectorLR, "The projector's own learning rate."),
        optionalNumber("mm_vision_tower_lr", \.mmVisionTowerLR, "The vision tower's own learning rate."),
        optionalNumber("scheduler_lr", \.schedulerLR, "The scheduler's and latency encoder's own learning rate."),
        number("weight_decay", \.weightDecay, 0 ... 10, "AdamW's weight decay of matrices; norms and biases have none."),
        number("warmup_ratio", \.warmupRatio, 0 ... 1, "Fraction of the steps in which the learning rate rises."),
        choice("lr_scheduler_type", \.lrSchedulerType, "Decay of the learning rate after warm-up."),
        number("adam_beta1", \.adamBeta1, 0 ... 0.9999999, "AdamW's beta1."),
        number("adam_beta2", \.adamBeta2, 0 ... 0.9999999, "AdamW's beta2."),
        number("adam_epsilon", \.adamEpsilon, 1e-30 ... 1, "AdamW's epsilon."),
        number("max_grad_norm", \.maxGradNorm, 0 ... 1e12, "Gradients are clipped to this norm; 0: not clipped."),
        integer("lora_r", \.loraR, 0 ... 4096, "Rank of LoRA matrices, trained instead of the language model's own; 0: no LoRA."),
        number("lora_alpha", \.loraAlpha, 0 ... 1e6, "LoRA's product is scaled by lora_alpha / lora_r."),
        RecipeField(name: "lora_targets", help: "The linear maps that get LoRA matrices.", expected: "names such as q_proj, down_proj", missing: "all of the decoder's") {
            let names: [String] = if case .list(let names) = $1 { names } else { [$1.text ?? ""] }
            let known = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
            guard !names.isEmpty, names.allSatisfy(known.contains) else { return false }
            $0.loraTargets = names
            return true
        },
        number("distill_weight", \.distillWeight, 0 ... 1e3, "Weight of the KL divergence from the full model's predictions to those under the budget; 0: none."),
        number("distill_temperature", \.distillTemperature, 1e-3 ... 1e3, "Temperature of both in that term."),
        number("region_naming_weight", \.regionNamingWeight, 0 ... 1e3, "Objective language: weight of a loss that moves projected features towards the words that name their content, for records with `regions`; 0: none."),
        integer("seed", \.seed, 0 ... Int.max, "Seeds sample order, budgets, noise and random weights."),
    ]

    private static let computing: [RecipeField] = [
        RecipeField(name: "device", help: "Device to train on.", expected: "auto, cpu, cuda or cuda:N", missing: "auto: CUDA if there is a device") {
            guard let text = $1.text, ["auto", "cpu", "cuda"].contains(text) || text.wholeMatch(of: /cuda:\d{1,2}/) != nil else { return false }
            $0.device = text
            return true
        },
        flag("bf16", \.bf16, "Products and attention in bfloat16; weights, norms, residuals and losses stay float32."),
        flag("gradient_checkpointing", \.gradientCheckpointing, "Recompute activations in the backward pass: less memory, a third more time."),
        integer("cpu_workers", \.cpuWorkers, 0 ... 256, "Threads that each compute micro-batches of the step (CPU); 0: one per core."),
        integer("torch_threads", \.torchThreads, 1 ... 256, "libtorch threads per worker. With more than one, workers stall when another program takes a core."),
        integer("micro_batch_size", \.microBatchSize, 0 ... 1 << 16, "Samples per forward pass; 0: 8 on a CPU, per_device_train_batch_size on CUDA. Changes speed and memory, not the result."),
    ]

    private static let output: [RecipeField] = [
        text("output_dir", \.outputDir, "Folder for checkpoints, log and chart."),
        integer("save_steps", \.saveSteps, 1 ... 1 << 40, "Steps between checkpoints."),
        integer("save_total_limit", \.saveTotalLimit, 0 ... 1 << 20, "Checkpoints to keep; 0: all."),
        choice("save_dtype", \.saveDtype, "Type of the saved weights; checkpoints for resuming always have float32."),
        integer("logging_steps", \.loggingSteps, 1 ... 1 << 40, "Steps between lines of the log."),
        flag("resume", \.resume, "Resume from the newest checkpoint in output_dir, if there is one."),
    ]

    // MARK: Kinds of fields

    private typealias Path<Value> = WritableKeyPath<Recipe, Value> & Sendable

    private static func text(_ name: String, _ path: Path<String>, _ help: String, missing: String = "required") -> RecipeField {
        RecipeField(name: name, help: help, expected: "a path", missing: missing) {
            guard let text = $1.text, !text.isEmpty else { return false }
            $0[keyPath: path] = text
            return true
        }
    }

    private static func flag(_ name: String, _ path: Path<Bool>, _ help: String) -> RecipeField {
        RecipeField(name: name, help: help, expected: "true or false", missing: "\(Recipe()[keyPath: path])") {
            guard let value = ["true": true, "false": false][$1.text?.lowercased() ?? ""] else { return false }
            $0[keyPath: path] = value
            return true
        }
    }

    private static func integer(_ name: String, _ path: Path<Int>, _ range: ClosedRange<Int>, _ help: String) -> RecipeField {
        RecipeField(
            name: name, help: help, expected: "a whole number from \(range.lowerBound) to \(range.upperBound)",
            missing: "\(Recipe()[keyPath: path])"
        ) {
            guard let value = $1.text.flatMap({ Int($0) }), range.contains(value) else { return false }
            $0[keyPath: path] = value
            return true
        }
    }

    private static func optionalInteger(
        _ name: String, _ path: Path<Int?>, _ range: ClosedRange<Int>, _ help: String, missing: String
    ) -> RecipeField {
        RecipeField(name: name, help: help, expected: "a whole number from \(range.lowerBound) to \(range.upperBound)", missing: missing) {
            guard let value = $1.text.flatMap({ Int($0) }), range.contains(value) else { return false }
            $0[keyPath: path] = value
            return true
        }
    }

    private static func number(_ name: String, _ path: Path<Double>, _ range: ClosedRange<Double>, _ help: String) -> RecipeField {
        RecipeField(
            name: name, help: help, expected: "a number from \(range.lowerBound) to \(range.upperBound)", missing: "\(Recipe()[keyPath: path])"
        ) {
            guard let value = $1.text.flatMap({ Double($0) }), range.contains(value) else { return false }
            $0[keyPath: path] = value
            return true
        }
    }

    private static func optionalNumber(_ name: String, _ path: Path<Double?>, _ help: String, missing: String = "learning_rate") -> RecipeField {
        RecipeField(name: name, help: help, expected: "a number from 0 to 10", missing: missing) {
            guard let value = $1.text.flatMap({ Double($0) }), (0 ... 10).contains(value) else { return false }
            $0[keyPath: path] = value
            return true
        }
    }

    private static func choice<Value: RawRepresentable<String> & CaseIterable & Sendable>(
        _ name: String, _ path: Path<Value>, _ help: String
    ) -> RecipeField {
        let names = Value.allCases.map(\.rawValue)
        return RecipeField(name: name, help: help, expected: names.joined(separator: ", "), missing: Recipe()[keyPath: path].rawValue) {
            guard let value = $1.text.flatMap(Value.init(rawValue:)) else { return false }
            $0[keyPath: path] = value
            return true
        }
    }
}
