/// Position of a text in a grammar: all ways to read the bytes so far, each a stack of open elements.
struct JSONMachine: Hashable, Sendable {
    /// Open elements, the innermost last.
    enum Frame: Hashable, Sendable {
        case value(Int)
        case text(Int, offset: Int)
        case string(StringPlace)
        case object(Int, seen: UInt64, ObjectPlace)
        case array(Int, ArrayPlace)
        case number(NumberPlace, isInteger: Bool)
    }

    enum StringPlace: Hashable, Sendable {
        case inside, escape
        /// Hexadecimal digits that are still to come.
        case unicode(Int)
        /// Bytes of a character that are still missing, and the range of the next one.
        case character(Int, least: UInt8, most: UInt8)
    }

    enum ObjectPlace: Hashable, Sendable {
        case start
        /// Behind a property's name; -1 for one that any name fits.
        case name(Int), colon(Int), value(Int)
        case end, comma, gap
    }

    enum ArrayPlace: Hashable, Sendable { case start, end, comma, gap }

    enum NumberPlace: Hashable, Sendable { case minus, zero, digits, point, fraction, exponent, sign, power }

    typealias Stack = [Frame]

    /// Maximum nesting of values: deeper than people write, and less than JSON readers accept.
    private static let depthLimit = 32
    /// Ways of reading that are followed at once: enumerations have one for each of their values.
    private static let wayLimit = 2048

    private(set) var ways: Set<Stack>

    init(_ grammar: JSONGrammar) { ways = [[.value(grammar.root)]] }

    private init(ways: Set<Stack>) { self.ways = ways }

    /// Whether the text may go on at all.
    var isDead: Bool { ways.isEmpty }

    /// Whether the text may end here.
    var isComplete: Bool {
        ways.contains { stack in
            if stack.isEmpty { return true }
            if stack.count == 1, case .number(let place, _) = stack[0] { return place.mayEnd }
            return false
        }
    }

    /// The machine after one more byte.
    func after(_ byte: UInt8, _ grammar: JSONGrammar) -> JSONMachine {
        // Most bytes are letters of a string, which change nothing.
        if ways.count == 1, case .string(.inside)? = ways.first?.last, (0x20 ..< 0x80).contains(byte), byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\") {
            return self
        }
        var next: Set<Stack> = []
        for stack in ways { Self.step(stack, byte, grammar, &next) }
        return JSONMachine(ways: next.count > Self.wayLimit ? [] : next)
    }

    private static func step(_ stack: Stack, _ byte: UInt8, _ grammar: JSONGrammar, _ next: inout Set<Stack>) {
        guard let top = stack.last else { return }
        var below = stack
        below.removeLast()
        func push(_ frames: Frame...) { next.insert(below + frames) }
        switch top {
        case .value(let node): begin(node, below, byte, grammar, &next)
        case .text(let text, let offset):
            let bytes = grammar.texts[text]
            guard bytes[offset] == byte else { return }
            if offset + 1 == bytes.count { push() } else { push(.text(text, offset: offset + 1)) }
        case .string(let place):
            switch place.after(byte) {
            case .ends: push()
            case .goesOn(let place): push(.string(place))
            case .fails: return
            }
        case .number(let place, let isInteger):
            if let place = place.after(byte, isInteger: isInteger) {
                push(.number(place, isInteger: isInteger))
            } else if place.mayEnd {
                step(below, byte, grammar, &next)
            }
        case .array(let items, let place):
            switch (place, byte) {
            case (.start, UInt8(ascii: "]")), (.end, UInt8(ascii: "]")): push()
            case (.end, UInt8(ascii: ",")): push(.array(items, .comma))
            case (.comma, UInt8(ascii: " ")): push(.array(items, .gap))
            case (.end, _): return
            default: begin(items, below + [.array(items, .end)], byte, grammar, &next)
            }
        case .object(let node, let seen, let place): object(node, seen, place, below, byte, grammar, &next)
        }
    }

    private static func object(
        _ node: Int, _ seen: UInt64, _ place: ObjectPlace, _ below: Stack, _ byte: UInt8, _ grammar: JSONGrammar, _ next: inout Set<Stack>
    ) {
        guard case .object(let properties, let values) = grammar.nodes[node] else { return }
        func put(_ seen: UInt64, _ place: ObjectPlace, _ frames: Frame...) { next.insert(below + [.object(node, seen: seen, place)] + frames) }
        func isSeen(_ index: Int) -> Bool { seen >> UInt64(index) & 1 == 1 }
        /// The value of a property; it may come without the space.
        func value(_ index: Int) {
            let after = index < 0 ? seen : seen | 1 << UInt64(index), type = index < 0 ? values ?? 0 : properties[index].value
            begin(type, below + [.object(node, seen: after, .end)], byte, grammar, &next)
        }
        switch (place, byte) {
        case (.start, UInt8(ascii: "}")), (.end, UInt8(ascii: "}")):
            if properties.indices.allSatisfy({ !properties[$0].isRequired || isSeen($0) }) { next.insert(below) }
        case (.start, UInt8(ascii: "\"")), (.comma, UInt8(ascii: "\"")), (.gap, UInt8(ascii: "\"")):
            for index in properties.indices where !isSeen(index) { put(seen, .name(index), .text(properties[index].name, offset: 0)) }
            if values != nil { put(seen, .name(-1), .string(.inside)) }
        case (.name(let index), UInt8(ascii: ":")): put(seen, .colon(index))
        case (.colon(let index), UInt8(ascii: " ")): put(seen, .value(index))
        case (.colon(let index), _), (.value(let index), _): value(index)
        case (.end, UInt8(ascii: ",")):
            if values != nil || properties.indices.contains(where: { !isSeen($0) }) { put(seen, .comma) }
        case (.comma, UInt8(ascii: " ")): put(seen, .gap)
        default: return
        }
    }

    /// The first byte of a value.
    private static func begin(_ node: Int, _ below: Stack, _ byte: UInt8, _ grammar: JSONGrammar, _ next: inout Set<Stack>) {
        var seen: Set<Int> = []
        begin(node, below, byte, grammar, &next, &seen)
    }

    /// - Parameter seen: references that were followed without a byte; each is followed once, since they may lead to each other.
    private static func begin(_ node: Int, _ below: Stack, _ byte: UInt8, _ grammar: JSONGrammar, _ next: inout Set<Stack>, _ seen: inout Set<Int>) {
        guard below.count < depthLimit else { return }
        func push(_ frame: Frame) { next.insert(below + [frame]) }
        func number(isInteger: Bool) {
            if let place = NumberPlace.first(byte) { push(.number(place, isInteger: isInteger)) }
        }
        switch grammar.nodes[node] {
        case .oneOf(let options):
            if seen.insert(node).inserted {
                for option in options { begin(option, below, byte, grammar, &next, &seen) }
            }
        case .texts(let texts):
            for text in texts where grammar.texts[text].first == byte {
                if grammar.texts[text].count == 1 { next.insert(below) } else { push(.text(text, offset: 1)) }
            }
        case .string: if byte == UInt8(ascii: "\"") { push(.string(.inside)) }
        case .number(let isInteger): number(isInteger: isInteger)
        case .array(let items): if byte == UInt8(ascii: "[") { push(.array(items, .start)) }
        case .object: if byte == UInt8(ascii: "{") { push(.object(node, seen: 0, .start)) }
        case .any:
            switch byte {
            case UInt8(ascii: "\""): push(.string(.inside))
            case UInt8(ascii: "["): push(.array(node, .start))
            case UInt8(ascii: "{"): push(.object(grammar.anyObject, seen: 0, .start))
            case UInt8(ascii: "t"), UInt8(ascii: "f"), UInt8(ascii: "n"): if let text = grammar.word(byte) { push(.text(text, offset: 1)) }
            default: number(isInteger: false)
            }
        }
    }
}

extension JSONMachine.StringPlace {
    enum Step {
        case ends
        case goesOn(JSONMachine.StringPlace)
        case fails
    }

    /// One more byte of a string: UTF-8 (Unicode 15, table 3-7), quotes and control characters escaped.
    func after(_ byte: UInt8) -> Step {
        switch self {
        case .inside:
            switch byte {
            case UInt8(ascii: "\""): .ends
            case UInt8(ascii: "\\"): .goesOn(.escape)
            case 0x20 ..< 0x80: .goesOn(.inside)
            case 0xC2 ... 0xDF: .goesOn(.character(1, least: 0x80, most: 0xBF))
            case 0xE0: .goesOn(.character(2, least: 0xA0, most: 0xBF))
            case 0xED: .goesOn(.character(2, least: 0x80, most: 0x9F))
            case 0xE1 ... 0xEF: .goesOn(.character(2, least: 0x80, most: 0xBF))
            case 0xF0: .goesOn(.character(3, least: 0x90, most: 0xBF))
            case 0xF4: .goesOn(.character(3, least: 0x80, most: 0x8F))
            case 0xF1 ... 0xF3: .goesOn(.character(3, least: 0x80, most: 0xBF))
            default: .fails
            }
        case .escape:
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "b"), UInt8(ascii: "f"), UInt8(ascii: "n"), UInt8(ascii: "r"),
                UInt8(ascii: "t"):
                .goesOn(.inside)
            case UInt8(ascii: "u"): .goesOn(.unicode(4))
            default: .fails
            }
        case .unicode(let left):
            switch byte {
            // A first D would begin half of a surrogate pair.
            case UInt8(ascii: "D"), UInt8(ascii: "d"): left == 4 ? .fails : .goesOn(left == 1 ? .inside : .unicode(left - 1))
            case UInt8(ascii: "0") ... UInt8(ascii: "9"), UInt8(ascii: "a") ... UInt8(ascii: "f"), UInt8(ascii: "A") ... UInt8(ascii: "F"):
                .goesOn(left == 1 ? .inside : .unicode(left - 1))
            default: .fails
            }
        case .character(let left, let least, let most):
            byte < least || byte > most ? .fails : .goesOn(left == 1 ? .inside : .character(left - 1, least: 0x80, most: 0xBF))
        }
    }
}

extension JSONMachine.NumberPlace {
    static func first(_ byte: UInt8) -> Self? {
        switch byte {
        case UInt8(ascii: "-"): .minus
        case UInt8(ascii: "0"): .zero
        case UInt8(ascii: "1") ... UInt8(ascii: "9"): .digits
        default: nil
        }
    }

    var mayEnd: Bool {
        switch self {
        case .zero, .digits, .fraction, .power: true
        case .minus, .point, .exponent, .sign: false
        }
    }

    func after(_ byte: UInt8, isInteger: Bool) -> Self? {
        let isDigit = (UInt8(ascii: "0") ... UInt8(ascii: "9")).contains(byte)
        switch (self, byte) {
        case (.minus, UInt8(ascii: "0")): return .zero
        case (.minus, _): return isDigit ? .digits : nil
        case (.digits, _) where isDigit: return .digits
        case (.zero, UInt8(ascii: ".")) where !isInteger, (.digits, UInt8(ascii: ".")) where !isInteger: return .point
        case (.point, _): return isDigit ? .fraction : nil
        case (.fraction, _) where isDigit: return .fraction
        case (.zero, UInt8(ascii: "e")) where !isInteger, (.digits, UInt8(ascii: "e")) where !isInteger, (.fraction, UInt8(ascii: "e")),
            (.zero, UInt8(ascii: "E")) where !isInteger, (.digits, UInt8(ascii: "E")) where !isInteger, (.fraction, UInt8(ascii: "E")):
            return .exponent
        case (.exponent, UInt8(ascii: "-")), (.exponent, UInt8(ascii: "+")): return .sign
        case (.exponent, _), (.sign, _), (.power, _): return isDigit ? .power : nil
        default: return nil
        }
    }
}
