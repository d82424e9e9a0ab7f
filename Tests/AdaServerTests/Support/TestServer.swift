import AdaImages
import AdaLLaVA
import Foundation
import Logging
import ServiceLifecycle
import Synchronization
import Testing

@testable import AdaServer

/// The embedded model, loaded once for all tests.
enum Scenes {
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    private static let loading = Task { try await AdaptiveModel(contentsOf: root.appendingPathComponent("Models/scenes/L")) }

    static var model: AdaptiveModel { get async throws { try await loading.value } }

    /// A picture that the model was made for.
    static func image(_ number: Int = 0) throws -> Data {
        try Data(contentsOf: root.appendingPathComponent("Models/scenes-ref/images/\(String(format: "%02d", number)).png"))
    }

    static func dataURL(_ number: Int = 0) throws -> String { "data:image/png;base64," + (try image(number)).base64EncodedString() }

    /// What `adallava ask` answers: the text and its tokens.
    static func asked(
        _ question: String, images: [Int] = [], budget: Budget = .full, change: (inout GenerationOptions) -> Void = { _ in }
    ) async throws -> (text: String, summary: AnswerSummary) {
        let model = try await model
        var options = GenerationOptions()
        change(&options)
        let pictures = try images.map { try model.imagePreparation(ImageDecoder.decode(try image($0))) }
        return try await model.respond(
            to: [ChatMessage.question(question, images: images.count)], prepared: pictures, budget: budget, options: options
        ).whole()
    }
}

/// A server on a free port of loopback, which ends with the test.
struct TestServer {
    let port: Int
    let server: ModelServer

    static func run(
        _ change: (inout ServerOptions) -> Void = { _ in }, load: (@Sendable () async throws -> AdaptiveModel)? = nil,
        _ body: @Sendable (TestServer) async throws -> Void
    ) async throws {
        var options = ServerOptions()
        options.port = 0
        options.modelName = "scenes/L"
        options.version = "0.1.0"
        // The tests of this process share a model, and its answers must not depend on how many run.
        options.maxWait = nil
        change(&options)
        var logger = Logger(label: "test")
        logger.logLevel = .critical
        let (ports, listening) = AsyncStream<Int>.makeStream()
        let server = try ModelServer(options, logger: logger, onRunning: { listening.yield($0) }, load: load ?? { try await Scenes.model })
        let group = ServiceGroup(configuration: ServiceGroupConfiguration(services: [server.application()], logger: logger))
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await group.run() }
            var ports = ports.makeAsyncIterator()
            let port = try #require(await ports.next())
            let running = TestServer(port: port, server: server)
            if load == nil { try await running.waitUntil("the model is ready") { server.state.trouble(requests: 0) != "loading" } }
            do {
                try await body(running)
            } catch {
                await group.triggerGracefulShutdown()
                throw error
            }
            await group.triggerGracefulShutdown()
            try await tasks.waitForAll()
        }
    }

    /// Waits for a condition that other threads bring about; a test that hangs here is ended by the limit.
    func waitUntil(_ what: String, _ condition: () async throws -> Bool) async throws {
        for _ in 0 ..< 3000 {
            if try await condition() { return }
            try await Task.sleep(for: .milliseconds(10))
        }
        Issue.record("waited in vain until \(what)")
    }

    /// Sends one request and reads its whole answer.
    func request(
        _ method: String, _ path: String, _ json: [String: Any]? = nil, headers: [String: String] = [:]
    ) async throws -> TestResponse {
        let body = try json.map { try JSONSerialization.data(withJSONObject: $0) }
        return try await request(method, path, body: body, headers: headers)
    }

    func request(_ method: String, _ path: String, body: Data?, headers: [String: String] = [:]) async throws -> TestResponse {
        let connection = try Connection(port: port)
        defer { connection.close() }
        try await connection.send(Self.head(method, path, body, headers) + (body ?? Data()))
        return try TestResponse(await connection.readToEnd())
    }

    static func head(_ method: String, _ path: String, _ body: Data?, _ headers: [String: String] = [:]) -> Data {
        var lines = ["\(method) \(path) HTTP/1.1"]
        var all = ["Host": "localhost", "Connection": "close"]
        if let body { all["Content-Length"] = "\(body.count)" }
        for (name, value) in all.merging(headers, uniquingKeysWith: { $1 }) { lines.append("\(name): \(value)") }
        return Data((lines.joined(separator: "\r\n") + "\r\n\r\n").utf8)
    }

    /// A chat request about images, with further fields.
    static func chat(_ question: String, images: [Int] = [], _ more: [String: Any] = [:]) throws -> [String: Any] {
        let pictures: [[String: Any]] = try images.map { ["type": "image_url", "image_url": ["url": try Scenes.dataURL($0)]] }
        let content: [[String: Any]] = [["type": "text", "text": question]] + pictures
        return ["model": "scenes/L", "messages": [["role": "user", "content": content]]].merging(more) { $1 }
    }

    func chat(_ question: String, images: [Int] = [], _ more: [String: Any] = [:], headers: [String: String] = [:]) async throws -> TestResponse {
        try await request("POST", "/v1/chat/completions", try Self.chat(question, images: images, more), headers: headers)
    }
}

/// An answer as it came over the socket.
struct TestResponse {
    let status: Int
    let headers: [String: String]
    let body: Data

    init(_ bytes: Data) throws {
        let end = try #require(bytes.range(of: Data("\r\n\r\n".utf8)), "no head in \(bytes.count) bytes")
        let lines = String(decoding: bytes[..<end.lowerBound], as: UTF8.self).components(separatedBy: "\r\n")
        status = try #require(Int(lines[0].split(separator: " ")[1]))
        var headers: [String: String] = [:]
        for line in lines.dropFirst() {
            let parts = line.split(separator: ":", maxSplits: 1)
            headers[parts[0].lowercased()] = parts[1].trimmingCharacters(in: .whitespaces)
        }
        self.headers = headers
        let rest = bytes[end.upperBound...]
        body = headers["transfer-encoding"] == "chunked" ? try Self.joined(rest) : Data(rest)
    }

    /// The content of chunks.
    private static func joined(_ bytes: Data) throws -> Data {
        var (left, content) = (Data(bytes), Data())
        while let line = left.range(of: Data("\r\n".utf8)) {
            let count = try #require(Int(String(decoding: left[..<line.lowerBound], as: UTF8.self), radix: 16))
            if count == 0 { return content }
            content += left[line.upperBound ..< line.upperBound + count]
            left = Data(left[(line.upperBound + count + 2)...])
        }
        return content
    }

    var text: String { String(decoding: body, as: UTF8.self) }

    /// The body as JSON.
    func json(sourceLocation: SourceLocation = #_sourceLocation) throws -> JSON {
        JSON(try JSONSerialization.jsonObject(with: body), sourceLocation)
    }

    /// What events say, `[DONE]` left out.
    func events() throws -> [JSON] {
        try text.components(separatedBy: "\n\n").compactMap { event in
            guard let line = event.split(separator: "\n").first(where: { $0.hasPrefix("data: ") }), line != "data: [DONE]" else { return nil }
            return JSON(try JSONSerialization.jsonObject(with: Data(line.dropFirst(6).utf8)), #_sourceLocation)
        }
    }
}

/// A JSON value that tests walk into.
struct JSON {
    let value: Any?

    init(_ value: Any?, _ sourceLocation: SourceLocation) { self.value = value }

    subscript(_ key: String) -> JSON { JSON((value as? [String: Any])?[key], #_sourceLocation) }
    subscript(_ index: Int) -> JSON {
        let array = value as? [Any]
        return JSON(array.flatMap { $0.indices.contains(index) ? $0[index] : nil }, #_sourceLocation)
    }

    var string: String? { value as? String }
    var int: Int? { (value as? NSNumber)?.intValue }
    var double: Double? { (value as? NSNumber)?.doubleValue }
    var bool: Bool? { value as? Bool }
    var array: [JSON]? { (value as? [Any])?.map { JSON($0, #_sourceLocation) } }
    var ints: [Int]? { value as? [Int] }
    var isNull: Bool { value is NSNull }
    var isAbsent: Bool { value == nil }
}
