import AdaLLaVA
import Foundation

/// A file that cannot be written is told before the work, not after it.
/// - Throws: `CheckpointError`
func expectWritable(_ file: URL) throws {
    let folder = file.deletingLastPathComponent().path
    var isFolder: ObjCBool = false
    if FileManager.default.fileExists(atPath: file.path, isDirectory: &isFolder), isFolder.boolValue {
        throw CheckpointError.unwritable(file: file.path, reason: "it is a folder; expected the name of a file")
    }
    guard FileManager.default.isWritableFile(atPath: folder) else {
        throw CheckpointError.unwritable(file: file.path, reason: "the folder \(folder) is not there or may not be written")
    }
}
