import AdaLLaVA

/// The members of a JSON object in a request. Each is read once; members that no reader asked for are an error, so that none is ignored silently.
struct RequestFields: Sendable {
    private(set) var members: [String: JSONValue]
    /// Where the object is in the body, for messages: `messages[0].`; empty for the body itself.
    let path: String

    init(_ members: [String: JSONValue], path: String = "") { (self.members, self.path) = (members, path) }

    /// - Throws: ``APIError`` if the value is no object.
    init(_ value: JSONValue, path: String) throws {
        guard case .object(let members) = value else { throw APIError.parameter(path, expected: "an object", found: value.summary) }
        self.init(members, path: path + ".")
    }

    /// The value of a member; `nil` if it is absent or `null`.
    mutating func take(_ name: String) -> JSONValue? {
        let value = members.removeValue(forKey: name)
        return value == .null ? nil : value
    }

    func wrong(_ name: String, expected: String, found: JSONValue?) -> APIError {
        .parameter(path + name, expected: expected, found: found?.summary ?? "nothing")
    }

    mutating func string(_ name: String) throws -> String? {
        guard let value = take(name) else { return nil }
        guard case .string(let text) = value else { throw wrong(name, expected: "a string", found: value) }
        return text
    }

    mutating func bool(_ name: String) throws -> Bool? {
        guard let value = take(name) else { return nil }
        guard case .bool(let flag) = value else { throw wrong(name, expected: "true or false", found: value) }
        return flag
    }

    mutating func integer(_ name: String, in range: ClosedRange<Int> = Int.min ... Int.max) throws -> Int? {
        guard let value = take(name) else { return nil }
        guard case .integer(let number) = value, range.contains(number) else {
            let bounds = range == Int.min ... Int.max ? "" : range.upperBound == .max ? " of at least \(range.lowerBound)" : " from \(range.lowerBound) to \(range.upperBound)"
            throw wrong(name, expected: "a whole number\(bounds)", found: value)
        }
        return number
    }

    mutating func number(_ name: String) throws -> Double? {
        guard let value = take(name) else { return nil }
        guard let number = value.finiteNumber else { throw wrong(name, expected: "a number", found: value) }
        return number
    }

    mutating func array(_ name: String) throws -> [JSONValue]? {
        guard let value = take(name) else { return nil }
        guard case .array(let elements) = value else { throw wrong(name, expected: "an array", found: value) }
        return elements
    }

    mutating func object(_ name: String) throws -> RequestFields? {
        guard let value = take(name) else { return nil }
        return try RequestFields(value, path: path + name)
    }

    /// Takes a member that this server has no use for, as long as it asks for nothing.
    /// - Parameter isNeutral: whether a value leaves the answer as it is.
    mutating func neutral(_ name: String, _ isNeutral: (JSONValue) -> Bool) throws {
        guard let value = take(name), !isNeutral(value) else { return }
        throw APIError(.badRequest, "\(path)\(name): \(value.summary) is not supported here", parameter: path + name, code: "unsupported_parameter")
    }

    /// - Throws: ``APIError`` naming a member that has not been taken.
    func expectNothingElse() throws {
        // `null` asks for nothing.
        guard let name = members.filter({ $0.value != .null }).keys.min() else { return }
        throw APIError(.badRequest, "\(path)\(name): this parameter is not known here", parameter: path + name, code: "unknown_parameter")
    }
}

extension JSONValue {
    /// A number that is finite; `nil` for anything else.
    var finiteNumber: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .number(let value): value.isFinite ? value : nil
        default: nil
        }
    }
}
