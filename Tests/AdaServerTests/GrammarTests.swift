import AdaLLaVA
import Foundation
import Testing

@testable import AdaServer

/// `response_format`: answers that are JSON of a given form.
@Suite struct GrammarTests {
    private static func value(_ json: String) throws -> JSONValue { try Data(json.utf8).withUnsafeBytes { try JSONReader.parse($0, file: "test") } }

    private static func grammar(_ schema: String) throws -> JSONGrammar { try JSONGrammar(schema: try value(schema), path: "schema") }

    /// Whether a grammar allows a whole text.
    private static func allows(_ grammar: JSONGrammar, _ text: String) -> Bool { allows(grammar, Array(text.utf8)) }

    private static func allows(_ grammar: JSONGrammar, _ bytes: [UInt8]) -> Bool {
        var machine = JSONMachine(grammar)
        for byte in bytes { machine = machine.after(byte, grammar) }
        return machine.isComplete
    }

    // A failure means that answers are JSON which readers refuse.
    @Test("of any object, what is allowed is JSON, and what is no JSON is not allowed")
    func anyObject() throws {
        let yes = [
            "{}", #"{"a":1}"#, #"{"a": 1, "b": [1, 2.5e-3, -0, true, false, null, "x"], "c": {"d": {}}}"#, #"{"\u00e9\n\"": "é漢😀"}"#, #"{"a":[]}"#,
            #"{"a": [[], [{}]]}"#, #"{"": -12.0E+10}"#,
        ]
        for text in yes {
            #expect(Self.allows(.object, text), "\(text)")
            _ = try JSONSerialization.jsonObject(with: Data(text.utf8))
        }
        let no = [
            "", "{", "[]", "1", "\"a\"", #"{"a"}"#, #"{"a":}"#, #"{"a":1,}"#, #"{,}"#, #"{"a":01}"#, #"{"a":1.}"#, #"{"a":.5}"#, #"{"a":+1}"#, #"{"a":1e}"#,
            #"{"a":tru}"#, #"{"a":nul}"#, #"{'a':1}"#, #"{"a":"\x"}"#, #"{"a":"\u12G4"}"#, #"{"a":"\ud800"}"#, "{\"a\":\"\n\"}", #"{"a":1}}"#, #"{"a":1} x"#,
            #"{"a":[1,]}"#, #"{"a":[1 2]}"#, #"{"a" :1}"#, #"{a:1}"#, #"{"a":NaN}"#, #"{"a":"}"#, " {}", #"{"a":  1}"#,
        ]
        for text in no { #expect(!Self.allows(.object, text), "\(text)") }
        for bytes in [[0xC0, 0x80], [0xED, 0xA0, 0x80], [0xFF], [0xF4, 0x90, 0x80, 0x80], [0xE2, 0x82]] as [[UInt8]] {
            #expect(!Self.allows(.object, Array("{\"a\":\"".utf8) + bytes + Array("\"}".utf8)), "\(bytes)")
        }
        // Deeper than readers take.
        #expect(!Self.allows(.object, #"{"a":"# + String(repeating: "[", count: 60) + String(repeating: "]", count: 60) + "}"))
    }

    private static let schema = ##"""
        {"type": "object", "additionalProperties": false, "required": ["name", "count", "kind"],
         "properties": {"name": {"type": "string", "description": "a name"}, "count": {"type": "integer"}, "kind": {"enum": ["car", "cat", 3, null]},
                        "score": {"type": ["number", "null"]}, "tags": {"type": "array", "items": {"type": "boolean"}},
                        "next": {"$ref": "#"}, "say \"hi\"": {"const": {"a": [1]}}}}
        """##

    @Test("of a schema, what is allowed validates, and what does not validate is not allowed")
    func schemas() throws {
        let grammar = try Self.grammar(Self.schema)
        for text in [
            #"{"name":"a","count":5,"kind":"car"}"#, #"{"kind": null, "count": -1, "name": ""}"#, #"{"name":"","count":0,"kind":3,"score":1.5,"tags":[true,false]}"#,
            #"{"name":"","count":0,"kind":"cat","next":{"name":"b","count":1,"kind":"car"}}"#, #"{"name":"","count":0,"kind":"cat","say \"hi\"":{"a":[1]},"score":null}"#,
        ] { #expect(Self.allows(grammar, text), "\(text)") }
        for text in [
            "{}", #"{"name":"a","count":5}"#, #"{"name":1,"count":5,"kind":"car"}"#, #"{"name":"a","count":5.5,"kind":"car"}"#, #"{"name":"a","count":5,"kind":"dog"}"#,
            #"{"name":"a","count":5,"kind":"car","more":1}"#, #"{"name":"a","name":"b","count":5,"kind":"car"}"#, #"{"name":"a","count":5,"kind":"car","tags":[1]}"#,
            #"{"name":"a","count":5,"kind":"car","next":{}}"#, #"{"name":"a","count":5,"kind":"car","next":null}"#, #"{"name":"a","count":5,"kind":"car",}"#,
        ] { #expect(!Self.allows(grammar, text), "\(text)") }
        let integer = try Self.grammar(#"{"type": "integer"}"#)
        #expect(Self.allows(integer, "-12") && !Self.allows(integer, "1.0"))
        let list = try Self.grammar(##"{"$defs": {"list": {"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#/$defs/list"}}]}}, "$ref": "#/$defs/list"}"##)
        #expect(Self.allows(list, "[[],[null,[[]]]]") && !Self.allows(list, "[1]"))
        let map = try Self.grammar(#"{"type": "object", "additionalProperties": {"type": "integer"}}"#)
        #expect(Self.allows(map, #"{"a":1,"b":2}"#) && !Self.allows(map, #"{"a":"1"}"#))
        // One that leads to itself without a value is no text, and no trap.
        let empty = try Self.grammar(##"{"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}"##)
        #expect(JSONMachine(empty).after(UInt8(ascii: "1"), empty).isDead)
    }

    // A failure means that a small schema keeps the engine busy for ever.
    @Test("references that lead to each other in many ways, and long enumerations, take little time")
    func manyWays() throws {
        let knot = try Self.grammar(##"{"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}, {"$ref": "#/$defs/b"}, {"type": "integer"}]}, "b": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}"##)
        #expect(Self.allows(knot, "12") && !Self.allows(knot, "x"))
        let names = (0 ..< 1000).map { "\"name \($0)\"" }
        let long = try Self.grammar("{\"enum\": [\(names.joined(separator: ","))]}")
        #expect(names.allSatisfy { Self.allows(long, $0) } && !Self.allows(long, "\"name 1000\""))
    }

    // A failure means that a schema constrains less than somebody thinks.
    @Test("what a schema asks for beyond this is refused by name", arguments: [
        (#"{"type": "string", "minLength": 3}"#, "minLength"), (#"{"type": "string", "pattern": "a+"}"#, "pattern"), (#"{"type": "integer", "minimum": 0}"#, "minimum"),
        (#"{"type": "array", "minItems": 1}"#, "minItems"), (#"{"allOf": [{}]}"#, "allOf"), (#"{"not": {}}"#, "not"), (#"{"type": "object", "patternProperties": {}}"#, "patternProperties"),
        (#"{"$ref": "http://example.org/a"}"#, "$ref"), (##"{"$ref": "#/none"}"##, "$ref"), (#"{"type": "text"}"#, "type"), (#"{"type": "object", "required": ["a"]}"#, "required"),
        (#"{"type": "object", "properties": {"a": {}}, "required": ["b"]}"#, "required"), (#"{"enum": []}"#, "enum"), (#"{"anyOf": []}"#, "anyOf"), ("5", "schema"), ("false", "schema"),
        (#"{"type": "string", "format": "date"}"#, "format"), (#"{"if": {}}"#, "if"), (#"{"type": ["string"], "minLength": 1}"#, "minLength"),
    ])
    func unsupported(schema: String, word: String) throws {
        #expect(performing: { try Self.grammar(schema) }, throws: { APIError($0).status == .badRequest && APIError($0).message.contains(word) })
    }

    /// What a schema of the tests says, checked by hand.
    private static func validates(_ object: [String: Any]) -> Bool {
        guard object["name"] is String, let count = object["count"] as? NSNumber, Double(count.intValue) == count.doubleValue else { return false }
        return ["car", "cat"].contains(object["kind"] as? String) && Set(object.keys) == ["name", "count", "kind"]
    }

    // A failure means that an answer is not of the form that was asked for, whatever the model would rather say.
    @Test("answers are of the schema's form, greedy and at any temperature")
    func answers() async throws {
        let schema: [String: Any] = [
            "type": "object", "additionalProperties": false, "required": ["name", "count", "kind"],
            "properties": ["name": ["type": "string"], "count": ["type": "integer"], "kind": ["enum": ["car", "cat"]]],
        ]
        let written = String(decoding: try JSONSerialization.data(withJSONObject: schema), as: UTF8.self)
        try await TestServer.run { server in
            let schema = try JSONSerialization.jsonObject(with: Data(written.utf8))
            let format: [String: Any] = ["type": "json_schema", "json_schema": ["name": "thing", "strict": true, "schema": schema]]
            let grammar = try JSONGrammar(schema: try Self.value(written), path: "")
            var whole = 0
            for seed in 0 ..< 12 {
                let answer = try await server.chat("Describe the image.", images: [seed], [
                    "response_format": format, "temperature": [0.0, 1, 3, 30][seed % 4], "seed": seed, "max_tokens": 400, "stream": false, "budget": seed % 2 == 0 ? 1 : 0.6,
                ]).json()["choices"][0]
                let text = try #require(answer["message"]["content"].string)
                var machine = JSONMachine(grammar)
                for byte in text.utf8 { machine = machine.after(byte, grammar) }
                // One that the length cut may still go on.
                #expect(!machine.isDead || text.contains("\u{FFFD}"), "\(text)")
                if answer["finish_reason"].string == "stop" {
                    whole += 1
                    let object = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
                    #expect(object.map(Self.validates) == true, "\(text)")
                }
            }
            #expect(whole > 0)
            let any = try await server.chat("Describe the image.", images: [1], ["response_format": ["type": "json_object"], "max_tokens": 60, "temperature": 2, "seed": 1]).json()
            #expect(any["choices"][0]["message"]["content"].string?.hasPrefix("{") == true)
            for bad in [["type": "grammar"], ["type": "json_schema"], ["type": "json_schema", "json_schema": ["name": "x", "schema": ["type": "string", "minLength": 1]]]] as [[String: Any]] {
                #expect(try await server.chat("Hi", ["response_format": bad] as [String: Any]).status == 400, "\(bad)")
            }
        }
    }
}

extension TestServer {
    fileprivate func chat(_ question: String, _ more: [String: Any]) async throws -> TestResponse { try await chat(question, images: [], more) }
}
