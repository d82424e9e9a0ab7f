import Foundation

/// Whether a path has a file or a folder.
package enum FileKind: Equatable {
    case nothing, file, folder

    package init(_ url: URL) {
        self = Files.status(url).map { $0.st_mode & S_IFMT == S_IFDIR ? .folder : .file } ?? .nothing
    }
}

/// Finds the weights of a folder in Hugging Face's layout.
enum WeightFiles {
    /// The weights of a folder.
    struct Weights {
        var tensors: any TensorSource
        /// The number of files that hold them.
        var files = 1
        /// The name of the files' format for people.
        var format = "safetensors"
    }

    /// The file of a budget head from `adallava auto fit`: next to the weights, which it does not change.
    static let budgetHead = "budget_head.safetensors"

    /// Opens the weights of a folder and, if there, its budget head: see ``openWeights(in:)``.
    /// - Throws: ``CheckpointError``
    static func open(in folder: URL) throws -> Weights { try withBudgetHead(openWeights(in: folder), in: folder) }

    /// Weights with the budget head of their folder.
    static func withBudgetHead(_ weights: Weights, in folder: URL) throws -> Weights {
        let url = folder.appendingPathComponent(budgetHead)
        guard FileKind(url) == .file else { return weights }
        var joined = weights
        joined.tensors = JoinedTensors(weights.tensors, try SafetensorsFile(contentsOf: url))
        return joined
    }

    /// Opens `model.safetensors`, the shards of `model.safetensors.index.json`, the folder's only `.safetensors` file, `pytorch_model.bin`, or the shards
    /// of `pytorch_model.bin.index.json`, in this order. Of PyTorch's pickles nothing is executed: see ``TorchPickle``.
    /// - Throws: ``CheckpointError``
    private static func openWeights(in folder: URL) throws -> Weights {
        func file(_ name: String) -> URL? {
            let url = folder.appendingPathComponent(name)
            return FileKind(url) == .file ? url : nil
        }
        if let single = file("model.safetensors") { return Weights(tensors: try SafetensorsFile(contentsOf: single)) }
        let index = "model.safetensors.index.json"
        if let index = file(index) {
            let shards = try ShardedTensors(index: index)
            return Weights(tensors: shards, files: shards.shards.count)
        }
        let candidates = try names(in: folder).filter { $0.hasSuffix(".safetensors") && $0 != budgetHead }
        if candidates.count > 1 {
            throw CheckpointError.missing(
                file: folder.appendingPathComponent(index).path,
                needed:
                    "the folder has several .safetensors files (\(candidates.prefix(4).joined(separator: ", "))), so an index must join them"
            )
        }
        if let candidate = candidates.first { return Weights(tensors: try SafetensorsFile(contentsOf: folder.appendingPathComponent(candidate))) }
        if let pickle = file("pytorch_model.bin") { return Weights(tensors: try TorchArchive(contentsOf: pickle), format: pickleFormat) }
        if let index = file("pytorch_model.bin.index.json") {
            let shards = try ShardedTensors(index: index)
            return Weights(tensors: shards, files: shards.shards.count, format: pickleFormat)
        }
        throw CheckpointError.missing(
            file: folder.appendingPathComponent("model.safetensors").path,
            needed: "the weights of the checkpoint: model.safetensors or pytorch_model.bin, or the index of their shards")
    }

    static let pickleFormat = "PyTorch pickle"

    /// The names of the files in a folder, sorted, hidden ones left out.
    static func names(in folder: URL) throws -> [String] {
        do {
            return try Files.names(in: folder).filter { !$0.hasPrefix(".") }
        } catch {
            throw CheckpointError.unreadable(file: folder.path, reason: "the folder cannot be listed")
        }
    }

    /// Whether a name is that of a checkpoint's weights or of their index. Other files of PyTorch, such as an optimizer's state, are none.
    static func isWeights(_ name: String) -> Bool {
        [".safetensors", ".safetensors.index.json", ".bin.index.json"].contains(where: name.hasSuffix)
            || name.hasPrefix("pytorch_model") && name.hasSuffix(".bin")
    }

    /// Whether a name is that of a file which `torch.save` writes.
    static func isPyTorch(_ name: String) -> Bool { [".bin", ".pth", ".pt"].contains(where: name.hasSuffix) }
}

/// The tensors of two files; those of the second where both have a name, so that a budget head that was made anew takes the place of an older one.
struct JoinedTensors: TensorSource {
    let names: [String]
    private let first: any TensorSource
    private let second: any TensorSource

    init(_ first: any TensorSource, _ second: any TensorSource) {
        (self.first, self.second) = (first, second)
        names = Set(first.names).union(second.names).sorted()
    }

    var location: String { first.location }

    func find(_ name: String) -> StoredTensor? { second.find(name) ?? first.find(name) }
}
