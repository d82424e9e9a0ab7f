/// A conversation that cannot be written, or a template that is not there.
package enum ChatTemplateError: AdaLLaVAError, Equatable {
    /// `--template` names none.
    case unknownName(String)
    /// A template in Jinja cannot be read, or fails or refuses when it is rendered.
    case jinja(template: String, error: JinjaError)
    /// Nothing says which template a checkpoint was trained with.
    case undecided(checkpoint: String, modelType: String)
    /// The turns have no form in a template.
    case turns(template: String, reason: String)

    package var category: ErrorCategory {
        switch self {
        case .unknownName, .turns: .usage
        case .jinja(_, let error): if case .raised = error.reason { .usage } else { .badData }
        case .undecided: .badData
        }
    }

    package var description: String {
        let names = "--template NAME chooses one: " + ChatTemplate.names.joined(separator: ", ")
        return switch self {
        case .unknownName(let name): "there is no chat template \"\(name)\"; \(names)"
        case .jinja(let template, let error): "the chat template \(template), \(error); --chat-template FILE gives another, \(names)"
        case .undecided(let checkpoint, let modelType):
            "\(checkpoint): a \(modelType) model without a chat template; --chat-template FILE gives one, \(names)"
        case .turns(let template, let reason): "the template \(template) cannot write this conversation: \(reason)"
        }
    }
}

extension ChatTemplate {
    private static let endOfSequence = PromptSegment.special("</s>")
    private static let curiousHuman =
        "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers "
        + "to the human's questions."

    /// Vicuna 1.1, which LLaVA-1.5 and AdaLLaVA were trained with.
    package static let vicunaV1 = ChatTemplate(
        name: "vicuna_v1",
        systemPrompt: "A chat between a curious user and an artificial intelligence assistant. "
            + "The assistant gives helpful, detailed, and polite answers to the user's questions.",
        style: .colon(user: "USER", assistant: "ASSISTANT", separator: " ", end: endOfSequence), stopStrings: ["</s>"])

    /// Vicuna 1.1 with Phi-2's end of text, which Mipha was trained with.
    package static let mipha = ChatTemplate(
        name: "mipha", systemPrompt: vicunaV1.systemPrompt,
        style: .colon(user: "USER", assistant: "ASSISTANT", separator: " ", end: .special("<|endoftext|>")), stopStrings: ["<|endoftext|>"])

    /// LLaVA-1.0's form of Vicuna 1.1.
    package static let llavaV1 = ChatTemplate(
        name: "llava_v1", systemPrompt: curiousHuman,
        style: .colon(user: "USER", assistant: "ASSISTANT", separator: " ", end: endOfSequence), stopStrings: ["</s>"])

    /// LLaVA's first template, with `###` between turns.
    package static let llavaV0 = ChatTemplate(
        name: "llava_v0", systemPrompt: curiousHuman,
        style: .colon(user: "Human", assistant: "Assistant", separator: "###", end: .text("###")), stopStrings: ["###"])

    /// Vicuna 1.1 with image tags, as early LLaVA checkpoints use it.
    package static let v1MMTag = ChatTemplate(
        name: "v1_mmtag",
        systemPrompt: "A chat between a curious user and an artificial intelligence assistant. "
            + "The assistant is able to understand the visual content that the user provides, and assist the user with a variety of tasks "
            + "using natural language.The visual content will be provided with the following format: <Image>visual content</Image>.",
        style: .colon(user: "USER", assistant: "ASSISTANT", separator: " ", end: endOfSequence), stopStrings: ["</s>"])

    /// Llama 2's form with LLaVA's system prompt.
    package static let llavaLlama2 = ChatTemplate(
        name: "llava_llama_2",
        systemPrompt: "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
            + "provides, and assist the user with a variety of tasks using natural language.",
        style: .instruction(wrapsSystem: true, start: [.special("<s>")]), stopStrings: ["</s>"])

    /// Llama 2's own, without LLaVA's system prompt.
    package static let llama2 = ChatTemplate(
        name: "llama_2", systemPrompt: "", style: .instruction(wrapsSystem: true, start: [.special("<s>")]), stopStrings: ["</s>"])

    /// Mistral's instruction form.
    package static let mistralInstruct = ChatTemplate(
        name: "mistral_instruct", systemPrompt: "", style: .instruction(wrapsSystem: true, start: []), stopStrings: ["</s>"])

    /// MPT's ChatML, with LLaVA's system prompt.
    package static let mpt = ChatTemplate(
        name: "mpt",
        systemPrompt: "A conversation between a user and an LLM-based AI assistant. The assistant gives helpful and honest answers.",
        style: .chatML(lineBreak: false), stopStrings: ["<|im_end|>"])

    /// ChatML as LLaVA-1.6-34B writes it: no line break after a turn.
    package static let chatMLDirect = ChatTemplate(
        name: "chatml_direct", systemPrompt: "Answer the questions.", style: .chatML(lineBreak: false), stopStrings: ["<|im_end|>"])

    /// ChatML as text models write it.
    package static let chatML = ChatTemplate(
        name: "chatml", systemPrompt: "", style: .chatML(lineBreak: true), stopStrings: ["<|im_end|>"])

    /// Llama 3's form with header tokens.
    package static let llama3 = ChatTemplate(name: "llama_3", systemPrompt: "", style: .headers, stopStrings: ["<|eot_id|>"])

    /// The texts alone: for completing text, and for LLaVA's pretraining stage.
    package static let plain = ChatTemplate(name: "plain", systemPrompt: "", style: .plain, stopStrings: [])

    /// Every template that is built in.
    package static let all = [
        vicunaV1, llavaV1, llavaV0, llavaLlama2, plain, chatML, chatMLDirect, llama2, llama3, mistralInstruct, mpt, v1MMTag, mipha,
    ]

    /// The names that ``named(_:)`` takes.
    package static var names: [String] { all.map(\.name) }

    /// - Throws: ``ChatTemplateError/unknownName(_:)``
    package static func named(_ name: String) throws -> ChatTemplate {
        // LLaVA's own short names for two of them.
        let aliases = ["v1": "vicuna_v1", "mistral_direct": "chatml_direct"]
        guard let template = all.first(where: { $0.name == aliases[name] ?? name }) else { throw ChatTemplateError.unknownName(name) }
        return template
    }

    /// The name of a template that a checkpoint brings.
    package static let ownName = "chat_template"

    /// The template of a checkpoint: for LLaVA models chosen by name, as LLaVA's scripts choose it; for others the one in Jinja that they bring.
    /// - Parameters:
    ///   - name: the checkpoint's folder or file name.
    ///   - modelType: `model_type` of its config.json, or a GGUF's architecture.
    ///   - chatTemplate: its Jinja template, if it brings one.
    ///   - specialTokens: `bos_token`, `eos_token` and the like, for that template.
    ///   - imageMark: the template's placeholder of an image.
    /// - Throws: ``ChatTemplateError/jinja(template:error:)``, ``ChatTemplateError/undecided(checkpoint:modelType:)``
    package static func forCheckpoint(
        name: String, modelType: String, chatTemplate: String?, specialTokens: [String: String] = [:],
        imageMark: String = ChatMessage.imageMark
    ) throws -> ChatTemplate {
        let type = modelType.lowercased()
        if type.hasPrefix("ada_llava") { return .vicunaV1 }
        if type.hasPrefix("llava") { return forLLaVA(name.lowercased(), type) }
        guard let chatTemplate else { throw ChatTemplateError.undecided(checkpoint: name, modelType: modelType) }
        return try ChatTemplate(jinja: chatTemplate, name: ownName, specialTokens: specialTokens, imageMark: imageMark)
    }

    private static func forLLaVA(_ name: String, _ type: String) -> ChatTemplate {
        if name.contains("llama-2") { return .llavaLlama2 }
        if name.contains("mistral") || type.contains("mistral") { return .mistralInstruct }
        if name.contains("v1.6-34b") { return .chatMLDirect }
        // llava-hf names its conversions of LLaVA-1.5 without the v.
        if name.contains("1.5") && !name.contains("v1.5") { return .vicunaV1 }
        if name.contains("v1") { return .llavaV1 }
        if name.contains("mpt") || type.contains("mpt") { return .mpt }
        // "llava" alone is also the type of llava-hf's checkpoints, all of which are 1.5 or later.
        return name.hasSuffix("-hf") ? .vicunaV1 : .llavaV0
    }
}
