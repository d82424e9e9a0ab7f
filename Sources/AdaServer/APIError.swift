import AdaImages
import AdaLLaVA
import HTTPTypes
import Hummingbird

/// An error in the form that OpenAI's clients read: `{"error": {"message", "type", "param", "code"}}`.
struct APIError: HTTPResponseError, Equatable {
    let status: HTTPResponse.Status
    let message: String
    /// The parameter that is wrong.
    var parameter: String?
    /// Identifier of the error for programs.
    var code: String?
    /// Seconds after which the same request may succeed.
    var retryAfter: Int?

    init(_ status: HTTPResponse.Status, _ message: String, parameter: String? = nil, code: String? = nil, retryAfter: Int? = nil) {
        (self.status, self.message, self.parameter, self.code, self.retryAfter) = (status, message, parameter, code, retryAfter)
    }

    /// A parameter that is not as it should be.
    static func parameter(_ name: String, expected: String, found: String) -> APIError {
        APIError(.badRequest, "\(name): expected \(expected), found \(found)", parameter: name, code: "invalid_value")
    }

    var type: String {
        switch status.code {
        case 401: "authentication_error"
        case 403: "permission_error"
        case 429: "rate_limit_error"
        case 500...: "server_error"
        default: "invalid_request_error"
        }
    }

    func response(from request: Request, context: some RequestContext) throws -> Response {
        let isAnthropic = request.uri.path.hasPrefix(AnswerRoute.messages.rawValue)
        var response = isAnthropic ? try JSONBody.response(MessagesErrorBody(self), status: status) : try JSONBody.response(ErrorBody(self), status: status)
        if let retryAfter { response.headers[.retryAfter] = "\(retryAfter)" }
        if status == .unauthorized { response.headers[.wwwAuthenticate] = #"Basic realm="adallava", charset="UTF-8""# }
        return response
    }
}

/// The body of an error.
struct ErrorBody: Encodable {
    struct Content: Encodable {
        let message: String
        let type: String
        let param: Nullable<String>
        let code: Nullable<String>
    }

    let error: Content

    init(_ error: APIError) {
        self.error = Content(message: error.message, type: error.type, param: Nullable(error.parameter), code: Nullable(error.code))
    }
}

extension APIError: AdaLLaVAError {
    var category: ErrorCategory { status.code >= 500 ? .software : .badData }
    var description: String { message }

    /// Any error of a request, in the form that clients receive.
    init(_ error: any Error) {
        switch error {
        case let error as APIError: self = error
        case let error as BudgetError: self.init(.badRequest, error.description, parameter: "budget", code: "invalid_budget")
        case let error as SamplingError:
            let name = error.option.replacing("-", with: "_")
            self = .parameter(name, expected: error.expected, found: "\(error.found)")
        case let error as GenerationError: self.init(error)
        case let error as ChatTemplateError: self.init(.badRequest, error.description, parameter: "messages", code: "invalid_messages")
        case let error as ImageError: self.init(error)
        case let error as ComputeError: self.init(error)
        case let error as AdmissionError:
            let code = if case .full = error { "overloaded" } else { "too_late" }
            self.init(.tooManyRequests, error.description, code: code, retryAfter: error.retryAfter)
        case is CancellationError: self.init(.serviceUnavailable, "the request was stopped", code: "stopped")
        case let error as any AdaLLaVAError where error.category == .usage: self.init(.badRequest, error.description)
        case let error as any HTTPResponseError:
            self.init(error.status, error.status == .notFound ? "there is no such route" : error.status.reasonPhrase)
        default: self.init(.internalServerError, "the request could not be answered", code: "internal_error")
        }
    }

    private init(_ error: GenerationError) {
        switch error {
        case .promptTooLong: self.init(.badRequest, error.description, parameter: "messages", code: "context_length_exceeded")
        case .noVision: self.init(.badRequest, error.description, parameter: "messages", code: "image_not_supported")
        case .notFinite: self.init(.internalServerError, error.description, code: "internal_error")
        default: self.init(.badRequest, error.description, code: "invalid_request")
        }
    }

    private init(_ error: ImageError) {
        switch error {
        case .tooManyBytes, .tooLarge, .requestTooLarge: self.init(.contentTooLarge, error.description, parameter: "messages", code: "image_too_large")
        case .outOfMemory: self.init(.serviceUnavailable, error.description, code: "out_of_memory", retryAfter: 1)
        default: self.init(.badRequest, error.description, parameter: "messages", code: "invalid_image")
        }
    }

    private init(_ error: ComputeError) {
        if case .memory(_, let bytes, _, let limit) = error, bytes > limit {
            self.init(.badRequest, error.description, parameter: "messages", code: "context_length_exceeded")
        } else {
            self.init(.serviceUnavailable, error.description, code: "out_of_memory", retryAfter: 1)
        }
    }
}

/// Gives every error of a request, unknown routes included, the form of ``APIError``.
struct ErrorMiddleware<Context: RequestContext>: RouterMiddleware {
    /// Told the status of each error.
    let onError: @Sendable (Int) -> Void

    func handle(_ request: Request, context: Context, next: (Request, Context) async throws -> Response) async throws -> Response {
        do {
            return try await next(request, context)
        } catch {
            let told = APIError(error)
            onError(told.status.code)
            if told.status.code >= 500 { context.logger.error("\(request.method) \(request.uri.path): \(error)") }
            return try told.response(from: request, context: context)
        }
    }
}
