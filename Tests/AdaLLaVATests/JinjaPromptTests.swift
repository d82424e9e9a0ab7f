import Foundation
import Testing

@testable import AdaLLaVA

@Suite struct JinjaPromptTests {
    private static func tokenizers() throws -> [String: any Tokenizer] {
        var tokenizers: [String: any Tokenizer] = [:]
        for name in ["bytes", "pieces", "first"] {
            let bytes = [UInt8](try Data(contentsOf: TemplateFixtures.url("\(name).tokenizer.json")))
            tokenizers[name] = try TokenizerJSON(bytes, file: name).makeTokenizer()
        }
        return tokenizers
    }

    private static func messages(_ json: ByteJSON?) -> [ChatMessage] {
        (json?.array ?? []).map { message in
            let parts = (message["parts"]?.array ?? []).flatMap { part -> [ChatMessage.Part] in
                part.text.map { [.text($0)] } ?? [.image, .text("\n")]
            }
            return ChatMessage(ChatRole(rawValue: message["role"]?.text ?? "") ?? .user, parts: parts)
        }
    }

    @Test("prompts equal those of transformers") func agreesWithTransformers() throws {
        // A mismatch means that a family of models is asked in another form than it was trained on, that an image stands elsewhere, or that a
        // typed mark of a template counts as one.
        let root = try TemplateFixtures.json("prompts.json")
        let tokenizers = try Self.tokenizers()
        let rows = try #require(root["rows"]?.array)
        var families: Set<String> = []
        for row in rows {
            let (name, conversation) = (try #require(row["template"]?.text), try #require(row["conversation"]?.text))
            var tokens = ["pad_token": "<pad>"]
            tokens["bos_token"] = row["bos"]?.text
            tokens["eos_token"] = row["eos"]?.text
            let template = try JinjaChatTemplate(
                try TemplateFixtures.source(name), specialTokens: tokens, imageMark: try #require(row["mark"]?.text))
            let messages = Self.messages(root["conversations"]?[conversation])
            let place = "\(name), \(conversation), \(row["tokenizer"]?.text ?? "")"
            families.insert(name)
            guard let expected = row["ids"]?.array else {
                #expect(throws: JinjaError.self, "\(place)") { try template.render(messages, opensAnswer: true) }
                continue
            }
            do {
                let segments = try template.render(messages, opensAnswer: true, now: #require(TemplateFixtures.now))
                let tokenizer = try #require(row["tokenizer"]?.text.flatMap { tokenizers[$0] })
                let ids = PromptEncoder(tokenizer).encode(segments, writtenBy: template.template.source)
                #expect(ids == expected.compactMap(\.int), "\(place): \(ChatTemplate.text(of: segments).debugDescription)")
            } catch {
                Issue.record("\(place): \(error)")
            }
        }
        #expect(families.count >= 40 && rows.count >= 600)
    }

    @Test("finds whether a template takes parts", arguments: [
        ("llama-3.1", JinjaContentFormat.text), ("qwen-2.5", .text), ("chatml", .text), ("vicuna", .text), ("smollm-3", .text), ("qwen-3", .text),
        ("llava-1.5-hf", .parts), ("smolvlm", .parts), ("idefics-2", .parts), ("paligemma", .parts), ("llava-next-mistral", .parts),
        ("qwen-2-vl", .either), ("gemma-3", .either), ("llama-3.2-vision", .either), ("pixtral", .either), ("mistral-v7", .either), ("glm-4.1v", .either),
    ])
    func findsWhetherATemplateTakesParts(_ name: String, _ expected: JinjaContentFormat) throws {
        // A mismatch means that a template is given a list where it writes a text, or loses text that it is not given as a list.
        #expect(JinjaContentReader.format(of: try JinjaTemplate(try TemplateFixtures.source(name)).statements) == expected)
    }

    @Test("refuses templates that drop images") func refusesTemplatesThatDropImages() throws {
        // A failure means that an image is left out of a prompt without a word.
        let template = try ChatTemplate(jinja: "{% for m in messages %}{{ m.content | replace('<image>', '') }}{% endfor %}", name: "t")
        #expect(throws: ChatTemplateError.self) { try template.render([.question("What?", images: 1)]) }
        #expect(throws: Never.self) { try template.render([ChatMessage(.user, "<image> as text")]) }
    }

    @Test("says how to get around a template") func saysHowToGetAroundATemplate() throws {
        // A mismatch means that a person whose checkpoint's template fails is not told what else to do.
        let error = #expect(throws: ChatTemplateError.self) { try ChatTemplate(jinja: "a\n{% if %}", name: "chat_template") }
        let message = error?.description ?? ""
        #expect(message.contains("chat_template, line 2: expected an expression") && message.contains("--chat-template FILE") && message.contains("--template NAME"))
        #expect(error?.category == .badData)
        let refusing = try ChatTemplate(jinja: "{{ raise_exception('System role not supported') }}", name: "chat_template")
        let refusal = #expect(throws: ChatTemplateError.self) { try refusing.render([ChatMessage(.user, "a")]) }
        #expect(refusal?.category == .usage && refusal?.description.contains("System role not supported") == true)
    }

    @Test("reads templates from where checkpoints keep them") func readsTemplatesFromWhereCheckpointsKeepThem() throws {
        // A mismatch means that a checkpoint's own template is not found, or that the wrong one of several counts.
        let tokenizer = [UInt8](try Data(contentsOf: TemplateFixtures.url("bytes.tokenizer.json")))
        func load(_ files: [String: String]) throws -> TokenizerLoader.Loaded {
            try TokenizerLoader.load(from: "m") { name in
                name == "tokenizer.json" ? (tokenizer, name) : files[name].map { (Array($0.utf8), name) }
            }
        }
        let named = #"{"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}], "bos_token": {"content": "<s>"}, "image_token": "<image>"}"#
        let loaded = try load(["tokenizer_config.json": named])
        #expect(loaded.chatTemplate == "D")
        #expect(loaded.specialTokens["bos_token"] == "<s>" && loaded.specialTokens["image_token"] == "<image>" && loaded.specialTokens["eos_token"] == nil)
        #expect(try load(["tokenizer_config.json": named, "chat_template.jinja": "J"]).chatTemplate == "J")
        #expect(try load(["tokenizer_config.json": named, "chat_template.json": #"{"chat_template": "P"}"#]).chatTemplate == "P")
        #expect(try load([:]).specialTokens["eos_token"] == "</s>")
        #expect(ChatTemplateChoice.named("vicuna_v1") == "vicuna_v1")
    }

    @Test("reads templates from files") func readsTemplatesFromFiles() throws {
        // A mismatch means that --chat-template does not take the file that it is given.
        try CheckpointFixtures.withTemporaryFolder { folder in
            let (plain, wrapped) = (folder.appendingPathComponent("t.jinja"), folder.appendingPathComponent("t.json"))
            try Data("{{ messages[0].content }}!".utf8).write(to: plain)
            try Data(#"{"chat_template": "{{ bos_token }}?"}"#.utf8).write(to: wrapped)
            #expect(ChatTemplate.text(of: try ChatTemplateChoice.file(plain).load().render([ChatMessage(.user, "a")])) == "a!")
            let tokens = ["bos_token": "<s>"]
            #expect(ChatTemplate.text(of: try ChatTemplateChoice.file(wrapped).load(specialTokens: tokens).render([ChatMessage(.user, "a")])) == "<s>?")
            #expect(throws: CheckpointError.self) { try ChatTemplateChoice.file(folder.appendingPathComponent("none")).load() }
            try Data("{}".utf8).write(to: wrapped)
            #expect(throws: CheckpointError.self) { try ChatTemplateChoice.file(wrapped).load() }
        }
    }
}
