import AdaLLaVA
import Hummingbird

/// `/v1/attention`: the latency token's attention to an image.
struct AttentionReport: Encodable {
    struct Layer: Encodable {
        let layer: Int
        /// Fractions of the attention to the image and to the latency token itself; the remainder is to the text.
        let imageShare: Double
        let ownShare: Double
    }

    let layers: [Layer]
    /// Patches of a side, and the last prefix layer's attention to each, row by row; `nil` where features are not those of a square of patches.
    let grid: Nullable<Int>
    let weights: Nullable<[Double]>
    /// Whether the model sees the middle square, instead of the whole picture with margins.
    let crops: Bool

    init(_ attention: LatencyAttention, crops: Bool) {
        layers = attention.layers.map { Layer(layer: $0.index, imageShare: $0.imageShare, ownShare: $0.ownShare) }
        let patches = attention.layers.last.flatMap(attention.patchWeights)
        (grid, weights, self.crops) = (Nullable(patches?.grid), Nullable(patches?.weights), crops)
    }
}

extension ModelServer {
    /// Takes a chat request about one image, with the `units` that an answer had; reads its prompt once more, beside other answers.
    func attention(_ request: Request, _ context: ServerContext) async throws -> Response {
        var request = request
        var fields = try JSONBody.fields(try await collect(&request, context))
        let units = try fields.integer("units", in: 0 ... .max)
        let chat = try ChatRequest(fields, headers: request.headers), model = try await model(named: chat.model)
        guard model.isAdaptive else { throw APIError(.badRequest, "this model has no latency token", code: "not_adaptive") }
        guard chat.images.count == 1 else { throw APIError.parameter("messages", expected: "one image", found: "\(chat.images.count)") }
        let budget = units.flatMap { model.fraction(buying: $0) }.map { Budget.fraction($0) } ?? chat.generation.asked
        let tokens = try model.tokenize(chat.conversation)
        let work = model.queued(tokens: tokens, images: 1, budget: budget, maxTokens: 1, question: "")
        var response = try await request.body.consumeWithCancellationOnInboundClose { _ in
            try await admission.admit(chat.generation.order(client: context.client, work), slots: 1) {
                let image = try await media.images(chat.images, for: model)[0]
                state.noteWork()
                let attention = try await model.latencyAttention(tokens: tokens, image: image, budget: budget)
                state.noteWork()
                return try JSONBody.response(AttentionReport(attention, crops: model.cropsImages))
            }
        }
        response.headers[.connection] = "close"
        return response
    }
}
