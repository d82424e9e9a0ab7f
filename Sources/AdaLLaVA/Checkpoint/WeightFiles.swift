import Foundation

/// What lies at a path.
package enum FileKind: Equatable {
    case nothing, file, folder

    package init(_ url: URL) {
        self = Files.status(url).map { $0.st_mode & S_IFMT == S_IFDIR ? .folder : .file } ?? .nothing
    }
}

/// Finds the weights of a folder in Hugging Face's layout.
enum WeightFiles {
    /// Opens `model.safetensors`, the shards of `model.safetensors.index.json`, or the folder's only `.safetensors` file, in this
    /// order.
    /// - Returns: the tensors, and the number of files that hold them.
    /// - Throws: ``CheckpointError``; for a folder with PyTorch's pickled weights the error says how to convert them.
    static func open(in folder: URL) throws -> (tensors: any TensorSource, files: Int) {
        let single = folder.appendingPathComponent("model.safetensors")
        if FileKind(single) == .file { return (try SafetensorsFile(contentsOf: single), 1) }
        let index = folder.appendingPathComponent("model.safetensors.index.json")
        if FileKind(index) == .file {
            let shards = try ShardedSafetensors(index: index)
            return (shards, shards.shards.count)
        }
        let names = try names(in: folder)
        let candidates = names.filter { $0.hasSuffix(".safetensors") }
        if candidates.count > 1 {
            throw CheckpointError.missing(
                file: index.path,
                needed:
                    "the folder has several .safetensors files (\(candidates.prefix(4).joined(separator: ", "))), so an index must join them"
            )
        }
        if let candidate = candidates.first { return (try SafetensorsFile(contentsOf: folder.appendingPathComponent(candidate)), 1) }
        if names.contains(where: isPyTorch) { throw pyTorchUnsupported(folder) }
        throw CheckpointError.missing(file: single.path, needed: "the weights of the checkpoint")
    }

    /// The names of the files in a folder, sorted, hidden ones left out.
    static func names(in folder: URL) throws -> [String] {
        do {
            return try Files.names(in: folder).filter { !$0.hasPrefix(".") }
        } catch {
            throw CheckpointError.unreadable(file: folder.path, reason: "the folder cannot be listed")
        }
    }

    static func isPyTorch(_ name: String) -> Bool {
        (name.hasPrefix("pytorch_model") && name.contains(".bin")) || name.hasSuffix(".pth") || name.hasSuffix(".pt")
            || name.hasSuffix(".bin")
    }

    static func pyTorchUnsupported(_ url: URL) -> CheckpointError {
        .unsupported(
            what: "pickled PyTorch weights (.bin, .pth)", file: url.path,
            hint: "convert them once in Python: load the model with transformers and call save_pretrained(folder, safe_serialization=True)")
    }
}
