import Foundation
import Testing

@testable import AdaLLaVA

@Suite struct JinjaLimitTests {
    /// Templates that would run, recur or grow without end, with the limit that stops each.
    static let endless: [(String, String)] = [
        ("{% for i in range(10**9) %}x{% endfor %}", "steps"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}", "memory"),
        ("{% for a in 'ab' * 999 %}{% for b in 'ab' * 999 %}{% for c in 'ab' * 999 %}{% endfor %}{% endfor %}{% endfor %}", "memory"),
        ("{% set ns = namespace(s='ab') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}", "memory"),
        ("{{ 'x' * 10**10 }}", "memory"), ("{{ [1] * 10**10 }}", "memory"), ("{{ 'a'.ljust(10**9) }}", "memory"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nested calls"),
        ("{% macro f(n) %}{{ f(n) ~ f(n) }}{% endmacro %}{{ f(1) }}", "nested calls"),
        ("{% macro f(n=f()) %}{% endmacro %}{{ f() }}", "nested evaluation"),
        ("{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{{ f() }}", "nested calls"),
        ("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "nested calls"),
        ("{% for i in range(100000) %}{{ ('a' * 1000000)[::-1] | length }}{% endfor %}", "memory"),
        ("{% set a = 'a' * 1000000 %}{{ ('a' * 500000 ~ 'b') in a }}", "steps"),
        ("{% set a = 'a' * 1000000 %}{{ a.rfind('a' * 500000 ~ 'b') }}", "steps"),
        ("{% set a = 'a' * 1000000 %}{{ a.replace('', a) }}", "memory"),
        ("{% for i in range(100) %}{{ 'a' * 1000000 }}{% endfor %}", "output"),
        ("{% set ns = namespace(x=(1,)) %}{% for i in range(40) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ ns.x }}", "steps"),
        ("{% set ns = namespace(x=(1,)) %}{% for i in range(40) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ ns.x | tojson }}", "steps"),
        ("{% set ns = namespace(x=[]) %}{% for i in range(200) %}{% set ns.x = [ns.x] %}{% endfor %}", "nested values"),
        ("{% set ns = namespace(x=[]) %}{% for i in range(200) %}{% set ns.x = [ns.x.pop] %}{% endfor %}", "nested values"),
        ("{% set l = [] %}{% set _ = l.append(l) %}{{ l }}", "nested values"),
        ("{% set l = [] %}{% set _ = l.append(l) %}{{ l == [l] }}{{ l | tojson }}", "nested values"),
        ("{% for i in range(900000) %}{{ '%999d' % i }}{% endfor %}", "memory"),
        ("{{ [1] | batch(10**9, 1) }}", "memory"), ("{{ (['a' * 100000] * 10000) | sort }}", "memory"),
    ]

    @Test("ends what has no end", arguments: endless)
    func endsWhatHasNoEnd(_ source: String, _ limit: String) throws {
        // A failure means that a checkpoint's template can keep the engine busy for ever, take all memory or end the process.
        let start = ContinuousClock.now
        let error = #expect(throws: JinjaError.self, "\(source)") { try JinjaTemplate(source).render([:]) }
        guard case .limit(let name, _)? = error?.reason else {
            Issue.record("\(source): \(error.map(String.init(describing:)) ?? "no error")")
            return
        }
        #expect(name == limit, "\(source)")
        #expect(ContinuousClock.now - start < .seconds(60), "\(source)")
    }

    @Test("ends what is deep") func endsWhatIsDeep() {
        // A failure means that a template's source can overflow the stack.
        func nested(_ open: String, _ inner: String, _ close: String, _ count: Int = 20_000) -> String {
            String(repeating: open, count: count) + inner + String(repeating: close, count: count)
        }
        let sources = [
            "{{ \(nested("(", "1", ")")) }}", "{{ \(nested("[", "1", "]")) }}", "{{ \(nested("-", "1", "")) }}", "{{ \(nested("not ", "1", "")) }}",
            "{{ \(nested("", "1", "|abs")) }}", "{{ \(nested("", "a", ".a")) }}", "{{ \(nested("", "a", "[0]")) }}", "{{ \(nested("f(", "1", ")")) }}",
            "{{ \(nested("", "1", " if 1 else 1")) }}", "{{ \(nested("{1:", "1", "}")) }}", nested("{% if 1 %}", "", "{% endif %}"),
            nested("{% for a in b %}", "", "{% endfor %}"), "{% set \(nested("(", "a", ")")) = 1 %}", nested("{% macro f() %}", "", "{% endmacro %}"),
        ]
        for source in sources {
            let error = #expect(throws: JinjaError.self) { try JinjaTemplate(source) }
            if case .limit? = error?.reason {} else { Issue.record("\(source.prefix(20)): \(error.map(String.init(describing:)) ?? "no error")") }
        }
        #expect(throws: JinjaError.self) { try JinjaTemplate(String(repeating: "a", count: 600_000)) }
        // Long is not deep.
        #expect(throws: Never.self) { try JinjaTemplate("{{ 1\(String(repeating: " + 1", count: 20_000)) }}").render([:]) }
    }

    @Test("broken templates end in errors") func survivesBrokenSources() {
        // A crash means that a damaged template ends the process.
        let source = (try? TemplateFixtures.source("llama-3.1")) ?? ""
        var generator = SystemRandomNumberGenerator()
        let characters = Array(source)
        for length in stride(from: 0, to: characters.count, by: 37) {
            _ = try? JinjaTemplate(String(characters[..<length])).render([:])
            var broken = characters
            for _ in 0..<4 { broken[Int.random(in: broken.indices, using: &generator)] = "{%}'\"|([])-.=~".randomElement(using: &generator) ?? "x" }
            _ = try? JinjaTemplate(String(broken)).render(["messages": .list(JinjaList([]))])
        }
    }

    @Test("conversations that fill a context can be rendered") func rendersLongConversations() throws {
        // A failure means that the limits refuse conversations that a model's context can hold.
        let turn = String(repeating: "All work and no play makes Jack a dull boy. ", count: 100)
        let messages = (0..<401).map { ChatMessage($0 % 2 == 0 ? .user : .assistant, turn) }
        for name in ["llama-3.1", "mistral-v3", "qwen-3", "deepseek-r1-distill", "smollm-3"] {
            let template = try ChatTemplate(jinja: try TemplateFixtures.source(name), name: name, specialTokens: ["bos_token": "<s>", "eos_token": "</s>"])
            #expect(ChatTemplate.text(of: try template.render(messages)).count > 401 * turn.count, "\(name)")
        }
    }
}
