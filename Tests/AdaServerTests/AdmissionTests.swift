import AdaLLaVA
import Foundation
import Synchronization
import Testing

@testable import AdaServer

/// Who is answered when there are more requests than places, and what the server tells of itself.
@Suite struct AdmissionTests {
    /// Names in the order in which they were added.
    private final class Names: Sendable {
        private let all = Mutex<[String]>([])

        func add(_ name: String) { all.withLock { $0.append(name) } }
        var values: [String] { all.withLock { $0 } }
    }

    /// Lets requests in one by one and notes their order.
    private static func order(_ requests: [(name: String, order: Admission.Order)]) async throws -> [String] {
        let admission = Admission(limit: 1, waitingLimit: 100)
        let first = try await admission.lease(Admission.Order(), slots: 1)
        let names = Names()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (index, request) in requests.enumerated() {
                group.addTask {
                    try await admission.admit(request.order, slots: 1) { names.add(request.name) }
                }
                while admission.counts.waiting <= index { await Task.yield() }
            }
            first.end()
            try await group.waitForAll()
        }
        #expect(admission.counts == (0, 0))
        return names.values
    }

    @Test("by priority, then deadlines, then arrival")
    func orders() async throws {
        let now = ContinuousClock.now
        let order = try await Self.order([
            ("bulk", .init(priority: 5)), ("plain", .init()), ("late", .init(deadline: now + .seconds(9))), ("soon", .init(deadline: now + .seconds(1))),
            ("second", .init()), ("urgent", .init(priority: -1)),
        ])
        #expect(order == ["urgent", "soon", "late", "plain", "second", "bulk"])
    }

    // A failure means that one client with many requests keeps the others waiting.
    @Test("the client who has had least comes first")
    func fairness() async throws {
        let admission = Admission(limit: 1, waitingLimit: 100)
        let first = try await admission.lease(Admission.Order(client: "busy"), slots: 1)
        let names = Names()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (index, name) in (Array(repeating: "busy", count: 4) + ["quiet", "quiet"]).enumerated() {
                group.addTask {
                    try await admission.admit(Admission.Order(client: name), slots: 1) {
                        names.add(name)
                        admission.count(promptTokens: 100, answerTokens: 50, client: name)
                    }
                }
                while admission.counts.waiting <= index { await Task.yield() }
            }
            admission.count(promptTokens: 100, answerTokens: 50, client: "busy")
            first.end()
            try await group.waitForAll()
        }
        #expect(names.values.prefix(3).sorted() == ["busy", "quiet", "quiet"])
    }

    @Test("a request that is stopped while it waits leaves its place; one too many is refused")
    func limits() async throws {
        let admission = Admission(limit: 2, waitingLimit: 1)
        let running = try await admission.lease(Admission.Order(), slots: 5)
        #expect(admission.counts.running == 2)
        let waiting = Task { try await admission.lease(Admission.Order(), slots: 1) }
        while admission.counts.waiting == 0 { await Task.yield() }
        await #expect(
            performing: { try await admission.lease(Admission.Order(), slots: 1) },
            throws: { APIError($0).status == .tooManyRequests && APIError($0).code == "overloaded" && APIError($0).retryAfter ?? 0 > 0 })
        waiting.cancel()
        await #expect(throws: CancellationError.self) { try await waiting.value }
        #expect(admission.counts == (2, 0))
        running.end()
        running.end()
        #expect(admission.counts == (0, 0))
    }

    @Test("both full: 429 with Retry-After, at once and in OpenAI's form; the others are answered")
    func overload() async throws {
        try await TestServer.run({ ($0.maxConcurrent, $0.maxWaiting) = (1, 1) }) { server in
            // Held by the test, so that nothing depends on how fast answers are.
            let lease = try await server.server.admission.lease(Admission.Order(), slots: 1)
            async let waiting = server.chat("What is the word?", images: [1])
            try await server.waitUntil("it waits") { server.server.admission.counts.waiting == 1 }
            for streams in [true, false] {
                let refused = try await server.chat("What is the word?", images: [1], ["stream": streams])
                #expect(try refused.status == 429 && refused.json()["error"]["code"].string == "overloaded")
                #expect(try #require(refused.headers["retry-after"].flatMap { Int($0) }) >= 1)
            }
            let loads = try await server.request("GET", "/v1/loads?include=core,disagg,queues,memory").json()
            #expect(loads["dp_rank_count"].int == 1 && loads["timestamp"].string?.hasSuffix("Z") == true)
            let load = loads["loads"][0]
            // The waiting prompt: an image of 49 positions, a question, and the template's words.
            let prompt = try await server.chat("What is the word?", images: [1], ["max_tokens": 1]).status
            #expect(prompt == 429 && (load["num_waiting_uncached_tokens"].int ?? 0) > 55)
            #expect(load["num_running_reqs"].int == 1 && load["num_waiting_reqs"].int == 1 && load["num_total_reqs"].int == 2)
            #expect(load["utilization"].double == 1 && load["max_running_requests"].int == 1)
            lease.end()
            #expect(try await waiting.status == 200)
        }
    }

    // A failure means that a client who asks now and then waits behind what another one had asked before it came.
    @Test("a client who was away neither saves up turns nor pays for others'") func lift() async throws {
        let admission = Admission(limit: 1, waitingLimit: 100)
        admission.count(promptTokens: 1_000_000, answerTokens: 0, client: "old")
        let first = try await admission.lease(Admission.Order(client: "old"), slots: 1)
        let names = Names()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (index, name) in ["old", "new", "old", "new"].enumerated() {
                group.addTask {
                    try await admission.admit(Admission.Order(client: name), slots: 1) {
                        names.add(name)
                        admission.count(promptTokens: 10, answerTokens: 0, client: name)
                    }
                }
                while admission.counts.waiting <= index { await Task.yield() }
            }
            first.end()
            try await group.waitForAll()
        }
        // They take turns: what the old one had before the new one came does not count.
        #expect(names.values == ["old", "new", "old", "new"] || names.values == ["new", "old", "new", "old"], "\(names.values)")
    }

    @Test("a client that goes away while it waits leaves its place")
    func leaves() async throws {
        try await TestServer.run({ $0.maxConcurrent = 1 }) { server in
            let lease = try await server.server.admission.lease(Admission.Order(), slots: 1)
            for streams in [true, false] {
                let body = try JSONSerialization.data(withJSONObject: TestServer.chat("What is the word?", images: [1], ["stream": streams, "return_progress": streams]))
                let connection = try Connection(port: server.port)
                try await connection.send(TestServer.head("POST", "/v1/chat/completions", body) + body)
                try await server.waitUntil("it waits") { server.server.admission.counts.waiting == 1 }
                connection.close()
                if !streams { try await server.waitUntil("it has left") { server.server.admission.counts.waiting == 0 } }
                // Of a stream nothing was sent yet: that it is over shows with the first comment.
                if streams { break }
            }
            lease.end()
            try await server.waitUntil("nothing is left") { server.server.admission.counts == (0, 0) }
        }
    }

    private static func values(_ text: String) -> [String: Double] {
        var found: [String: Double] = [:]
        for line in text.split(separator: "\n") where !line.hasPrefix("#") {
            let parts = line.split(separator: " ")
            found[String(parts[0]).replacing("model_name=\"scenes/L\"", with: "").replacing("{,", with: "{").replacing("{}", with: "")] = Double(parts[1])
        }
        return found
    }

    // A difference means that a gateway or a dashboard counts what did not happen.
    @Test("metrics count what was answered, under vLLM's names and ours")
    func metrics() async throws {
        try await TestServer.run { server in
            let answers = [try await server.chat("What is the word?", images: [1]).json(), try await server.chat("What is the word?", images: [1], ["budget": 0.6, "max_tokens": 1]).json()]
            _ = try await server.chat("What is the word?", images: [1], ["temperature": -1])
            let response = try await server.request("GET", "/metrics")
            #expect(response.status == 200 && response.headers["content-type"]?.hasPrefix("text/plain; version=0.0.4") == true)
            let found = Self.values(response.text)
            #expect(found["vllm:num_requests_running"] == 0 && found["vllm:num_requests_waiting"] == 0)
            #expect(found["vllm:prompt_tokens_total"] == Double(answers.reduce(0) { $0 + ($1["usage"]["prompt_tokens"].int ?? 0) }))
            #expect(found["vllm:generation_tokens_total"] == Double(answers.reduce(0) { $0 + ($1["usage"]["completion_tokens"].int ?? 0) }))
            let cached = answers.reduce(0) { $0 + ($1["usage"]["prompt_tokens_details"]["cached_tokens"].int ?? 0) }
            #expect(cached > 0 && found["vllm:prefix_cache_hits_total"] == Double(cached))
            #expect(found["vllm:request_success_total{finished_reason=\"stop\"}"] == 1 && found["vllm:request_success_total{finished_reason=\"length\"}"] == 1)
            for name in ["vllm:time_to_first_token_seconds", "vllm:e2e_request_latency_seconds", "adallava_budget"] {
                #expect(found[name + "_count"] == 2 && found[name + "_bucket{le=\"+Inf\"}"] == 2, "\(name)")
            }
            #expect(abs((found["adallava_budget_sum"] ?? 0) - 1.5) < 0.01)
            #expect(found["adallava_errors_total{status=\"400\"}"] == 1 && found["adallava_deadline_missed_total"] == 0)
            #expect(response.text.contains("vllm:cache_config_info{model_name=\"scenes/L\",block_size=\"256\",num_gpu_blocks=\""))
            // Each metric once, with its type before it.
            let types = response.text.split(separator: "\n").filter { $0.hasPrefix("# TYPE ") }.map { $0.split(separator: " ")[2] }
            #expect(Set(types).count == types.count && types.count > 15)
        }
    }
}
