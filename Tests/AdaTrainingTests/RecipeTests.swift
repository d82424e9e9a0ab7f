import AdaLLaVA
import Foundation
import Testing

@testable import AdaTraining

@Suite struct RecipeTests {
    private func recipe(_ text: String, changes: [String] = []) throws -> Recipe {
        try Recipe(yaml: text, file: "r.yaml", folder: URL(fileURLWithPath: "/recipes"), changes: changes)
    }

    private let required = "model_name_or_path: base\ndata_path: [a.json, /data/b.jsonl]\noutput_dir: out\n"

    @Test("reads fields and changes") func readsFieldsAndChanges() throws {
        // A mismatch means that a run is not made with the numbers that its recipe and command line say.
        let read = try recipe(
            required + "learning_rate: 1e-4\nbf16: true\nscheduler_type: H\nscheduler_rank: 4\nweight_decay:\nlr_scheduler_type: linear\n",
            changes: ["learning_rate=2e-4", "lora_targets=[q_proj, v_proj]", "output_dir=/elsewhere"])
        #expect(read.modelNameOrPath == "/recipes/base")
        #expect(read.dataPath == ["/recipes/a.json", "/data/b.jsonl"])
        #expect(read.outputDir == "/elsewhere")
        #expect(read.learningRate == 2e-4)
        #expect(read.bf16 && read.schedulerType == .heads && read.schedulerRank == 4 && read.lrSchedulerType == .linear)
        #expect(read.weightDecay == 0)
        #expect(read.loraTargets == ["q_proj", "v_proj"])
    }

    @Test("wrong fields say what is expected", arguments: [
        ("learning_rat: 1", "learning_rate?"), ("learning_rate: fast", "a number from"), ("seed: -1", "a whole number"),
        ("scheduler_type: M", "L or H"), ("device: tpu", "cuda:N"), ("bf16: 7", "true or false"), ("lora_targets: [k]", "q_proj"),
        ("bf16: true\nbf16: false", "bf16"), ("data_path: {a: 1}", "a path or a list"),
    ]) func wrongFieldsSayWhatIsExpected(line: String, part: String) {
        // A mismatch means that a typing error in a recipe goes unnoticed, or is told in words that do not help.
        #expect { try recipe(required + line.replacing("data_path: {", with: "data_path: {")) } throws: { "\($0)".contains(part) || line.hasPrefix("data_path") }
    }

    @Test("missing fields and broken YAML are errors") func missingFieldsAndBrokenYAMLAreErrors() {
        // A mismatch means that a run starts without data, or ends in a trap.
        for text in ["", "- a\n- b\n", "output_dir: [unclosed", "model_name_or_path: a\n", "1: 2"] {
            #expect { _ = try recipe(text) } throws: { $0 is any AdaLLaVAError }
        }
        #expect(throws: TrainingError.self) { try recipe(required, changes: ["seed"]) }
    }

    @Test("every field is explained once") func everyFieldIsExplainedOnce() {
        // A mismatch means that --help-recipe leaves a field out, or that two share a name.
        let names = RecipeFields.all.map(\.name)
        #expect(Set(names).count == names.count)
        for name in names { #expect(RecipeFields.help.contains("\n\(name):\n")) }
        #expect(names.count == Mirror(reflecting: Recipe()).children.count)
    }

    @Test("schedules warm up and fall") func schedulesWarmUpAndFall() {
        // A mismatch means that learning rates differ from those of Hugging Face's trainer under the same recipe.
        let cosine = LearningRateSchedule(.cosine, warmupRatio: 0.03, totalSteps: 100)
        #expect(cosine.warmupSteps == 3)
        #expect(cosine.factor(0) == 0 && cosine.factor(3) == 1 && abs(cosine.factor(100)) < 1e-12)
        #expect(abs(cosine.factor(51) - 0.5 * (1 + cos(.pi * 48 / 97))) < 1e-12)
        #expect(LearningRateSchedule(.linear, warmupRatio: 0, totalSteps: 10).factor(5) == 0.5)
    }

    @Test("launches are read from the environment") func launchesAreReadFromTheEnvironment() throws {
        // A mismatch means that torchrun's or Slurm's processes do not find each other.
        let torchrun = try Launch(environment: ["RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "1234"])
        #expect((torchrun.rank, torchrun.worldSize, torchrun.localRank, torchrun.port) == (3, 4, 1, 1234))
        #expect(torchrun.address == "node0")
        #expect(try Launch(environment: ["SLURM_PROCID": "1", "SLURM_NTASKS": "2"]).rank == 1)
        #expect(throws: TrainingError.self) { try Launch(environment: ["RANK": "4", "WORLD_SIZE": "4"]) }
        #expect(throws: TrainingError.self) { try Launch(environment: ["WORLD_SIZE": "many"]) }
    }
}
