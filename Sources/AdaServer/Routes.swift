import AdaLLaVA
import Foundation
import HTTPTypes
import Hummingbird

extension ModelServer {
    func router() -> Router<ServerContext> {
        let router = Router(context: ServerContext.self, options: .autoGenerateHeadEndpoints)
        router.middlewares.add(ErrorMiddleware(onError: { [metrics] in metrics.addError($0) }))
        router.middlewares.add(AuthorizationMiddleware(keys: options.keys, isLoopback: options.isLoopback))

        router.get("/live") { _, _ in try JSONBody.response(["status": "alive"]) }
        router.get("/health") { _, _ in
            let (running, waiting) = admission.counts
            let trouble = state.trouble(requests: running + waiting)
            var body = ["status": trouble ?? "ok"]
            if state.isUnloaded { body["model"] = "unloaded" }
            return try JSONBody.response(body, status: trouble == nil ? .ok : .serviceUnavailable)
        }
        router.get("/version") { _, _ in try JSONBody.response(["version": options.version]) }
        router.get("/v1/models") { _, _ in try JSONBody.response(ModelList(data: [try description()])) }
        router.get("/v1/models/**") { request, _ in
            let name = request.uri.path.dropFirst("/v1/models/".count)
            try check(name: name.removingPercentEncoding ?? "")
            return try JSONBody.response(try description())
        }
        Page.add(to: router)
        router.get("/openapi.json") { _, _ in
            Response(status: .ok, headers: [.contentType: "application/json"], body: ResponseBody(byteBuffer: ByteBuffer(bytes: PackageResources.openapi_json)))
        }
        router.post("/tokenize") { request, context in try await tokenize(request, context) }
        router.post("/detokenize") { request, context in try await detokenize(request, context) }
        router.get("/metrics") { _, _ in
            let text = metrics.text(try description().id, modelLoad, admission.counts)
            return Response(
                status: .ok, headers: [.contentType: "text/plain; version=0.0.4; charset=utf-8"], body: ResponseBody(byteBuffer: ByteBuffer(string: text)))
        }
        router.get("/v1/loads") { _, _ in
            _ = try description()
            return try JSONBody.response(LoadReport(modelLoad, admission, metrics))
        }
        router.post("/v1/embeddings") { request, context in try await embeddings(request, context) }
        router.post("/v1/attention") { request, context in try await attention(request, context) }
        router.post("/v1/messages/count_tokens") { request, context in try await countTokens(request, context) }
        addFileRoutes(to: router)
        addBatchRoutes(to: router)
        for route in AnswerRoute.allCases {
            router.post(RouterPath(route.rawValue)) { request, context in
                var request = request
                let fields = try JSONBody.fields(try await collect(&request, context))
                return try await respond(try await answerRequest(route, fields, headers: request.headers), request, context)
            }
        }
        return router
    }

    /// The model, if a request means it or none in particular. One that was unloaded is loaded again first.
    /// - Throws: ``APIError`` while it is loaded for the first time, and for another name.
    func model(named name: String? = nil) async throws -> AdaptiveModel {
        try check(name: name)
        return try await state.use()
    }

    private func check(name: String?) throws {
        let own = try description().id
        guard name == nil || name == own else {
            throw APIError(.notFound, "the model \(name?.prefix(80) ?? "") is not here; this server answers with \(own)", parameter: "model", code: "model_not_found")
        }
    }

    /// The name that answers carry.
    func modelName(_ model: AdaptiveModel) -> String { options.modelName ?? model.name }

    /// - Throws: ``APIError`` while the model is loaded for the first time.
    private func description() throws -> ModelDescription {
        guard let description = state.description else {
            throw APIError(.serviceUnavailable, "the model is still being loaded", code: "loading", retryAfter: 1)
        }
        return description
    }

    /// Load of the model.
    private var modelLoad: ModelLoad { state.model?.load ?? ModelLoad() }

    // MARK: - Tokens

    /// vLLM's `/tokenize`: of a prompt, or of messages in the model's chat template; -200 for each image.
    private func tokenize(_ request: Request, _ context: ServerContext) async throws -> Response {
        var request = request
        var fields = try JSONBody.fields(try await collect(&request, context))
        let model = try await model(named: try fields.string("model"))
        let tokens: [Int]
        if let prompt = try fields.string("prompt") {
            tokens = try model.tokenize(prompt: prompt)
        } else {
            tokens = try model.tokenize(try ChatRequest.conversation(&fields).0)
        }
        try fields.neutral("add_special_tokens") { $0 == .bool(true) }
        try fields.neutral("add_generation_prompt") { $0 == .bool(true) }
        try fields.expectNothingElse()
        return try JSONBody.response(TokenList(tokens: tokens, maxModelLen: model.contextLength))
    }

    /// Anthropic's count of a prompt's tokens.
    private func countTokens(_ request: Request, _ context: ServerContext) async throws -> Response {
        var request = request
        let fields = try JSONBody.fields(try await collect(&request, context))
        let messages = try MessagesRequest(fields, headers: request.headers, counts: true)
        return try JSONBody.response(["input_tokens": try messages.promptTokens(try await model(named: messages.model))])
    }

    private func detokenize(_ request: Request, _ context: ServerContext) async throws -> Response {
        var request = request
        var fields = try JSONBody.fields(try await collect(&request, context))
        let model = try await model(named: try fields.string("model"))
        guard let elements = try fields.array("tokens") else { throw fields.wrong("tokens", expected: "a list of token ids", found: nil) }
        let tokens = try elements.map { element in
            guard case .integer(let id) = element else { throw fields.wrong("tokens", expected: "token ids", found: element) }
            return id
        }
        try fields.expectNothingElse()
        return try JSONBody.response(["prompt": try model.detokenize(tokens)])
    }
}

/// `/v1/models`.
struct ModelList: Encodable {
    let object = "list"
    let data: [ModelDescription]
}

/// Description of a model for clients and gateways.
struct ModelDescription: Encodable {
    struct Adaptive: Encodable {
        /// The smallest budget that still changes anything.
        let floor: Double
        /// Layers that always run, and all.
        let prefixLayers: Int
        let layers: Int
        /// Heads, and MLP groups, of a layer.
        let switches: Int
    }

    let id: String
    let object = "model"
    let created: Int
    let ownedBy = "adallava"
    let root: String
    let parent = Nullable<String>(nil)
    let maxModelLen: Int
    let vision: Bool
    let adaptive: Nullable<Adaptive>

    init(id: String, created: Int, _ model: AdaptiveModel) {
        (self.id, root, self.created) = (id, id, created)
        (maxModelLen, vision) = (model.contextLength, model.hasVision)
        let shape = model.planShape
        adaptive = Nullable(
            model.budgetFloor.map { Adaptive(floor: $0, prefixLayers: model.prefixLayers, layers: shape.layers, switches: shape.switches) })
    }
}

/// `/tokenize`.
struct TokenList: Encodable {
    let count: Int
    let maxModelLen: Int
    let tokens: [Int]

    init(tokens: [Int], maxModelLen: Int) { (count, self.maxModelLen, self.tokens) = (tokens.count, maxModelLen, tokens) }
}
