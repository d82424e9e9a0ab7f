/// The members of one object of a JSON configuration, read with type and range checks. `null` counts as absent, as it does in
/// Python's configurations.
struct ConfigurationFields {
    let file: String
    private let members: JSONValue
    private let prefix: String

    /// - Throws: ``CheckpointError/configuration(field:expected:found:file:)`` if `value` is no object.
    init(_ value: JSONValue, file: String, prefix: String = "") throws {
        guard case .object = value else {
            throw CheckpointError.configuration(
                field: prefix.isEmpty ? "the file" : prefix, expected: "an object", found: value.summary, file: file)
        }
        (members, self.file, self.prefix) = (value, file, prefix)
    }

    func raw(_ name: String) -> JSONValue? { members[name] }

    func has(_ name: String) -> Bool { members[name] != nil }

    /// Whether the field is there with the value `null`, where that means something else than its absence.
    func isNull(_ name: String) -> Bool {
        guard case .object(let members) = members else { return false }
        return members[name] == .null
    }

    func invalid(_ name: String, expected: String) -> CheckpointError {
        .configuration(field: path(name), expected: expected, found: members[name]?.summary ?? "nothing", file: file)
    }

    private func path(_ name: String) -> String { prefix.isEmpty ? name : "\(prefix).\(name)" }

    func optionalInteger(_ name: String, in range: ClosedRange<Int>) throws -> Int? {
        switch members[name] {
        case nil: return nil
        case .integer(let value) where range.contains(value): return value
        // Some writers turn whole numbers into floats.
        case .number(let value) where Int(exactly: value).map(range.contains) == true: return Int(value)
        default: throw invalid(name, expected: "a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
    }

    /// - Parameter missing: the value of an absent field; `nil` if the field must be there.
    func integer(_ name: String, in range: ClosedRange<Int>, missing: Int?) throws -> Int {
        guard let value = try optionalInteger(name, in: range) ?? missing else {
            throw invalid(name, expected: "a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    func optionalNumber(_ name: String, in range: ClosedRange<Double>) throws -> Double? {
        let value: Double
        switch members[name] {
        case nil: return nil
        case .integer(let integer): value = Double(integer)
        case .number(let number): value = number
        default: throw invalid(name, expected: "a number from \(range.lowerBound) to \(range.upperBound)")
        }
        guard range.contains(value) else {
            throw invalid(name, expected: "a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    func number(_ name: String, in range: ClosedRange<Double>, missing: Double?) throws -> Double {
        guard let value = try optionalNumber(name, in: range) ?? missing else {
            throw invalid(name, expected: "a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    func bool(_ name: String, missing: Bool) throws -> Bool {
        switch members[name] {
        case nil: return missing
        case .bool(let value): return value
        default: throw invalid(name, expected: "true or false")
        }
    }

    func optionalString(_ name: String) throws -> String? {
        switch members[name] {
        case nil: return nil
        case .string(let value): return value
        default: throw invalid(name, expected: "a string")
        }
    }

    func optionalObject(_ name: String) throws -> ConfigurationFields? {
        guard let value = members[name] else { return nil }
        return try ConfigurationFields(value, file: file, prefix: path(name))
    }

    /// Numbers of an array; `nil` if the field is absent.
    func optionalNumbers(_ name: String, counts: ClosedRange<Int>, in range: ClosedRange<Double>) throws -> [Double]? {
        guard let value = members[name] else { return nil }
        let expected =
            "\(counts.lowerBound == counts.upperBound ? "" : "\(counts.lowerBound) to ")\(counts.upperBound) numbers"
            + " from \(range.lowerBound) to \(range.upperBound)"
        guard case .array(let elements) = value, counts.contains(elements.count) else { throw invalid(name, expected: expected) }
        return try elements.map { element in
            switch element {
            case .integer(let value) where range.contains(Double(value)): return Double(value)
            case .number(let value) where range.contains(value): return value
            default: throw invalid(name, expected: expected)
            }
        }
    }

    /// Token ids given as one number or as a list; empty if the field is absent.
    func tokenIDs(_ name: String) throws -> [Int] {
        let range = ConfigurationLimits.tokenIDs
        switch members[name] {
        case nil: return []
        case .integer(let value) where range.contains(value): return [value]
        // Some configurations say -1 for "none".
        case .integer(-1): return []
        case .array(let elements) where elements.count <= 1024:
            return try elements.filter { $0 != .integer(-1) }.map {
                guard case .integer(let value) = $0, range.contains(value) else {
                    throw invalid(name, expected: "token ids from 0 to \(range.upperBound)")
                }
                return value
            }
        default: throw invalid(name, expected: "a token id from 0 to \(range.upperBound), or a list of them")
        }
    }

    /// One token id; the first if the field holds a list, as some configurations do.
    func tokenID(_ name: String) throws -> Int? { try tokenIDs(name).first }
}

/// Limits of values in a configuration: ten times the largest published models, and small enough that no product of a few of these
/// numbers overflows.
enum ConfigurationLimits {
    static let vocabulary = 1...(1 << 24)
    static let tokenIDs = 0...(1 << 24)
    static let hidden = 1...(1 << 18)
    static let intermediate = 1...(1 << 20)
    static let layers = 1...4096
    static let heads = 1...4096
    static let headDim = 1...4096
    static let positions = 1...(1 << 30)
    static let imageSide = 1...16384
    static let epsilon = 0.0...1.0
}
