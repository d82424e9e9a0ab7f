import AdaLLaVA
import Foundation

#if canImport(Glibc)
    import Glibc
#endif

/// The position of a run, from which it resumes as if it had not stopped. Order, budgets and noise follow from the seed, so the number of steps
/// is the position in the data and the state of every random generator.
struct RunState: Codable, Equatable {
    /// Steps done.
    var step = 0
    var samples = 0
    var seed = 0
    /// Samples of one step, of all processes.
    var stepSize = 0
    var skippedSamples: [String] = []
    var skippedCount = 0
}

/// Checkpoints of a run: `output_dir/checkpoint-STEP`, a model that loads anywhere, with `trainer_state/` in it for resuming.
///
/// A checkpoint is written under a temporary name and renamed, so that a killed run leaves only complete checkpoints.
struct TrainingCheckpoints {
    let output: URL

    private static let stateFile = "trainer_state/state.json"
    private static let optimizerFile = "trainer_state/optimizer.safetensors"

    /// Complete checkpoints, oldest first.
    func all() -> [(step: Int, folder: URL)] {
        let names = (try? Files.names(in: output)) ?? []
        return names.compactMap { name in
            guard name.hasPrefix("checkpoint-"), let step = Int(name.dropFirst("checkpoint-".count)) else { return nil }
            let folder = output.appendingPathComponent(name)
            return Files.exists(folder.appendingPathComponent(Self.stateFile)) ? (step, folder) : nil
        }.sorted { $0.step < $1.step }
    }

    func save(_ state: RunState, _ export: ModelExport, keep limit: Int) throws -> URL {
        let folder = output.appendingPathComponent("checkpoint-\(state.step)")
        // A run that was resumed from an older checkpoint comes by here again.
        try PartialFiles.writeFolder(folder) { partial in
            try makeFolder(partial.appendingPathComponent("trainer_state"))
            try export.write(to: partial)
            try writeOptimizer(export, to: partial.appendingPathComponent(Self.optimizerFile))
            do { try Files.write(JSONText.data(state, isPretty: true), to: partial.appendingPathComponent(Self.stateFile)) } catch {
                throw TrainingError.unwritable(path: folder.path, reason: error.localizedDescription)
            }
            sync()
        }
        if limit > 0 { for old in all().dropLast(limit) { try? remove(old.folder) } }
        return folder
    }

    /// Renamed first: a partly removed folder must not look like a checkpoint.
    private func remove(_ folder: URL) throws {
        let doomed = output.appendingPathComponent("." + folder.lastPathComponent + ".old")
        try? Files.remove(doomed)
        try Files.move(folder, to: doomed)
        try Files.remove(doomed)
    }

    /// AdamW's moments of the trained parameters, and their float32 values if the weights' file has another type.
    private func writeOptimizer(_ export: ModelExport, to url: URL) throws {
        let trained = export.model.parameters.filter { export.recipe.learningRate(of: $0) > 0 }
        var parts: [(String, TorchModel.Part)] = [("first_moment.", .firstMoment), ("second_moment.", .secondMoment)]
        if export.recipe.saveDtype != .float32 || export.recipe.loraR > 0 { parts.append(("value.", .value)) }
        var origins: [String: (TorchModel.Parameter, TorchModel.Part)] = [:]
        var descriptions: [TensorDescription] = []
        for parameter in trained {
            let isHead = parameter.name.hasPrefix(TorchModel.regionHead)
            for (prefix, part) in parts + (isHead && parts.count == 2 ? [("value.", .value)] : []) {
                origins[prefix + parameter.name] = (parameter, part)
                descriptions.append(TensorDescription(name: prefix + parameter.name, type: .f32, shape: parameter.shape))
            }
        }
        try SafetensorsWriter.write(descriptions, to: url) { tensor, sink in
            guard let (parameter, part) = origins[tensor.name] else { return }
            try sink.write(try export.model.read(parameter, part))
        }
    }

    /// Reads the newest checkpoint's state into the model.
    /// - Parameter expected: the settings of this run; another data set, seed or step size is an error.
    /// - Returns: `nil` if there is no checkpoint.
    func restore(_ model: TorchModel, recipe: Recipe, expected: RunState) throws -> RunState? {
        guard let newest = all().last else { return nil }
        let folder = newest.folder
        func failure(_ reason: String) -> TrainingError { .resume(folder: folder.path, reason: reason) }
        let state: RunState
        do {
            state = try JSONDecoder().decode(RunState.self, from: Files.data(folder.appendingPathComponent(Self.stateFile)))
        } catch {
            throw failure("its state cannot be read: \(error.localizedDescription)")
        }
        for (what, found, wanted) in [
            ("samples of data", state.samples, expected.samples), ("seed", state.seed, expected.seed),
            ("samples of a step", state.stepSize, expected.stepSize),
        ] where found != wanted {
            throw failure("\(what): it was made with \(found), the recipe says \(wanted); set resume: false or name another output_dir")
        }
        let checkpoint = try Checkpoint.open(at: folder)
        let optimizer = try SafetensorsFile(contentsOf: folder.appendingPathComponent(Self.optimizerFile))
        // Frozen parameters come from the starting point, unless the checkpoint rounded them or LoRA's product was added to them.
        let trained = Set(model.parameters.filter { recipe.learningRate(of: $0) > 0 }.map(\.name))
        try model.load(checkpoint) { name in
            !trained.contains(name) || name.contains(".lora_") || name.hasPrefix(TorchModel.regionHead) || optimizer.find("value." + name) != nil
        }
        for parameter in model.parameters {
            for (prefix, part) in [("first_moment.", TorchModel.Part.firstMoment), ("second_moment.", .secondMoment), ("value.", .value)] {
                guard let tensor = optimizer.find(prefix + parameter.name) else { continue }
                guard tensor.shape == parameter.shape else { throw failure("\(prefix + parameter.name) has shape \(tensor.shape), expected \(parameter.shape)") }
                try model.write(try tensor.widened(), to: parameter, part)
            }
        }
        return state
    }
}
