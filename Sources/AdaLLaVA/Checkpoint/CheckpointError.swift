import Foundation

/// Something in a checkpoint's files that stops it from being loaded.
package enum CheckpointError: AdaLLaVAError, Equatable {
    /// A file or folder is not there.
    case missing(file: String, needed: String)
    /// A file cannot be read (permissions, a folder in its place).
    case unreadable(file: String, reason: String)
    /// A file cannot be written (no such folder, permissions, a full disk).
    case unwritable(file: String, reason: String)
    /// The bytes of a file break its format.
    case malformed(file: String, reason: String)
    /// A tensor that the architecture needs is not in the checkpoint.
    case missingTensor(name: String, file: String)
    /// A tensor has another shape than the configuration says.
    case shape(tensor: String, expected: [Int], found: [Int], file: String)
    /// A tensor has an element type that cannot be used here.
    case elementType(tensor: String, expected: String, found: String, file: String)
    /// A field of a configuration is missing or out of range.
    case configuration(field: String, expected: String, found: String, file: String)
    /// A format, architecture or feature that this engine does not know.
    case unsupported(what: String, file: String, hint: String)

    /// A file that ends too early, as an interrupted download does.
    /// - Parameters:
    ///   - needed: bytes of the whole file, as far as it says itself.
    ///   - reading: the part of it that is missing.
    static func cutOff(file: String, bytes: Int, needed: Int, reading what: String) -> CheckpointError {
        func size(_ bytes: Int) -> String { bytes < 10_000_000 ? "\(bytes) bytes" : String(format: "%.1f MB", Double(bytes) / 1e6) }
        return .malformed(
            file: file, reason: "the file is cut off: \(size(bytes)) of at least \(size(needed)) are there (\(what)); download or copy it again")
    }

    package var category: ErrorCategory {
        switch self {
        case .missing: .missingInput
        case .unreadable, .unwritable: .inputOutput
        default: .badData
        }
    }

    package var description: String {
        switch self {
        case .missing(let file, let needed): "\(file): no such file (\(needed))"
        case .unreadable(let file, let reason): "\(file): cannot be read: \(reason)"
        case .unwritable(let file, let reason): "\(file): cannot be written: \(reason)"
        case .malformed(let file, let reason): "\(file): damaged, or not of the format that its name says: \(reason)"
        case .missingTensor(let name, let file): "\(name) in \(file): the tensor is missing"
        case .shape(let tensor, let expected, let found, let file): "\(tensor) in \(file): expected shape \(expected), found \(found)"
        case .elementType(let tensor, let expected, let found, let file): "\(tensor) in \(file): expected \(expected), found \(found)"
        case .configuration(let field, let expected, let found, let file): "\(field) in \(file): expected \(expected), found \(found)"
        case .unsupported(let what, let file, let hint): "\(file): \(what) is not supported\(hint.isEmpty ? "" : "; \(hint)")"
        }
    }
}
