import AdaLLaVA
import Foundation

/// An output file; errors are reported before the work, not after it.
/// - Throws: `CheckpointError`
func expectWritable(_ file: URL) throws {
    let folder = file.deletingLastPathComponent()
    if FileKind(file) == .folder {
        throw CheckpointError.unwritable(file: file.path, reason: "it is a folder; expected the name of a file")
    }
    guard Files.isWritable(folder) else {
        throw CheckpointError.unwritable(file: file.path, reason: "the folder \(folder.path) is not there or may not be written")
    }
}
