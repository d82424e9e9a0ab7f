/// What went wrong, in the terms a caller acts on. The command line maps it to its exit code (BSD sysexits).
public enum ErrorCategory: Int32, Sendable {
    /// The request itself is wrong: an unknown option, a budget of 2, a budget for a model without a scheduler.
    case usage = 64
    /// A file was read but what is in it is wrong, damaged or not supported.
    case badData = 65
    /// A file or folder that was named is not there.
    case missingInput = 66
    /// Our own fault.
    case software = 70
    /// Reading or writing failed for a reason outside the data.
    case inputOutput = 74
}

/// Every error the library throws. Its description says what was expected, what was found, where, and what to do.
public protocol EngineError: Error, Sendable, CustomStringConvertible {
    var category: ErrorCategory { get }
}
