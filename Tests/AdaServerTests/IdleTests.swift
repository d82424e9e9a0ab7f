import AdaLLaVA
import Foundation
import Synchronization
import Testing

@testable import AdaServer

/// A model that is let go while nobody asks, and what is predicted of answers.
@Suite struct IdleTests {
    /// Loads the embedded model anew each time, and counts how often.
    private final class Loads: Sendable {
        private let count = Mutex(0), fails = Mutex(false)
        var fail: Bool {
            get { fails.withLock { $0 } }
            set { fails.withLock { $0 = newValue } }
        }
        var value: Int { count.withLock { $0 } }

        /// Nothing that other processes measured counts here.
        private let folder = FileManager.default.temporaryDirectory.appendingPathComponent("adallava-idle-\(UUID().uuidString)")

        deinit { try? FileManager.default.removeItem(at: folder) }

        func load() async throws -> AdaptiveModel {
            count.withLock { $0 += 1 }
            var options = AdaptiveModel.Options()
            options.timingFolder = folder
            return try await AdaptiveModel(contentsOf: Scenes.root.appendingPathComponent("Models/scenes/L"), options: options)
        }
    }

    // A failure means that a server that nobody uses keeps its memory, or that the first request after a pause is refused.
    @Test("a model that nobody uses is unloaded, probes answer, and the next request loads it again")
    func unload() async throws {
        let expected = try await Scenes.asked("What is the word?", images: [1]).text
        let loads = Loads()
        try await TestServer.run({ $0.idleUnload = .milliseconds(200) }, load: { try await loads.load() }) { server in
            try await server.waitUntil("the model is ready") { server.server.state.description != nil }
            for _ in 1 ... 2 {
                weak let model = server.server.state.model
                try await server.waitUntil("it is unloaded") { server.server.state.isUnloaded }
                try await server.waitUntil("its memory is given back") { model == nil }
                let known = loads.value, health = try await server.request("GET", "/health")
                #expect(try health.status == 200 && health.json()["status"].string == "ok" && health.json()["model"].string == "unloaded")
                #expect(try await server.request("GET", "/v1/models").json()["data"][0]["id"].string == "scenes/L")
                #expect(try await server.request("GET", "/metrics").status == 200)
                #expect(try await server.request("GET", "/v1/loads").json()["loads"][0]["num_running_reqs"].int == 0)
                #expect(try await server.request("GET", "/v1/models/gpt-4").status == 404)
                #expect(loads.value == known && server.server.state.isUnloaded)
                let answer = try await server.chat("What is the word?", images: [1])
                #expect(try answer.json()["choices"][0]["message"]["content"].string == expected)
                #expect(loads.value > known)
            }
        }
    }

    @Test("requests that come together while the model is unloaded load it once") func once() async throws {
        let loads = Loads(), (gate, open) = AsyncStream<Void>.makeStream()
        let state = ServerState(), model = try await loads.load()
        state.setReady(model, ModelDescription(id: "a", created: 0, model)) {
            for await _ in gate {}
            return try await loads.load()
        }
        state.unload(after: .zero)
        #expect(state.isUnloaded && state.model == nil && state.trouble(requests: 1) == nil)
        let waiting = (0 ..< 5).map { _ in Task { try await state.use() } }
        try await Task.sleep(for: .milliseconds(20))
        open.finish()
        for task in waiting { #expect(try await task.value === state.model) }
        #expect(loads.value == 2)
    }

    @Test("a model that cannot be loaded again is an error, and the next request tries once more")
    func failing() async throws {
        struct Gone: AdaLLaVAError {
            let category = ErrorCategory.missingInput, description = "the files are gone"
        }
        let loads = Loads()
        try await TestServer.run({ $0.idleUnload = .milliseconds(100) }, load: {
            if loads.fail { throw Gone() }
            return try await loads.load()
        }) { server in
            try await server.waitUntil("it is unloaded") { server.server.state.isUnloaded }
            loads.fail = true
            #expect(try await server.chat("Hi").status == 500)
            loads.fail = false
            #expect(try await server.chat("Hi", [:]).status == 200)
        }
    }

    @Test("progress says when the answer will be complete")
    func predicted() async throws {
        let loads = Loads()
        try await TestServer.run({ $0.maxWait = .seconds(1000) }, load: { try await loads.load() }) { server in
            try await server.waitUntil("the model is ready") { server.server.state.description != nil }
            let before = Date().timeIntervalSince1970 * 1000
            let events = try await server.chat("What is the word?", images: [1], ["stream": true, "return_progress": true]).events()
            let news = events.map { $0["progress"] }.filter { !$0.isAbsent }
            #expect(Set(news.compactMap { $0["phase"].string }) == ["encode", "prefill"])
            for report in news {
                let whole = try #require(report["predicted_whole_ms"].double), first = try #require(report["predicted_ttft_ms"].double)
                let finish = try #require(report["predicted_finish_unix_ms"].int)
                #expect(whole >= first && first > 0 && Double(finish) >= before)
            }
        }
    }

    // A failure means that an overloaded server gives full answers late, or that what it gives is not what `ask` gives at that budget.
    @Test("an answer whose budget was made smaller says so, and is that of the smaller budget")
    func shrunk() async throws {
        let loads = Loads()
        try await TestServer.run({ $0.maxWait = .nanoseconds(1) }, load: { try await loads.load() }) { server in
            try await server.waitUntil("the model is ready") { server.server.state.description != nil }
            let model = try #require(server.server.state.model)
            // Budgets follow measured times only.
            try await model.calibrate(limit: .zero)
            let adaptive = try await server.chat("Describe the image.", images: [14], ["budget": 0.9]).json()
            let asked = try await Scenes.asked("Describe the image.", images: [14], budget: .fraction(0.9))
            #expect(adaptive["adaptive"]["shrunk_from_units"].int == asked.summary.units && adaptive["adaptive"]["units"].int == 0)
            let floor = try await Scenes.asked("Describe the image.", images: [14], budget: .fraction(try #require(model.fraction(buying: 0))))
            #expect(adaptive["choices"][0]["message"]["content"].string == floor.text)
            #expect(try await server.request("GET", "/metrics").text.contains("adallava_budget_shrunk_total{model_name=\"scenes/L\"} 1"))
        }
    }
}
