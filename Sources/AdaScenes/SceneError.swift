import AdaLLaVA

/// Why scenes could not be made.
package enum SceneError: AdaLLaVAError, Equatable {
    /// A font is in none of the folders where systems keep it.
    case fontMissing(font: String, package: String, searched: [String])
    /// A font file is there but cannot be used.
    case fontUnusable(file: String, reason: String)
    /// A count, size or split name out of range.
    case argument(name: String, expected: String, found: String)
    /// A file or folder cannot be written.
    case unwritable(path: String, reason: String)

    package var category: ErrorCategory {
        switch self {
        case .fontMissing: .missingInput
        case .fontUnusable: .badData
        case .argument: .usage
        case .unwritable: .inputOutput
        }
    }

    package var description: String {
        switch self {
        case .fontMissing(let font, let package, let searched):
            "the font \(font) is not installed; on Debian and Ubuntu: apt install \(package) (searched \(searched.joined(separator: ", ")))"
        case .fontUnusable(let file, let reason): "\(file): the font cannot be used: \(reason)"
        case .argument(let name, let expected, let found): "\(name): expected \(expected), found \(found)"
        case .unwritable(let path, let reason): "\(path): cannot be written: \(reason)"
        }
    }
}
