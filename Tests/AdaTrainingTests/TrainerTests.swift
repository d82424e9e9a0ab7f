import AdaImages
import AdaLLaVA
import Foundation
import Testing

@testable import AdaTraining

@Suite(.needsTorch) struct TrainerTests {
    private func losses(_ run: SmallRun) -> [Double] {
        TrainingLog(url: URL(fileURLWithPath: run.recipe.outputDir).appendingPathComponent("training_log.jsonl")).read().map(\.loss)
    }

    @Test("training learns and saves what the engine loads") func trainingLearnsAndSavesWhatTheEngineLoads() async throws {
        // A mismatch means that a run ends with a model that has not learned its samples, or that `ask` cannot load.
        var run = try SmallRun()
        run.recipe.maxSteps = 24
        run.recipe.learningRate = 1e-3
        run.recipe.warmupRatio = 0.1
        run.recipe.trainBudgets = .full
        run.recipe.unfreezeMMVisionTower = true
        let summary = try Trainer(run.recipe).run()
        #expect(summary.steps == 24 && !summary.wasStopped)
        let losses = losses(run)
        #expect(losses.count == 24)
        #expect(try #require(losses.last) < 0.2 * #require(losses.first))

        let model = try await AdaptiveModel(contentsOf: URL(fileURLWithPath: summary.folder))
        let image = try RGBImage(contentsOf: run.recipe.imageFolder + "/01.png")
        let answer = try await model.answer("What is on the left?", images: [image], budget: .full).whole().text
        #expect(answer == "three")
        let chart = URL(fileURLWithPath: run.recipe.outputDir).appendingPathComponent("training_loss.svg")
        #expect(try String(contentsOf: chart, encoding: .utf8).hasSuffix("</svg>\n"))
    }

    @Test("two runs do not share a folder") func twoRunsDoNotShareAFolder() throws {
        // A failure means that two runs write each other's checkpoints.
        var run = try SmallRun()
        run.recipe.maxSteps = 1
        let first = try Trainer(run.recipe)
        #expect(throws: TrainingError.inUse(folder: run.recipe.outputDir)) { try Trainer(run.recipe) }
        _ = try first.run()
    }

    @Test("a run that was stopped goes on with the same losses", arguments: [false, true]) func aRunThatWasStoppedGoesOnWithTheSameLosses(lora: Bool) throws {
        // A mismatch means that a checkpoint misses something: weights, optimizer, order, budgets or noise.
        var whole = try SmallRun()
        whole.recipe.perDeviceTrainBatchSize = 2
        whole.recipe.maxSteps = 7
        whole.recipe.learningRate = 1e-3
        whole.recipe.saveDtype = .bfloat16
        if lora { (whole.recipe.loraR, whole.recipe.loraTargets) = (4, ["q_proj", "down_proj"]) }
        _ = try Trainer(whole.recipe).run()

        var stopped = try SmallRun()
        stopped.recipe = whole.recipe
        stopped.recipe.outputDir = stopped.folder.url.appendingPathComponent("out").path
        var asked = 0
        let first = try Trainer(stopped.recipe).run(isCancelled: {
            asked += 1
            return asked == 3
        })
        #expect(first.wasStopped && first.steps == 3)
        let second = try Trainer(stopped.recipe)
        #expect(second.startStep == 3)
        #expect(try second.run().steps == 7)
        #expect(losses(stopped) == losses(whole))
        #expect(losses(whole).count == 7)
    }

    @Test("a killed run goes on with the same losses") func aKilledRunGoesOnWithTheSameLosses() throws {
        // A mismatch means that a power cut costs more than the steps since the last checkpoint.
        let executable = Bundle.main.bundleURL.deletingLastPathComponent().appendingPathComponent("adallava")
        let candidates = [executable, URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().appendingPathComponent("adallava")]
        let found = try #require(candidates.first { FileManager.default.isExecutableFile(atPath: $0.path) })
        func command(_ run: SmallRun) throws -> Process {
            let recipe = try run.folder.write(
                """
                model_name_or_path: \(run.recipe.modelNameOrPath)
                data_path: \(run.recipe.dataPath[0])
                image_folder: \(run.recipe.imageFolder)
                output_dir: \(run.recipe.outputDir)
                per_device_train_batch_size: 2
                max_steps: 30
                save_steps: 4
                learning_rate: 1e-3
                cpu_workers: 1
                device: cpu
                """, to: "r.yaml")
            let process = Process()
            process.executableURL = found
            process.arguments = ["train", recipe.path]
            process.environment = ProcessInfo.processInfo.environment.merging(["ADATORCH_LIBRARY": try #require(torch).path]) { $1 }
            process.standardError = FileHandle.nullDevice
            return process
        }
        let (whole, killed) = (try SmallRun(), try SmallRun())
        let process = try command(whole)
        try process.run()
        process.waitUntilExit()
        #expect(process.terminationStatus == 0)

        let victim = try command(killed)
        try victim.run()
        while losses(killed).count < 10, victim.isRunning { usleep(5000) }
        kill(victim.processIdentifier, SIGKILL)
        victim.waitUntilExit()
        try #require(losses(killed).count < 30)
        let again = try command(killed)
        try again.run()
        again.waitUntilExit()
        #expect(again.terminationStatus == 0)
        #expect(losses(killed) == losses(whole))
        #expect(losses(whole).count == 30)
        let kept = TrainingCheckpoints(output: URL(fileURLWithPath: killed.recipe.outputDir)).all().map(\.step)
        #expect(kept == [28, 30])
    }

    @Test("a plain model gets a scheduler from scratch") func aPlainModelGetsASchedulerFromScratch() throws {
        // A mismatch means that a model cannot be made adaptive, or made from nothing, by its recipe alone.
        var run = try SmallRun()
        run.recipe.fromScratch = true
        run.recipe.schedulerType = .heads
        run.recipe.schedulerRank = 2
        run.recipe.numPrefixLayers = 2
        run.recipe.maxSteps = 2
        run.recipe.distillWeight = 0.5
        run.recipe.gradientCheckpointing = true
        let summary = try Trainer(run.recipe).run()
        let saved = try Checkpoint.open(at: URL(fileURLWithPath: summary.folder))
        #expect(saved.configuration.adaptive == AdaptiveConfiguration(schedulerType: .heads, schedulerRank: 2, numPrefixLayers: 2))
        #expect(try saved.language.tensor("scheduler.mlp_head.weight").shape == [6 * 12, 192])
        #expect(saved.vision?.find("vision_model.encoder.layers.4.mlp.fc1.weight") != nil)
        // Near the loss of guessing among 768 tokens.
        let first = try #require(losses(run).first)
        #expect(abs(first - log(768)) < 0.5)
    }

    @Test("bad samples stop or are counted") func badSamplesStopOrAreCounted() throws {
        // A mismatch means that a missing image goes unnoticed, or ends a run that was told to go on without it.
        var run = try SmallRun()
        let data = SmallRun.samples(["a", "b", "c", "d"]).replacing("02.png", with: "gone.png")
        run.recipe.dataPath = [try run.folder.write(data, to: "data.json").path]
        run.recipe.maxSteps = 2
        #expect { try Trainer(run.recipe).run() } throws: { "\($0)".contains("id s2") && "\($0)".contains("gone.png") }
        run.recipe.skipBadSamples = true
        run.recipe.outputDir += "2"
        let summary = try Trainer(run.recipe).run()
        #expect(summary.skippedCount == 2 && summary.skippedSamples.allSatisfy { $0.contains("gone.png") })
    }

    @Test("an overflow stops the run and names the step") func anOverflowStopsTheRunAndNamesTheStep() throws {
        // A mismatch means that a run goes on with weights that are not numbers, and overwrites good checkpoints.
        var run = try SmallRun()
        run.recipe.maxSteps = 30
        run.recipe.learningRate = 10
        run.recipe.adamBeta1 = 0
        run.recipe.warmupRatio = 0
        run.recipe.maxGradNorm = 0
        run.recipe.initializerRange = 1
        run.recipe.fromScratch = true
        run.recipe.weightDecay = 10
        #expect { try Trainer(run.recipe).run() } throws: {
            guard case .notFinite(_, let step, let samples) = $0 as? TrainingError else { return false }
            return step > 0 && samples.count == 4
        }
    }

    @Test("another data set does not resume") func anotherDataSetDoesNotResume() throws {
        // A mismatch means that a run goes on with another order than it was begun with.
        var run = try SmallRun()
        run.recipe.maxSteps = 1
        _ = try Trainer(run.recipe).run()
        run.recipe.seed = 43
        #expect(throws: TrainingError.self) { try Trainer(run.recipe) }
        run.recipe.resume = false
        #expect(try Trainer(run.recipe).startStep == 0)
    }

    @Test("two processes give the gradients of one") func twoProcessesGiveTheGradientsOfOne() throws {
        // A mismatch means that data-parallel training learns something else than one process with the larger batch.
        let library = try #require(torch)
        let results = Results()
        let threads = (0 ..< 2).map { rank in
            Thread {
                results.add(rank, Result {
                    var launch = Launch()
                    (launch.rank, launch.worldSize, launch.port) = (rank, 2, 29611)
                    let group = try TorchProcessGroup(launch, cudaDevice: nil, library: library, timeout: .seconds(60))
                    let step = try RecordedStep("H")
                    try group.broadcast(step.model)
                    let batch = try step.batch(rank ..< rank + 1)
                    let scored = Int(try group.sum([Double(batch.scored)])[0])
                    _ = try step.model.accumulate([batch], TorchModel.StepOptions(scored: scored))
                    try group.sumGradients(of: step.model)
                    try step.expectRecordedGradients()
                    return scored
                })
            }
        }
        for thread in threads { thread.start() }
        results.wait()
        for result in results.all { #expect(try result.get() == 34) }
    }

    private final class Results: @unchecked Sendable {
        private let condition = NSCondition()
        private(set) var all: [Result<Int, any Error>] = []

        func add(_ rank: Int, _ result: Result<Int, any Error>) {
            condition.lock()
            all.append(result)
            condition.broadcast()
            condition.unlock()
        }

        func wait() {
            condition.lock()
            while all.count < 2 { condition.wait() }
            condition.unlock()
        }
    }
}
