import AdaImages
import AdaLLaVA
import Foundation

#if canImport(Glibc)
    import Glibc
#endif

/// Trains a model by a recipe (AdaLLaVA, Xu et al., ICCV 2025; docs/architecture.md, reference semantics).
package final class Trainer {
    /// The result of a run, and the output of `train --json`.
    package struct Summary: Codable, Sendable, Equatable {
        package var steps = 0
        package var totalSteps = 0
        package var lastLoss = 0.0
        /// The folder with the trained model, or with the last checkpoint of a run that was stopped.
        package var folder = ""
        package var wasStopped = false
        package var skippedCount = 0
        /// The first of the samples that were left out, with the reason.
        package var skippedSamples: [String] = []
        /// Damaged images that this start read as Pillow reads them. Those whose features were stored are not read again.
        package var damagedImages = 0

        enum CodingKeys: String, CodingKey {
            case steps, folder
            case totalSteps = "total_steps"
            case lastLoss = "loss"
            case wasStopped = "stopped"
            case skippedCount = "skipped_samples"
            case skippedSamples = "skipped"
            case damagedImages = "damaged_images"
        }
    }

    package let recipe: Recipe
    package let totalSteps: Int
    /// libtorch's version and the device.
    package let description: String
    private let launch: Launch
    private let source: ModelSource
    private let model: TorchModel
    private let dataset: InstructionDataset
    private let group: TorchProcessGroup?
    private let schedule: LearningRateSchedule
    private let stepsPerEpoch: Int
    private let stepSize: Int
    private let microBatch: Int
    private let output: URL
    private let lock: FolderLock?
    private let regions: RegionVocabulary?
    private let checkpoints: TrainingCheckpoints
    private let log: TrainingLog
    private var state: RunState
    private var order: (epoch: Int, order: EpochOrder)?

    /// Opens data and model, and the newest checkpoint of `output_dir` if there is one.
    /// - Throws: ``TrainingError``, ``CheckpointError``
    package init(_ recipe: Recipe, launch: Launch = Launch()) throws {
        self.recipe = recipe
        self.launch = launch
        let library = try TorchLibrary.shared()
        output = URL(systemPath: recipe.outputDir)
        try makeFolder(output)
        // The process that writes holds the lock for all of its run.
        lock = launch.rank == 0 ? try Trainer.lock(output) : nil
        source = try ModelSource(recipe)
        dataset = try InstructionDataset(
            files: recipe.dataPath.map { URL(fileURLWithPath: $0) },
            imageFolder: recipe.imageFolder.isEmpty ? nil : URL(fileURLWithPath: recipe.imageFolder))

        regions = recipe.objective == .regionLabels ? try RegionVocabulary(dataset) : nil
        var options = TorchOptions()
        options.regionClasses = regions?.slotClasses ?? []
        options.cudaDevice = try Trainer.device(recipe, launch, library)
        options.bfloat16 = recipe.bf16
        options.gradientCheckpointing = recipe.gradientCheckpointing
        options.workers = recipe.cpuWorkers > 0 ? recipe.cpuWorkers : max(1, ProcessInfo.processInfo.activeProcessorCount / launch.worldSize)
        options.threads = recipe.torchThreads
        options.temperature = Float(recipe.tau)
        options.loraRank = recipe.loraR
        options.loraAlpha = Float(recipe.loraAlpha)
        options.loraTargets = recipe.loraTargets
        model = try source.makeModel(options, recipe: recipe, library: library)
        group = launch.worldSize > 1 ? try TorchProcessGroup(launch, cudaDevice: options.cudaDevice, library: library) : nil
        description = library.summary + (options.cudaDevice.map { ", device cuda:\($0)" } ?? ", \(options.workers) workers on the CPU")

        stepSize = recipe.samplesPerProcess * launch.worldSize
        stepsPerEpoch = (dataset.count + stepSize - 1) / stepSize
        totalSteps = recipe.maxSteps > 0 ? recipe.maxSteps : max(1, Int((recipe.numTrainEpochs * Double(stepsPerEpoch)).rounded(.up)))
        schedule = LearningRateSchedule(recipe.lrSchedulerType, warmupRatio: recipe.warmupRatio, totalSteps: totalSteps)
        let standard = options.cudaDevice == nil ? min(8, recipe.perDeviceTrainBatchSize) : recipe.perDeviceTrainBatchSize
        microBatch = recipe.microBatchSize > 0 ? recipe.microBatchSize : standard

        checkpoints = TrainingCheckpoints(output: output)
        log = TrainingLog(url: output.appendingPathComponent("training_log.jsonl"))
        state = RunState(samples: dataset.count, seed: recipe.seed, stepSize: stepSize)
        if recipe.resume, let restored = try checkpoints.restore(model, recipe: recipe, expected: state) { state = restored }
        try group?.broadcast(model)
    }

    private static func lock(_ folder: URL) throws -> FolderLock {
        do {
            if let lock = try FolderLock(folder) { return lock }
        } catch {
            throw TrainingError.unwritable(path: folder.path, reason: error.localizedDescription)
        }
        throw TrainingError.inUse(folder: folder.path)
    }

    private static func device(_ recipe: Recipe, _ launch: Launch, _ library: TorchLibrary) throws -> Int? {
        switch recipe.device {
        case "cpu": return nil
        case "auto": return library.cudaDevices > 0 ? launch.localRank % library.cudaDevices : nil
        case let named:
            let number = named.split(separator: ":").dropFirst().first.flatMap { Int($0) } ?? launch.localRank
            guard number < library.cudaDevices else {
                throw TrainingError.recipe(
                    field: "device", expected: "a CUDA device below \(library.cudaDevices), which is what \(library.summary) sees",
                    found: named, file: "the recipe")
            }
            return number
        }
    }

    /// Steps before the first of a resumed run.
    package var startStep: Int { state.step }

    /// Trains until the last step, or until `isCancelled` says so; saves first then.
    /// - Parameters:
    ///   - isCancelled: asked after each step.
    ///   - damaged: collects damaged images that were read anyway; called on the threads that read them.
    ///   - onProgress: called after each logged step, by one process of several.
    /// - Throws: ``TrainingError``, ``CheckpointError``
    package func run(
        isCancelled: () -> Bool = { false }, damaged: DamagedImages = DamagedImages(), onProgress: (TrainingProgress) -> Void = { _ in }
    ) throws -> Summary {
        if launch.rank == 0 { try log.truncate(after: state.step) }
        let loader = SampleLoader(try makeBuilder(damaged), workers: recipe.dataloaderNumWorkers, request: makeRequests())
        defer { loader.cancel() }
        var clock = StepClock(start: state.step, total: totalSteps)
        var summary = Summary(totalSteps: totalSteps)
        var savedStep = state.step
        while state.step < totalSteps {
            var progress = try step(loader)
            let stop = try agree(isCancelled())
            clock.tick(&progress)
            summary.lastLoss = progress.loss
            if launch.rank == 0, state.step % recipe.loggingSteps == 0 || state.step == totalSteps || stop {
                try log.append(progress)
                onProgress(progress)
            }
            if state.step % recipe.saveSteps == 0 || stop || state.step == totalSteps {
                savedStep = state.step
                try save(&summary)
            }
            if stop {
                summary.wasStopped = state.step < totalSteps
                break
            }
        }
        if launch.rank == 0 {
            try Files.write(Data(LossChart.svg(log.read()).utf8), to: output.appendingPathComponent("training_loss.svg"))
            if !summary.wasStopped {
                if savedStep != state.step { try save(&summary) }
                try export.write(to: output)
                summary.folder = output.path
            }
        }
        summary.steps = state.step
        summary.skippedCount = state.skippedCount
        summary.skippedSamples = state.skippedSamples
        summary.damagedImages = damaged.count
        return summary
    }

    private var export: ModelExport { ModelExport(source: source, model: model, recipe: recipe) }

    private func save(_ summary: inout Summary) throws {
        guard launch.rank == 0 else { return }
        summary.folder = try checkpoints.save(state, export, keep: recipe.saveTotalLimit).path
    }

    /// Whether any process was asked to stop: all stop at the same step.
    private func agree(_ stop: Bool) throws -> Bool {
        guard let group else { return stop }
        return try group.sum([stop ? 1 : 0])[0] > 0
    }

    private func makeBuilder(_ damaged: DamagedImages) throws -> SampleBuilder {
        let features = recipe.featuresDir.isEmpty ? output : URL(fileURLWithPath: recipe.featuresDir, isDirectory: true)
        try makeFolder(features)
        return SampleBuilder(
            dataset: dataset, tokenizer: source.tokenizer,
            assembly: SampleAssembly(
                rowsPerImage: source.rowsPerImage, adaptive: source.configuration.adaptive != nil, maximumLength: recipe.modelMaxLength),
            imageProcessor: try source.makeImageProcessor(), aspect: source.imageAspect,
            units: source.units, budgets: recipe.trainBudgets, seed: UInt64(recipe.seed), regions: regions,
            frozenTower: try source.makeFrozenTower(folder: features, workers: recipe.dataloaderNumWorkers),
            floorShare: recipe.floorShare, fullShare: recipe.fullShare, independentTurns: recipe.independentTurns, sharesPlan: recipe.sharedPlan, packsByTask: recipe.packByTask,
            namesRegions: recipe.objective == .language && recipe.regionNamingWeight > 0, damaged: damaged)
    }

    /// The samples of this process in each step.
    private func makeRequests() -> (Int) -> SampleLoader.Request? {
        { [self] step in
            guard step < totalSteps else { return nil }
            let epoch = step / stepsPerEpoch
            if order?.epoch != epoch { order = (epoch, makeOrder(epoch)) }
            let numbers = order?.order.samples(step: step % stepsPerEpoch, stepSize: stepSize, rank: launch.rank, worldSize: launch.worldSize)
            return SampleLoader.Request(epoch: epoch, numbers: numbers ?? [])
        }
    }

    private func makeOrder(_ epoch: Int) -> EpochOrder {
        let seed = UInt64(recipe.seed)
        guard recipe.groupByModalityLength else { return EpochOrder(count: dataset.count, seed: seed, epoch: epoch) }
        return EpochOrder(lengths: (0 ..< dataset.count).map(dataset.length), stepSize: stepSize, seed: seed, epoch: epoch)
    }

    /// One optimizer step.
    private func step(_ loader: SampleLoader) throws -> TrainingProgress {
        let loaded = loader.load(state.step)
        for failure in loaded.failures {
            guard recipe.skipBadSamples else { throw failure }
            state.skippedCount += 1
            if state.skippedSamples.count < 20 { state.skippedSamples.append("\(failure)") }
        }
        // Neighbours of like length waste the least on padding; several questions at the least budget together skip all that is optional.
        func place(_ sample: TrainingSample) -> (Int, Int, String) {
            (sample.units == 0 && !sample.branches.isEmpty ? 1 : 0, sample.tokens.count, sample.name)
        }
        let samples = loaded.samples.sorted { place($0) < place($1) }
        let batches = stride(from: 0, to: samples.count, by: microBatch).map { first in
            TorchBatch(Array(samples[first ..< min(first + microBatch, samples.count)]))
        }
        var scored = batches.reduce(0) { $0 + $1.scored }
        var named = batches.reduce(0) { $0 + $1.named }
        if let group {
            let sums = try group.sum([Double(scored), Double(named)])
            (scored, named) = (Int(sums[0]), Int(sums[1]))
        }
        let rate = schedule.factor(state.step)
        state.step += 1
        var progress = TrainingProgress(
            step: state.step, totalSteps: totalSteps, epoch: Double(state.step) / Double(stepsPerEpoch),
            learningRate: rate * recipe.learningRate, memoryBytes: model.peakDeviceMemory ?? peakMemory(),
            skippedSamples: state.skippedCount)
        // All samples of the step were skipped.
        guard scored > 0 else { return progress }
        var options = TorchModel.StepOptions(scored: scored)
        options.distillWeight = Float(recipe.distillWeight)
        options.distillTemperature = Float(recipe.distillTemperature)
        (options.named, options.namingWeight) = (named, Float(recipe.regionNamingWeight))
        options.gumbelNoise = Float(recipe.noise(step: state.step - 1, of: totalSteps))
        (options.balanceWeight, options.rankingWeight) = (Float(recipe.planBalanceWeight), Float(recipe.planRankingWeight))
        var counts = [Int64](repeating: 0, count: 2 * ((regions?.slotClasses.count ?? 0) + 1))
        let results = try counts.withUnsafeMutableBufferPointer { try model.accumulate(batches, options, regionCounts: $0.baseAddress) }
        var sums = [
            results.reduce(0) { $0 + $1.lossSum }, results.reduce(0) { $0 + $1.distillSum }, Double(samples.count),
            Double(samples.reduce(0) { $0 + $1.tokens.count }), results.reduce(0) { $0 + $1.namingSum },
        ] + counts.map(Double.init)
        if let group { sums = try group.sum(sums) }
        func finite(_ value: Double, _ what: String) throws {
            guard !value.isFinite else { return }
            throw TrainingError.notFinite(what: what, step: state.step, samples: samples.map(\.name))
        }
        try finite(sums[0], "the loss")
        var update = TorchModel.UpdateOptions()
        update.learningRateScale = rate
        (update.beta1, update.beta2, update.epsilon) = (recipe.adamBeta1, recipe.adamBeta2, recipe.adamEpsilon)
        update.maxGradNorm = recipe.maxGradNorm
        update.step = state.step
        progress.gradNorm = try model.update(update, group: group)
        try finite(progress.gradNorm, "the gradient's norm")
        progress.loss = sums[0] / Double(scored)
        progress.recognized = regions?.shares(sums.dropFirst(5).map { $0 })
        if regions == nil, named > 0 {
            progress.recognized = ["name": sums[6] / Double(named)]
            progress.naming = sums[4] / Double(named)
        }
        if recipe.distillWeight > 0 { progress.distillation = sums[1] / Double(scored) }
        (progress.samplesPerSecond, progress.tokensPerSecond) = (sums[2], sums[3])
        return progress
    }
}

/// Turns counts of steps into speeds and the time left.
private struct StepClock {
    let total: Int
    private var last = ContinuousClock.now
    private var done = 0
    private var elapsed = 0.0

    init(start: Int, total: Int) { self.total = total }

    /// - Parameter progress: comes with the step's samples and tokens as its speeds.
    mutating func tick(_ progress: inout TrainingProgress) {
        let now = ContinuousClock.now
        let seconds = max((now - last) / .seconds(1), 1e-9)
        last = now
        // The first step also waits for the first images.
        if done > 0 || total == progress.step { elapsed += seconds }
        done += 1
        progress.samplesPerSecond /= seconds
        progress.tokensPerSecond /= seconds
        progress.secondsLeft = done > 1 ? elapsed / Double(done - 1) * Double(total - progress.step) : seconds * Double(total - progress.step)
    }
}

/// Memory that the process has used at most, in bytes.
private func peakMemory() -> Int {
    var usage = rusage()
    #if canImport(Glibc)
        let status = getrusage(Int32(RUSAGE_SELF.rawValue), &usage)
        let unit = 1024
    #else
        let status = getrusage(RUSAGE_SELF, &usage)
        let unit = 1
    #endif
    return status == 0 ? Int(usage.ru_maxrss) * unit : 0
}
