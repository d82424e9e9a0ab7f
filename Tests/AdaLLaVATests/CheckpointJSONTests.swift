import Foundation
import Testing

@testable import AdaLLaVA

@Suite struct CheckpointJSONTests {
    private func parse(_ text: String) throws -> JSONValue { try CheckpointFixtures.json(text) }

    @Test("JSON values are read") func values() throws {
        // A failure means that configurations are misread.
        #expect(
            try parse(#" {"a": [1, -2, 2.5, 1e-5, true, false, null, "x"]} "#)
                == .object([
                    "a": .array([.integer(1), .integer(-2), .number(2.5), .number(1e-5), .bool(true), .bool(false), .null, .string("x")])
                ]))
        #expect(try parse(#""a\n\"\\\/\u00e4\ud83d\ude00ä""#) == .string("a\n\"\\/ä😀ä"))
        #expect(try parse("9223372036854775807") == .integer(.max))
        #expect(try parse("9223372036854775808") == .number(9_223_372_036_854_775_808))
        // As Python's json writes them; whoever reads such a number checks its range.
        #expect(try parse("[Infinity,-Infinity]") == .array([.number(.infinity), .number(-.infinity)]))
        guard case .number(let value) = try parse("NaN") else { throw CheckpointError.malformed(file: "", reason: "expected a number") }
        #expect(value.isNaN)
        #expect(try parse("{}") == .object([:]))
        #expect(try parse("[]") == .array([]))
    }

    @Test("invalid JSON is refused", arguments: [
        "", " ", "{", "[", "[1,]", "{\"a\":1,}", "{\"a\"}", "{\"a\" 1}", "{a:1}", "{'a':1}", "[1 2]", "01", "-", "1.", ".5", "1e", "1e999",
        "+1",
        "nul", "truefalse", "nan", "Inf", "-I", "-NaN", "\"", "\"\\", "\"\\x\"", "\"\\u12\"", "\"\\ud800\"", "\"\\ud800\\u0041\"", "\"\\udc00\"",
        "\"\n\"", "{} {}", "{\"a\":1,\"a\":2}", "\u{FEFF}{}",
    ])
    func invalid(text: String) {
        // A failure means that damaged JSON is taken for something it is not.
        #expect(checkpointError { try parse(text) }?.isMalformed == true)
    }

    @Test("nesting is limited in depth") func nesting() throws {
        // A failure means that a few kilobytes of brackets can overflow the stack.
        #expect(throws: Never.self) { try parse(String(repeating: "[", count: 64) + String(repeating: "]", count: 64)) }
        #expect(checkpointError { try parse(String(repeating: "[", count: 65) + String(repeating: "]", count: 65)) }?.isMalformed == true)
        #expect(checkpointError { try parse(String(repeating: "{\"a\":", count: 1_000_000)) }?.isMalformed == true)
    }

    @Test("invalid UTF8",
        arguments: [
            [0xFF], [0xC0, 0x80], [0xC3], [0xED, 0xA0, 0x80], [0xE0, 0x80, 0x80], [0xF4, 0x90, 0x80, 0x80], [0xF0, 0x9F, 0x98], [0x80],
        ] as [[UInt8]])
    func invalidUTF8(sequence: [UInt8]) {
        // A failure means that text which is no UTF-8 gets in, and names may be mangled.
        let bytes = [UInt8(ascii: "\"")] + sequence + [UInt8(ascii: "\"")]
        #expect(checkpointError { try bytes.withUnsafeBytes { try JSONReader.parse($0, file: "test") } }?.isMalformed == true)
    }

    @Test("names with odd characters are quoted and read back") func quoting() throws {
        // A failure means that a name with odd characters makes a header that nobody can read.
        let text = "a\"b\\c\nd\u{1}e/ä😀"
        #expect(try parse(quoted(text)) == .string(text))
    }
}
