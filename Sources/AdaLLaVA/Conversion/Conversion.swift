import Foundation

/// Something that writes weights in another form.
package protocol WeightConverter: Sendable {
    /// Writes the output and opens it again to see that it loads. It appears under its name only when it is complete.
    /// - Throws: ``CheckpointError``; `CancellationError` once `cancellation` was raised.
    func run(cancellation: Cancellation, progress: ConversionProgress) throws -> ConversionReport
}

/// Told the bytes of the source that are done, of all.
package typealias ConversionProgress = (_ done: Int, _ total: Int) -> Void

/// Result of a conversion.
package struct ConversionReport: Sendable {
    /// Bytes of all weight files.
    package let bytes: Int
    package let tensors: Int
    /// The written files, the requested one first.
    package internal(set) var files: [String] = []
    /// Notes for the user of the files.
    package internal(set) var note: String?

    /// The output of `convert --json`.
    package struct JSON: Codable, Sendable {
        package var output: String
        package var files: [String]
        package var type: String
        package var tensors: Int
        package var bytes: Int
        @Nullable package var note: String?
    }

    /// - Parameter output: the requested file or folder.
    package func json(output: String, type: CheckpointConverter.Target) -> JSON {
        JSON(output: output, files: files, type: type.rawValue, tensors: tensors, bytes: bytes, note: note)
    }
}

/// Where a conversion may write, and how.
enum ConversionOutput {
    /// - Parameter sources: files that must not be overwritten.
    /// - Throws: ``CheckpointError/missing(file:needed:)``, ``ConversionError``
    static func check(_ output: URL, sources: [URL], overwrites: Bool) throws {
        let folder = output.deletingLastPathComponent()
        guard FileKind(folder) == .folder else {
            throw CheckpointError.missing(file: folder.path, needed: "the folder to write \(output.lastPathComponent) into")
        }
        let places = sources.map { Files.resolved($0).standardizedFileURL.path }
        let place = Files.resolved(output).standardizedFileURL.path
        guard !places.contains(place) else { throw ConversionError.ontoItself(output.path) }
        guard !places.contains(where: { $0.hasPrefix(place + "/") }) else { throw ConversionError.holdsSource(output.path) }
        guard overwrites || FileKind(output) == .nothing else { throw ConversionError.exists(output.path) }
        // Whoever forces the replacement of a checkpoint has not said that a folder of something else may go.
        if FileKind(output) == .folder {
            let isCheckpoint = FileKind(output.appendingPathComponent("config.json")) == .file
            let isEmpty = (try? Files.names(in: output))?.isEmpty == true
            guard output.pathExtension != "gguf", isCheckpoint || isEmpty else { throw ConversionError.otherFolder(output.path) }
        }
    }

    /// Lets `body` fill a new folder, which is moved to `output` once `verify` has opened it. If stopped before, it leaves nothing, and the former
    /// contents of `output` remain.
    /// - Throws: ``CheckpointError/unwritable(file:reason:)``, and errors of `body` and `verify`.
    static func writeFolder<Result>(_ output: URL, _ body: (URL) throws -> Void, verify: (URL) throws -> Result) throws -> Result {
        var result: Result?
        try PartialFiles.writeFolder(output) { partial in
            try body(partial)
            do {
                // The checkpoint's own files are replaced; other files of its folder stay.
                for name in FileKind(output) == .folder ? try Files.names(in: output) : [] where !WeightFiles.isWeights(name) {
                    let kept = partial.appendingPathComponent(name)
                    if !Files.exists(kept) { try Files.copy(output.appendingPathComponent(name), to: kept) }
                }
            } catch let error as SystemError {
                throw CheckpointError.unwritable(file: output.path, reason: error.localizedDescription)
            }
            result = try verify(partial)
        }
        guard let result else { throw CheckpointError.unwritable(file: output.path, reason: "nothing was written") }
        return result
    }
}

/// An invalid request for a conversion.
package enum ConversionError: AdaLLaVAError, Equatable {
    case exists(String)
    case ontoItself(String)
    case holdsSource(String)
    case otherFolder(String)
    case needsGGUF(String, output: String)
    case onlyGGUF(String, output: String)
    case towerNeedsFolder(String, output: String)
    case noScheduler(String, reason: String)

    package var category: ErrorCategory { .usage }

    package var description: String {
        switch self {
        case .exists(let path): "\(path): already there; name another output or give --force"
        case .ontoItself(let path): "\(path): the checkpoint cannot be written over itself; name another output"
        case .holdsSource(let path): "\(path): the checkpoint that is converted lies in it; name another output"
        case .otherFolder(let path): "\(path): a folder that is no checkpoint, which --force does not replace; name another output"
        case .onlyGGUF(let reason, let output):
            "\(output): this GGUF model cannot be written as safetensors, for \(reason); name an output that ends in .gguf, or convert the original checkpoint"
        case .noScheduler(let path, let reason): "\(path): the model gets no new scheduler, because \(reason)"
        case .needsGGUF(let type, let output):
            "\(output): safetensors has no \(type); name an output that ends in .gguf, or convert to f16, bf16 or f32"
        case .towerNeedsFolder(let type, let output):
            "\(output): a vision tower by itself becomes a folder with f16, bf16 or f32 weights, not \(type)\(output.hasSuffix(".gguf") ? " in a GGUF file" : ""); "
                + "convert the whole model to GGUF to have its tower in other types"
        }
    }
}
