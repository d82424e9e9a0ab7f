extension ChatTemplate {
    /// The template in Jinja, as other programs read it: of a message they give its text.
    package var jinja: String {
        func quoted(_ text: String) -> String {
            "'" + text.replacing("\\", with: "\\\\").replacing("'", with: "\\'").replacing("\n", with: "\\n") + "'"
        }
        // The system's turn: the given one, else the template's own.
        let system = "{% if messages and messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
            + "{% else %}{% set system = \(quoted(systemPrompt)) %}{% endif %}"
        let turns = "{% for message in messages %}{% if message['role'] != 'system' %}"
        let end = "{% endif %}{% endfor %}"
        func opening(_ text: String) -> String { "{% if add_generation_prompt %}{{ \(quoted(text)) }}{% endif %}" }
        switch style {
        case .jinja(let template): return template.template.source
        case .colon(let user, let assistant, let separator, let ending):
            let last = ChatTemplate.text(of: [ending])
            return system + "{{ system + \(quoted(separator)) }}" + turns
                + "{% if message['role'] == 'user' %}{{ \(quoted(user + ": ")) + message['content'] + \(quoted(separator)) }}"
                + "{% else %}{{ \(quoted(assistant + ": ")) + message['content'] + \(quoted(last)) }}{% endif %}" + end + opening(assistant + ":")
        case .chatML(let lineBreak):
            let last = quoted("<|im_end|>" + (lineBreak ? "\n" : ""))
            return system + "{% if system %}{{ '<|im_start|>system\\n' + system + \(last) }}{% endif %}" + turns
                + "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + \(last) }}" + end + opening("<|im_start|>assistant\n")
        case .headers:
            let turn = { (role: String, text: String) in "{{ '<|start_header_id|>' + \(role) + '<|end_header_id|>\\n\\n' + \(text) + '<|eot_id|>' }}" }
            return system + "{% if system %}" + turn("'system'", "system") + "{% endif %}" + turns
                + turn("message['role']", "message['content'] | trim") + end + opening("<|start_header_id|>assistant<|end_header_id|>\n\n")
        case .instruction(let wrapsSystem, let start):
            let again = ChatTemplate.text(of: start)
            let wrapped = wrapsSystem ? "{% if ns.first and system %}{{ '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' }}{% endif %}" : ""
            return system + "{% set ns = namespace(first=true) %}" + turns
                + "{% if message['role'] == 'user' %}{% if not ns.first %}{{ \(quoted(again)) }}{% endif %}{{ '[INST] ' }}" + wrapped
                + "{{ message['content'] + ' [/INST]' }}{% set ns.first = false %}{% else %}{{ ' ' + message['content'] + ' </s>' }}{% endif %}" + end
        case .plain: return system + "{{ system }}" + turns + "{{ message['content'] + '\\n' }}" + end
        }
    }
}
