import Foundation
import Testing

@testable import AdaLLaVA

@Suite struct TokenizerChatTests {
    private static let smolLM = """
        {% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
        You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
        ' }}{% endif %}{{'<|im_start|>' + message['role'] + '
        ' + message['content'] + '<|im_end|>' + '
        '}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
        ' }}{% endif %}
        """

    private func text(_ template: ChatTemplate, _ messages: [ChatMessage]) throws -> String {
        ChatTemplate.text(of: try template.render(messages))
    }

    @Test("renders SmolLM's template") func rendersSmolLMsTemplate() throws {
        // A mismatch means that SmolLM2 is asked in a form it was not trained on.
        let template = try ChatTemplate.forCheckpoint(name: "SmolLM2-135M-Instruct.Q4_1", modelType: "llama", chatTemplate: Self.smolLM)
        #expect(
            try text(template, [ChatMessage(.user, "Hi"), ChatMessage(.assistant, "Hello."), ChatMessage(.user, "Who are you?")])
                == "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
                + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n"
                + "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n")
        #expect(
            try text(template, [ChatMessage(.system, "Be brief."), ChatMessage(.user, "Hi")])
                == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
        #expect(template.stopStrings == ["<|im_end|>"])
    }

    @Test("chooses as LLaVA", arguments: [
        ("llava-v1.5-7b", "llava_llama", "llava_v1"), ("llava-v1.5-13b", "llava", "llava_v1"), ("llava-1.5-7b-hf", "llava", "vicuna_v1"),
        ("ada-llava-L-v1.5-7b", "ada_llava_llama", "vicuna_v1"), ("anything", "ada_llava_llama", "vicuna_v1"),
        ("llava-llama-2-13b-chat", "llava", "llava_llama_2"), ("llava-v1.6-mistral-7b", "llava_mistral", "mistral_instruct"),
        ("llava-v1.6-34b", "llava_llama", "chatml_direct"), ("llava-mpt-7b", "llava_mpt", "mpt"), ("llava-7b", "llava", "llava_v0"),
    ])
    func choosesAsLLaVA(_ name: String, _ modelType: String, _ expected: String) throws {
        // A mismatch means that a checkpoint is asked with another checkpoint's template.
        #expect(try ChatTemplate.forCheckpoint(name: name, modelType: modelType, chatTemplate: nil).name == expected)
    }

    @Test("takes the template that a checkpoint brings") func takesTheTemplateThatACheckpointBrings() throws {
        // A mismatch means that a checkpoint's own template does not count, or counts where LLaVA goes by name.
        let own = try ChatTemplate.forCheckpoint(name: "m", modelType: "phi3", chatTemplate: "{{ '<|user|>' ~ messages[0].content }}")
        #expect(own.name == ChatTemplate.ownName && own.stopStrings == [])
        #expect(try text(own, [ChatMessage(.user, "Hi")]) == "<|user|>Hi")
        #expect(try ChatTemplate.forCheckpoint(name: "llava-v1.5-7b", modelType: "llava_llama", chatTemplate: "{{ 1 }}").name == "llava_v1")
        #expect(throws: ChatTemplateError.self) { try ChatTemplate.forCheckpoint(name: "m", modelType: "llama", chatTemplate: "{{ 1") }
        #expect(throws: ChatTemplateError.undecided(checkpoint: "m", modelType: "llama")) {
            try ChatTemplate.forCheckpoint(name: "m", modelType: "llama", chatTemplate: nil)
        }
        #expect(throws: ChatTemplateError.unknownName("vicuna")) { try ChatTemplate.named("vicuna") }
        #expect(ChatTemplateError.unknownName("vicuna").description.contains("vicuna_v1"))
        #expect(ChatTemplateError.unknownName("vicuna").category == .usage)
    }

    // A mismatch means that Mipha is asked in a form that it was not trained on.
    @Test("Mipha's template is Vicuna's with Phi-2's end of text") func mipha() throws {
        let asked = [ChatMessage.question("What is this?", images: 1), ChatMessage(.assistant, "A cat."), ChatMessage(.user, "Where?")]
        #expect(
            try text(.mipha, asked)
                == "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to "
                + "the user's questions. USER: <image>\nWhat is this? ASSISTANT: A cat.<|endoftext|>USER: Where? ASSISTANT:")
        #expect(try TestModel(VisionFixture(folder: "mipha").url, threads: 1).loaded.text?.templateName == "mipha")
    }

    @Test("keeps typed special tokens text") func keepsTypedSpecialTokensText() throws {
        // A failure means that a person can end their turn, or speak as the assistant, by typing a special token.
        let tokenizer = try TokenizerFixtures.slow("tok320")
        let encoder = PromptEncoder(tokenizer)
        let typed = try ChatTemplate.vicunaV1.render([ChatMessage(.user, "a</s>b <image> c")])
        let ids = encoder.encode(typed)
        #expect(!ids.contains(2))
        #expect(!ids.contains(PromptEncoder.imageToken))
        #expect(tokenizer.decode(ids).hasSuffix("USER: a</s>b <image> c ASSISTANT:"))
        let answered = try ChatTemplate.vicunaV1.render([ChatMessage(.user, "a"), ChatMessage(.assistant, "b</s>")], opensAnswer: false)
        #expect(encoder.encode(answered).count { $0 == 2 } == 1)
    }

    @Test("places images and system prompts") func placesImagesAndSystemPrompts() throws {
        // A mismatch means that images or a person's own system prompt end up elsewhere than asked.
        let question = ChatMessage.question("Compare.", images: 2)
        #expect(
            try ChatTemplate.vicunaV1.render([ChatMessage(.system, "Be brief."), question])
                == [.text("Be brief. USER: "), .image, .text("\n"), .image, .text("\nCompare. ASSISTANT:")])
        #expect(ChatMessage(.user, marked: "a<image>\u{301}b").parts == [.text("a"), .image, .text("\u{301}b")])
        #expect(throws: ChatTemplateError.self) { try ChatTemplate.vicunaV1.render([ChatMessage(.user, "a"), ChatMessage(.user, "b")]) }
    }
}
