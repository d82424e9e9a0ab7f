import Foundation
import Testing

@testable import AdaLLaVA

/// Recorded results of Jinja2 and of the tokenizers library (Tests/Tools/record_templates.py).
enum TemplateFixtures {
    static func url(_ path: String) -> URL { Fixtures.url("chat-templates/\(path)") }

    static func json(_ path: String) throws -> ByteJSON { try ByteJSON(parsing: [UInt8](try Data(contentsOf: url(path))), file: path) }

    static func source(_ name: String) throws -> String { try String(contentsOf: url("templates/\(name).jinja"), encoding: .utf8) }

    /// When the fixtures were recorded, in the time zone of whoever runs this: 5 July 2024, 12:30:15.
    static let now = DateComponents(calendar: Calendar(identifier: .gregorian), year: 2024, month: 7, day: 5, hour: 12, minute: 30, second: 15).date

    static func value(_ json: ByteJSON) -> JinjaValue {
        switch json {
        case .null: .none
        case .bool(let value): .bool(value)
        case .number(let value): json.int.map(JinjaValue.int) ?? .double(value)
        case .string: .text(json.text ?? "")
        case .array(let values): .list(JinjaList(values.map(value)))
        case .object(let entries): .dict(JinjaDict(entries.map { (String(decoding: $0.key, as: UTF8.self), value($0.value)) }))
        }
    }
}

@Suite struct JinjaLanguageTests {
    private func render(_ source: String, _ variables: [String: JinjaValue] = [:]) throws -> JinjaText {
        try JinjaTemplate(source).render(variables)
    }

    private func error(_ source: String, _ variables: [String: JinjaValue] = [:]) -> JinjaError? {
        do {
            _ = try render(source, variables)
            return nil
        } catch {
            return error as? JinjaError
        }
    }

    @Test("templates render as in Jinja2") func agreesWithJinja2() throws {
        // A mismatch means that a construct of the language has another meaning than in Jinja2, so some checkpoint's prompts are not its own.
        let root = try TemplateFixtures.json("jinja.json")
        var variables: [String: JinjaValue] = [:]
        for (key, value) in root["variables"]?.object ?? [] { variables[String(decoding: key, as: UTF8.self)] = TemplateFixtures.value(value) }
        let cases = try #require(root["cases"]?.array)
        #expect(cases.count > 200)
        for entry in cases {
            let source = try #require(entry["template"]?.text)
            let expected = entry["text"]?.bytes
            let found = try? JinjaTemplate(source).render(variables, now: #require(TemplateFixtures.now)).string
            #expect(found.map { Array($0.utf8) } == expected, "\(source)\nexpected \(entry["text"]?.text ?? "an error"), found \(found ?? "an error")")
        }
    }

    @Test("says what is wrong and where", arguments: [
        ("a\n{% if x %}", "line 2: expected elif or else or endif for the if of line 2, found the end of the template"),
        ("{{ 1 +\n }}", "line 2: expected an expression, found }}"), ("{% foo %}", "line 1: expected a tag of Jinja, found \"foo\""),
        ("\n{{ x", "line 2: expected }} for the tag of line 2, found the end of the template"),
        ("{{ [1) }}", "line 1: expected \"]\", found \")\""), ("{{ a b }}", "line 1: expected }}, found \"b\""),
        ("{% for x in y %}{% endif %}", "line 1: expected a tag of Jinja, found \"endif\""),
        ("\n\n{{ m.a.b }}", "line 3: \"m\" is undefined"), ("{{ 'x' | nope }}", "line 1: there is no filter \"nope\""),
        ("{{\n1 + 'a' }}", "line 2: \"+\" is not defined for int and str"),
        ("{{ raise_exception('Roles must alternate') }}", "line 1: the template refuses the conversation: Roles must alternate"),
        ("{% include 'x' %}", "line 1: expected a template that stands alone, found \"include\", which needs other templates"),
    ])
    func saysWhatIsWrongAndWhere(_ source: String, _ expected: String) {
        // A mismatch means that a person is not told which line of a template to look at, or why.
        #expect(error(source)?.description == expected)
    }

    @Test("keeps the origin of text") func keepsTheOriginOfText() throws {
        // A failure means that what a person typed counts as the template's, and can become a special token, or the other way round.
        let typed = JinjaValue.text(JinjaText(" <b>X</b> ", .message))
        func typedText(_ source: String) throws -> String {
            try render(source, ["x": typed]).stretches.map { $0.origin == .message ? "[\($0.text)]" : $0.text }.joined()
        }
        #expect(try typedText("<a>{{ x }}</a>") == "<a>[ <b>X</b> ]</a>")
        #expect(try typedText("{{ '<a>' + x | trim + '</a>' }}") == "<a>[<b>X</b>]</a>")
        #expect(try typedText("{{ x[2:4] ~ '!' ~ x[::-1] }}") == "[b>]![ >b/<X>b< ]")
        #expect(try typedText("{{ x.replace('X', 'y') }}{{ x.upper() }}{{ (x * 2) | length }}") == "[ <b>]y[</b>  <B>X</B> ]20")
        #expect(try typedText("{{ x.split('X') | join('|') }}") == "[ <b>]|[</b> ]")
        #expect(try typedText("{{ '%s-%s' % (x, 1) }}{{ '{}'.format(x) }}") == "[ <b>X</b> ]-1[ <b>X</b> ]")
        #expect(try typedText("{{ [x] | tojson }}{{ x | indent }}{{ x | title }}") == "[\"[ <b>X</b> ]\"][ <b>X</b>  <B>x</b> ]")
        #expect(try typedText("{% set y %}<{{ x }}>{% endset %}{{ y | reverse }}{{ y | list | last }}") == ">[ >b/<X>b< ]<>")
        #expect(try typedText("{% macro f(t) %}({{ t }}){% endmacro %}{{ f(x) | upper }}{{ {'k': x}.k }}") == "([ <B>X</B> ])[ <b>X</b> ]")
        #expect(try typedText("{% for c in x.strip() if c != 'b' %}{{ c }}{% endfor %}{{ x | string | first }}") == "[<>X</> ]")
    }

    @Test("lets lists and namespaces change") func letsListsAndNamespacesChange() throws {
        // A failure means that templates which collect values in a list do not work.
        #expect(try render("{% set l = [1] %}{{ l.append(2) }}{{ l }}{{ l.pop(0) }}{{ l }}").string == "None[1, 2]1[2]")
        #expect(try render("{% set n = namespace(l=[]) %}{% for i in range(3) %}{% set _ = n.l.append(i) %}{% endfor %}{{ n.l }}").string == "[0, 1, 2]")
    }
}
