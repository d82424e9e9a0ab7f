import AdaLLaVA
import Foundation
import HTTPTypes
import Hummingbird

/// The body of `/v1/embeddings`: images, each of which becomes one vector.
struct EmbeddingRequest: Sendable {
    let model: String?
    let images: [ImageReference]
    let isBase64: Bool

    init(_ fields: RequestFields) throws {
        var fields = fields
        model = try fields.string("model")
        switch fields.take("input") {
        case .string(let url): images = [ImageReference(url: url)]
        case .array(let elements) where !elements.isEmpty && elements.count <= 256:
            images = try elements.map { element in
                guard case .string(let url) = element else { throw fields.wrong("input", expected: "images as data: URLs", found: element) }
                return ImageReference(url: url)
            }
        case let other: throw fields.wrong("input", expected: "an image as a data: URL, or up to 256 of them", found: other)
        }
        let format = try fields.string("encoding_format") ?? "float"
        guard ["float", "base64"].contains(format) else { throw fields.wrong("encoding_format", expected: "float or base64", found: .string(format)) }
        isBase64 = format == "base64"
        _ = try fields.string("user")
        try fields.expectNothingElse()
    }
}

/// Vectors of images in OpenAI's form.
struct EmbeddingList: Encodable {
    enum Vector: Encodable {
        case numbers([Float])
        /// Float32, the least significant byte first.
        case base64(String)

        func encode(to encoder: any Encoder) throws {
            var container = encoder.singleValueContainer()
            switch self {
            case .numbers(let numbers): try container.encode(numbers)
            case .base64(let text): try container.encode(text)
            }
        }
    }

    struct Item: Encodable {
        let object = "embedding"
        let index: Int
        let embedding: Vector
    }

    struct EmbeddingUsage: Encodable {
        let promptTokens: Int
        let totalTokens: Int
    }

    let object = "list"
    let data: [Item]
    let model: String
    let usage: EmbeddingUsage
}

extension ModelServer {
    /// The mean of an image's features, at length 1.
    func embeddings(_ request: Request, _ context: ServerContext) async throws -> Response {
        var request = request
        let wanted = try EmbeddingRequest(try JSONBody.fields(try await collect(&request, context)))
        let model = try await model(named: wanted.model)
        var response = try await request.body.consumeWithCancellationOnInboundClose { _ in
            try await admission.admit(Admission.Order(client: context.client), slots: 1) {
                var items: [EmbeddingList.Item] = [], tokens = 0
                for (index, image) in try await media.images(wanted.images, for: model).enumerated() {
                    state.noteWork()
                    let features = try await model.features(of: image)
                    tokens += features.count
                    items.append(.init(index: index, embedding: Self.vector(features, isBase64: wanted.isBase64)))
                }
                let list = EmbeddingList(data: items, model: modelName(model), usage: .init(promptTokens: tokens, totalTokens: tokens))
                return try JSONBody.response(list)
            }
        }
        response.headers[.connection] = "close"
        return response
    }

    private static func vector(_ features: [[Float]], isBase64: Bool) -> EmbeddingList.Vector {
        var mean = [Double](repeating: 0, count: features.first?.count ?? 0)
        for row in features { for (column, value) in row.enumerated() { mean[column] += Double(value) } }
        let length = mean.reduce(0) { $0 + $1 * $1 }.squareRoot()
        let vector = mean.map { Float(length > 0 ? $0 / length : 0) }
        if !isBase64 { return .numbers(vector) }
        return .base64(Data(vector.flatMap { value in withUnsafeBytes(of: value.bitPattern.littleEndian) { Array($0) } }).base64EncodedString())
    }
}
