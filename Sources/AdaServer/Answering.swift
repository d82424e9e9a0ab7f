import AdaLLaVA
import HTTPTypes
import Hummingbird
import NIOCore

/// A request of any API, ready to be answered.
struct AnswerRequest: Sendable {
    let model: AdaptiveModel
    var generation: GenerationFields
    /// Facts from which its time is predicted.
    let work: QueuedWork
    let delivery: Delivery
    let format: any AnswerFormat
    /// Reads the request's images and returns the function that makes its answers.
    let prepare: @Sendable () async throws -> MakeAnswer
    /// Whether the prompt is kept for requests that begin alike as soon as it has been read.
    var keepsPromptEarly = false
}

extension ModelServer {
    /// The body of a request, and the request with it in place.
    /// - Throws: ``APIError`` for a body that is too large or takes too long to arrive.
    func collect(_ request: inout Request, _ context: ServerContext) async throws -> ByteBuffer {
        let (limit, timeout) = (options.maxBodyBytes, options.bodyTimeout)
        let tooLarge = APIError(.contentTooLarge, "the body has more than \(limit) bytes, the most that is taken (--max-body)", code: "body_too_large")
        do {
            if let length = request.headers[.contentLength].flatMap({ Int($0) }), length > limit { throw tooLarge }
            let body = request.body
            let buffer = try await withThrowingTaskGroup(of: ByteBuffer.self) { group in
                group.addTask { try await body.collect(upTo: limit) }
                group.addTask {
                    try await Task.sleep(for: timeout)
                    throw APIError(.requestTimeout, "the body did not arrive within \(timeout)", code: "body_timeout")
                }
                defer { group.cancelAll() }
                guard let buffer = try await group.next() else { throw tooLarge }
                return buffer
            }
            request.body = RequestBody(buffer: buffer)
            return buffer
        } catch {
            // The rest of the body is read for a while, so that the client sees the answer before the connection closes.
            let channel = context.channel
            channel.eventLoop.scheduleTask(in: .seconds(5)) { channel.close(promise: nil) }
            throw error is NIOTooManyBytesError ? tooLarge : error
        }
    }

    /// Answers as one body or as events. When a client disconnects, its answers stop within one layer or token.
    func respond(_ wanted: AnswerRequest, _ request: Request, _ context: ServerContext) async throws -> Response {
        let events = events(wanted, client: context.client)
        return wanted.delivery.streams
            ? try await stream(wanted, events, request, context)
            : try await whole(wanted, events, request)
    }

    private func events(_ wanted: AnswerRequest, client: String) -> RequestEvents {
        state.noteArrival()
        return RequestEvents(
            generation: wanted.generation, admission: admission, order: wanted.generation.order(client: client, wanted.work), keepsPromptEarly: wanted.keepsPromptEarly, prepare: wanted.prepare,
            onWork: { [state] in state.noteWork() }, onAnswer: { [metrics] in metrics.add($0, wanted.model) })
    }

    /// The whole answer of a request that no connection waits for.
    func whole(_ wanted: AnswerRequest, client: String, priority: Int) async throws -> any Encodable & Sendable {
        var wanted = wanted
        wanted.generation.priority += priority
        return wanted.format.whole(try await Self.answers(events(wanted, client: client), wanted))
    }

    private static func answers(_ events: RequestEvents, _ wanted: AnswerRequest) async throws -> [FinishedAnswer] {
        var collector = AnswerCollector(choices: wanted.generation.choices)
        for try await event in events.stream() { _ = collector.add(event) }
        try Task.checkCancellation()
        return collector.answers
    }

    private func whole(_ wanted: AnswerRequest, _ events: RequestEvents, _ request: Request) async throws -> Response {
        let answers = try await request.body.consumeWithCancellationOnInboundClose { _ in try await Self.answers(events, wanted) }
        var response = try JSONBody.response(wanted.format.whole(answers))
        response.headers[.connection] = "close"
        return response
    }

    private func stream(_ wanted: AnswerRequest, _ events: RequestEvents, _ request: Request, _ context: ServerContext) async throws -> Response {
        let stream = events.stream(keepAlive: options.keepAlive, returnsProgress: wanted.delivery.returnsProgress)
        // The status is sent after the first event, because errors of a request appear when it starts.
        var beginning = stream.makeAsyncIterator()
        let first = try await beginning.next()
        let (limit, channel, metrics) = (options.readTimeout, context.channel, metrics)
        let headers: HTTPFields = [
            .contentType: "text/event-stream; charset=utf-8", .cacheControl: "no-cache", .connection: "close", .accelBuffering: "no",
        ]
        return Response(status: .ok, headers: headers, body: ResponseBody { writer in
            let output = EventStream(writer, channel, limit: limit)
            try await request.body.consumeWithCancellationOnInboundClose { _ in
                try await output.watched {
                    try await Self.write(first, stream, wanted, to: output) { metrics.addError($0.status.code) }
                }
            }
            try await writer.finish(nil)
        })
    }

    private static func write(
        _ first: RequestEvent?, _ rest: AsyncThrowingStream<RequestEvent, any Error>, _ wanted: AnswerRequest, to output: EventStream,
        onError: (APIError) -> Void
    ) async throws {
        let format = wanted.format
        var collector = AnswerCollector(choices: wanted.generation.choices)
        func send(_ event: RequestEvent) async throws {
            let finished = collector.add(event)
            switch event {
            case .silence: try await output.comment("keep-alive")
            case .progress(let progress): try await output.send(format.progress(progress))
            case .delta(let choice, let delta): try await output.send(format.text(delta, choice: choice))
            case .finished: if let finished { try await output.send(format.ended(finished)) }
            }
        }
        do {
            try await output.send(format.opening(choices: wanted.generation.choices))
            if let first { try await send(first) }
            for try await event in rest { try await send(event) }
            // `AsyncThrowingStream` ends without an error when its reader is cancelled.
            try Task.checkCancellation()
        } catch is CancellationError {
            throw CancellationError()
        } catch let error where error is any AdaLLaVAError || error is APIError {
            onError(APIError(error))
            // Without the end mark, so that the sent text is not taken for a complete answer.
            return try await output.send(format.failure(APIError(error)))
        }
        try await output.send(format.closing(collector.answers))
        if format.endsWithMark { try await output.sendDone() }
    }
}

/// Joins the events of answers.
struct AnswerCollector {
    private var texts: [String]
    private var summaries: [AnswerSummary?]
    private var logProbabilities: [[TokenLogProbability]]

    init(choices: Int) {
        texts = Array(repeating: "", count: choices)
        summaries = Array(repeating: nil, count: choices)
        logProbabilities = Array(repeating: [], count: choices)
    }

    /// - Returns: the answer that an event completes.
    mutating func add(_ event: RequestEvent) -> FinishedAnswer? {
        switch event {
        case .delta(let choice, let delta):
            texts[choice] += delta.text
            logProbabilities[choice] += delta.logProbabilities
            return nil
        case .finished(let choice, let summary):
            summaries[choice] = summary
            return answer(choice, summary)
        case .progress, .silence: return nil
        }
    }

    private func answer(_ choice: Int, _ summary: AnswerSummary) -> FinishedAnswer {
        FinishedAnswer(choice: choice, text: texts[choice], summary: summary, logProbabilities: logProbabilities[choice])
    }

    /// The answers that are complete.
    var answers: [FinishedAnswer] {
        summaries.enumerated().compactMap { choice, summary in summary.map { answer(choice, $0) } }
    }
}

extension HTTPField.Name {
    /// Asks proxies (nginx) not to hold events back.
    static let accelBuffering = HTTPField.Name("x-accel-buffering")!
}
