import AdaLLaVA
import Foundation

/// All settings of a training run. Fields have LLaVA's names where LLaVA has them; ``RecipeFields/all`` documents each.
package struct Recipe: Sendable, Equatable {
    package enum Schedule: String, Sendable, CaseIterable {
        case cosine, linear, constant
    }

    /// Which budgets samples are trained under.
    package enum TrainBudgets: String, Sendable, CaseIterable {
        /// Uniform over whole units from the prefix to everything, as in the paper.
        case uniform
        /// All layers run: the first stage of training.
        case full
    }

    /// The targets of the loss.
    package enum Objective: String, Sendable, CaseIterable {
        /// The next token of answers.
        case language
        /// The content of each patch, from the `regions` of the data: trains the vision tower, and the projector to map features to the
        /// output matrix's vectors of the words for them.
        case regionLabels = "region_labels"
    }

    /// Initial choice of a new scheduler.
    package enum SchedulerInit: String, Sendable, CaseIterable {
        case random
        /// The same for all inputs: layers from the first to the last, of each one its heads and groups from the first to the last.
        case frontToBack = "front_to_back"
    }

    package enum WeightType: String, Sendable, CaseIterable {
        case float32, bfloat16

        var elementType: ElementType { self == .float32 ? .f32 : .bf16 }
    }

    // Trained parts.
    package var modelNameOrPath = ""
    package var fromScratch = false
    package var initializerRange = 0.02
    package var mimeticAttention = false
    package var numHiddenLayers: Int?
    package var schedulerType: AdaptiveConfiguration.SchedulerType?
    package var schedulerRank: Int?
    package var schedulerInit = SchedulerInit.random
    package var schedulerInitScale = 1.0
    package var numPrefixLayers: Int?
    package var tokenSelecting = "none"
    package var tau = 5.0
    package var gumbelNoise = 1.0
    package var gumbelNoiseEnd: Double?
    package var planBalanceWeight = 0.0
    package var planRankingWeight = 0.0
    package var trainBudgets = TrainBudgets.uniform
    package var floorShare = 0.0
    package var fullShare = 0.0
    package var objective = Objective.language
    package var freezeBackbone = false
    package var freezeLayers = 0
    package var tuneMMMLPAdapter = false
    package var unfreezeMMVisionTower = false

    // Data.
    package var dataPath: [String] = []
    package var imageFolder = ""
    package var version = "v1"
    package var imageAspectRatio: String?
    package var modelMaxLength = 2048
    package var independentTurns = false
    package var sharedPlan = false
    package var packByTask = false
    package var groupByModalityLength = false
    package var skipBadSamples = false
    package var dataloaderNumWorkers = 1
    package var featuresDir = ""

    // Optimization.
    package var numTrainEpochs = 1.0
    package var maxSteps = 0
    package var perDeviceTrainBatchSize = 16
    package var gradientAccumulationSteps = 1
    package var learningRate = 2e-5
    package var mmProjectorLR: Double?
    package var mmVisionTowerLR: Double?
    package var schedulerLR: Double?
    package var weightDecay = 0.0
    package var warmupRatio = 0.03
    package var lrSchedulerType = Schedule.cosine
    package var adamBeta1 = 0.9
    package var adamBeta2 = 0.999
    package var adamEpsilon = 1e-8
    package var maxGradNorm = 1.0
    package var loraR = 0
    package var loraAlpha = 16.0
    package var loraTargets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    package var distillWeight = 0.0
    package var distillTemperature = 1.0
    package var regionNamingWeight = 0.0
    package var seed = 42

    // Computing.
    package var device = "auto"
    package var bf16 = false
    package var gradientCheckpointing = false
    package var cpuWorkers = 0
    package var torchThreads = 1
    package var microBatchSize = 0

    // Output.
    package var outputDir = ""
    package var saveSteps = 500
    package var saveTotalLimit = 2
    package var saveDtype = WeightType.float32
    package var loggingSteps = 1
    package var resume = true

    package init() {}

    /// Factor of the Gumbel noise in a step; it changes linearly from `gumbelNoise` to `gumbelNoiseEnd`.
    /// - Parameter step: from 0.
    package func noise(step: Int, of total: Int) -> Double {
        guard let end = gumbelNoiseEnd, total > 1 else { return gumbelNoise }
        return gumbelNoise + (end - gumbelNoise) * Double(min(step, total - 1)) / Double(total - 1)
    }

    /// Samples that one process takes in one step.
    package var samplesPerProcess: Int { perDeviceTrainBatchSize * gradientAccumulationSteps }
}
