import AdaLLaVA
import Foundation

/// Everything a training run is told. Fields have LLaVA's names where LLaVA has them; ``RecipeFields/all`` documents each.
public struct Recipe: Sendable, Equatable {
    public enum Schedule: String, Sendable, CaseIterable {
        case cosine, linear, constant
    }

    /// Which budgets samples are trained under.
    public enum TrainBudgets: String, Sendable, CaseIterable {
        /// Uniform over whole units from the prefix to everything, as in the paper.
        case uniform
        /// Everything runs: what a model is taught first.
        case full
    }

    /// What the loss scores.
    public enum Objective: String, Sendable, CaseIterable {
        /// The next token of answers.
        case language
        /// What each patch of the image shows, by the `regions` of the data: teaches the vision tower, and lets the projector put features
        /// where the output matrix has the words for them.
        case regionLabels = "region_labels"
    }

    /// What a new scheduler chooses before it has learned.
    public enum SchedulerInit: String, Sendable, CaseIterable {
        case random
        /// The same for all inputs: layers from the first to the last, of each one its heads and groups from the first to the last.
        case frontToBack = "front_to_back"
    }

    public enum WeightType: String, Sendable, CaseIterable {
        case float32, bfloat16

        var elementType: ElementType { self == .float32 ? .f32 : .bf16 }
    }

    // What is trained.
    public var modelNameOrPath = ""
    public var fromScratch = false
    public var initializerRange = 0.02
    public var mimeticAttention = false
    public var numHiddenLayers: Int?
    public var schedulerType: AdaptiveConfiguration.SchedulerType?
    public var schedulerRank: Int?
    public var schedulerInit = SchedulerInit.random
    public var schedulerInitScale = 1.0
    public var numPrefixLayers: Int?
    public var tokenSelecting = "none"
    public var tau = 5.0
    public var gumbelNoise = 1.0
    public var gumbelNoiseEnd: Double?
    public var planBalanceWeight = 0.0
    public var planRankingWeight = 0.0
    public var trainBudgets = TrainBudgets.uniform
    public var floorShare = 0.0
    public var fullShare = 0.0
    public var objective = Objective.language
    public var freezeBackbone = false
    public var freezeLayers = 0
    public var tuneMMMLPAdapter = false
    public var unfreezeMMVisionTower = false

    // Data.
    public var dataPath: [String] = []
    public var imageFolder = ""
    public var version = "v1"
    public var imageAspectRatio: String?
    public var modelMaxLength = 2048
    public var independentTurns = false
    public var sharedPlan = false
    public var packByTask = false
    public var groupByModalityLength = false
    public var skipBadSamples = false
    public var dataloaderNumWorkers = 1
    public var featuresDir = ""

    // Optimization.
    public var numTrainEpochs = 1.0
    public var maxSteps = 0
    public var perDeviceTrainBatchSize = 16
    public var gradientAccumulationSteps = 1
    public var learningRate = 2e-5
    public var mmProjectorLR: Double?
    public var mmVisionTowerLR: Double?
    public var schedulerLR: Double?
    public var weightDecay = 0.0
    public var warmupRatio = 0.03
    public var lrSchedulerType = Schedule.cosine
    public var adamBeta1 = 0.9
    public var adamBeta2 = 0.999
    public var adamEpsilon = 1e-8
    public var maxGradNorm = 1.0
    public var loraR = 0
    public var loraAlpha = 16.0
    public var loraTargets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    public var distillWeight = 0.0
    public var distillTemperature = 1.0
    public var regionNamingWeight = 0.0
    public var seed = 42

    // Computing.
    public var device = "auto"
    public var bf16 = false
    public var gradientCheckpointing = false
    public var cpuWorkers = 0
    public var torchThreads = 1
    public var microBatchSize = 0

    // Output.
    public var outputDir = ""
    public var saveSteps = 500
    public var saveTotalLimit = 2
    public var saveDtype = WeightType.float32
    public var loggingSteps = 1
    public var resume = true

    public init() {}

    /// What the Gumbel noise is multiplied by in a step: it changes evenly from `gumbelNoise` to `gumbelNoiseEnd`.
    /// - Parameter step: from 0.
    public func noise(step: Int, of total: Int) -> Double {
        guard let end = gumbelNoiseEnd, total > 1 else { return gumbelNoise }
        return gumbelNoise + (end - gumbelNoise) * Double(min(step, total - 1)) / Double(total - 1)
    }

    /// Samples that one process takes in one step.
    public var samplesPerProcess: Int { perDeviceTrainBatchSize * gradientAccumulationSteps }
}
