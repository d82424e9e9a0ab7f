import AdaLLaVA

/// An error that stops a training run.
package enum TrainingError: AdaLLaVAError, Equatable {
    /// `libAdaTorch.so` is not there, or cannot be loaded.
    case noTorch(reason: String)
    /// libtorch refused an operation.
    case torch(operation: String, reason: String)
    /// A recipe's field is unknown, missing or out of range.
    case recipe(field: String, expected: String, found: String, file: String)
    /// A sample of the data set cannot be trained on.
    case sample(id: String, index: Int, file: String, reason: String)
    /// The loss or the gradient is no longer a number.
    case notFinite(what: String, step: Int, samples: [String])
    /// A checkpoint to resume from does not belong to this run.
    case resume(folder: String, reason: String)
    /// Another run trains into the same folder.
    case inUse(folder: String)
    /// A file or folder cannot be written.
    case unwritable(path: String, reason: String)
    /// The environment of a data-parallel launch makes no sense.
    case launch(variable: String, expected: String, found: String)

    package var category: ErrorCategory {
        switch self {
        case .noTorch: .missingInput
        case .torch, .notFinite: .software
        case .recipe, .launch, .inUse: .usage
        case .sample, .resume: .badData
        case .unwritable: .inputOutput
        }
    }

    package var description: String {
        switch self {
        case .noTorch(let reason):
            """
            training needs libAdaTorch: \(reason)
            Build it with scripts/build-adatorch.sh, on Debian after: apt-get install g++ libtorch-dev libgloo-dev libopenblas0-pthread
            For CUDA, name a pip-installed PyTorch (2.6 or newer): TORCH_DIR=…/site-packages/torch scripts/build-adatorch.sh
            """
        case .torch(let operation, let reason): "\(operation): libtorch says: \(reason)"
        case .recipe(let field, let expected, let found, let file): "\(field) in \(file): expected \(expected), found \(found)"
        case .sample(let id, let index, let file, let reason):
            "sample \(index) (id \(id)) of \(file): \(reason); --skip-bad-samples leaves such samples out"
        case .notFinite(let what, let step, let samples):
            "step \(step): \(what) is not a finite number. The samples of the step: \(samples.prefix(24).joined(separator: ", "))"
                + (samples.count > 24 ? " and \(samples.count - 24) more" : "")
                + ". A lower learning_rate, a longer warm-up or bf16: false may help; the last checkpoint is untouched"
        case .resume(let folder, let reason): "\(folder): cannot resume from this checkpoint: \(reason)"
        case .inUse(let folder): "\(folder): another run trains into this folder; wait for it or name another output_dir"
        case .unwritable(let path, let reason): "\(path): cannot be written: \(reason)"
        case .launch(let variable, let expected, let found): "the environment variable \(variable): expected \(expected), found \(found)"
        }
    }
}
