/// Python's equality, order and membership.
struct JinjaComparison {
    let meter: JinjaMeter
    /// Containers in containers, beyond which values are not compared: mutated lists can contain themselves.
    private static let deepest = 100

    func equal(_ left: JinjaValue, _ right: JinjaValue, depth: Int = 0) throws -> Bool {
        try meter.step()
        guard depth <= Self.deepest else { throw meter.limit("nested values", Self.deepest) }
        switch (left, right) {
        case (.undefined, .undefined), (.none, .none): return true
        case (.text(let left), .text(let right)):
            guard left.count == right.count else { return false }
            try meter.step(left.count / 16)
            return left == right
        case (.list(let left), .list(let right)), (.tuple(let left), .tuple(let right)):
            guard left !== right else { return true }
            guard left.values.count == right.values.count else { return false }
            for (left, right) in zip(left.values, right.values) where try !equal(left, right, depth: depth + 1) { return false }
            return true
        case (.dict(let left), .dict(let right)):
            guard left.keys.count == right.keys.count else { return false }
            for (key, value) in zip(left.keys, left.values) {
                let key = try JinjaKey(key, meter: meter)
                guard let other = right[key], try equal(value, other, depth: depth + 1) else { return false }
            }
            return true
        case (.namespace(let left), .namespace(let right)): return left === right
        case (.macro(let left), .macro(let right)): return left === right
        case (.loop(let left), .loop(let right)): return left === right
        case (.function(let left), .function(let right)): return left == right
        default:
            if let left = left.integer, let right = right.integer { return left == right }
            if let left = left.number, let right = right.number { return left == right }
            return false
        }
    }

    /// Whether `left` comes in front of `right`.
    func less(_ left: JinjaValue, _ right: JinjaValue, symbol: String = "<", depth: Int = 0) throws -> Bool {
        try meter.step()
        guard depth <= Self.deepest else { throw meter.limit("nested values", Self.deepest) }
        switch (left, right) {
        case (.text(let left), .text(let right)):
            try meter.step(min(left.count, right.count) / 16)
            return left.scalars.lexicographicallyPrecedes(right.scalars)
        case (.list(let left), .list(let right)), (.tuple(let left), .tuple(let right)):
            for (left, right) in zip(left.values, right.values) where try !equal(left, right, depth: depth + 1) {
                return try less(left, right, symbol: symbol, depth: depth + 1)
            }
            return left.values.count < right.values.count
        default:
            if let left = left.integer, let right = right.integer { return left < right }
            if let left = left.number, let right = right.number { return left < right }
            if case .undefined(let message) = left { throw meter.failure(message) }
            if case .undefined(let message) = right { throw meter.failure(message) }
            throw meter.failure("\"\(symbol)\" cannot compare \(left.typeName) with \(right.typeName)")
        }
    }

    func compare(_ symbol: String, _ left: JinjaValue, _ right: JinjaValue) throws -> Bool {
        switch symbol {
        case "==": return try equal(left, right)
        case "!=": return try !equal(left, right)
        case "<": return try less(left, right)
        case ">": return try less(right, left, symbol: ">")
        // Written out instead of negated, because of values that are no number.
        case "<=": return try less(left, right, symbol: "<=") || equal(left, right)
        case ">=": return try less(right, left, symbol: ">=") || equal(left, right)
        case "in": return try contains(right, left)
        default: return try !contains(right, left)
        }
    }

    func contains(_ container: JinjaValue, _ value: JinjaValue) throws -> Bool {
        switch container {
        case .text(let text):
            guard case .text(let part) = value else {
                throw meter.failure("\"in\" a str: expected a str on the left, found \(value.typeName)")
            }
            return try text.find(part, meter: meter) != nil
        case .list(let list), .tuple(let list):
            for item in list.values where try equal(item, value) { return true }
            return false
        case .dict(let dict):
            return dict[try JinjaKey(value, meter: meter)] != nil
        case .undefined: return false
        default: throw meter.failure("\"in\": a \(container.typeName) contains nothing")
        }
    }

    /// Sorted by `key`, equal values in their order.
    func sorted(_ values: [JinjaValue], isReversed: Bool, key: (JinjaValue) throws -> JinjaValue) throws -> [JinjaValue] {
        try meter.allocateContainer(values.count * 2)
        let keyed = try values.enumerated().map { (index: $0, key: try key($1), value: $1) }
        return try keyed.sorted { left, right in
            if try isReversed ? less(right.key, left.key) : less(left.key, right.key) { return true }
            if try isReversed ? less(left.key, right.key) : less(right.key, left.key) { return false }
            return left.index < right.index
        }.map(\.value)
    }
}
