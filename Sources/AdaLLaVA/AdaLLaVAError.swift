/// The kind of an error, by which a caller decides how to react.
public enum ErrorCategory: Sendable {
    /// The request is wrong: an unknown option, a budget of 2, a budget for a model without a scheduler.
    case usage
    /// The content of a file is wrong, damaged or not supported.
    case badData
    /// A file or folder does not exist.
    case missingInput
    /// A bug in this package.
    case software
    /// Reading or writing failed for a reason outside the data.
    case inputOutput
}

/// Root of every error that this package throws. Its description says what was expected, what was found, where, and what to do.
public protocol AdaLLaVAError: Error, Sendable, CustomStringConvertible {
    /// The kind of error.
    var category: ErrorCategory { get }
}
