import AdaLLaVA
import Foundation
import Testing

@testable import AdaServer

/// What no client sends by mistake.
@Suite struct HostileTests {
    /// Bytes of the kinds that parsers stumble over: noise, requests with noise in them, heads cut off or repeated, lengths that lie.
    private static func bytes(_ random: inout SplitMix64, template: Data) -> Data {
        func noise(_ count: Int) -> Data { Data((0 ..< count).map { _ in UInt8(truncatingIfNeeded: random.next()) }) }
        switch random.index(below: 6) {
        case 0: return noise(1 + random.index(below: 400))
        case 1:
            // A few bytes of a good request are others.
            var bytes = template
            for _ in 0 ... random.index(below: 8) { bytes[random.index(below: bytes.count)] = UInt8(truncatingIfNeeded: random.next()) }
            return bytes
        case 2: return template.prefix(random.index(below: template.count))
        case 3:
            let methods = ["GET", "POST", "PUT", "G\u{E9}T", "", "PRI"], paths = ["/", "*", "//", "/v1/../../etc/passwd", "/%00", "/v1/chat/completions?\u{FF}", "http://a/"]
            let versions = ["HTTP/1.1", "HTTP/9.9", "HTTP/2.0", "", "ICY"]
            let head = "\(methods[random.index(below: 6)]) \(paths[random.index(below: 7)]) \(versions[random.index(below: 5)])\r\nHost: localhost\r\n"
            return Data(head.utf8) + noise(random.index(below: 60)) + Data("\r\n\r\n".utf8)
        case 4:
            let lengths = ["-1", "99999999999999999999", "0x10", "5, 6", "", "1e3", "\(template.count)"]
            let more = ["Transfer-Encoding: chunked\r\n", "Content-Length: 3\r\n", ""][random.index(below: 3)]
            let body = noise(random.index(below: 50))
            return Data("POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: \(lengths[random.index(below: 7)])\r\n\(more)\r\n".utf8) + body
        default:
            let chunks = ["5\r\nhello\r\n0\r\n\r\n", "ffffffffffffffff\r\nx", "-1\r\n", "z\r\n", "5;a=b\r\n{}", "0\r\nX: y\r\n\r\n"]
            return Data("POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\(chunks[random.index(below: 6)])".utf8)
        }
    }

    // A failure means that anybody who reaches the port can end the server or make it answer others wrongly.
    @Test("10,000 random byte strings end nothing, and answers meanwhile are right") func noise() async throws {
        let expected = try await Scenes.asked("What is the word?", images: [1]).text
        let body = try JSONSerialization.data(withJSONObject: ["prompt": "Hi", "model": "scenes/L"])
        let template = TestServer.head("POST", "/tokenize", body) + body
        try await TestServer.run { server in
            try await withThrowingTaskGroup(of: Void.self) { group in
                for part in 0 ..< 4 {
                    group.addTask {
                        try await DispatchQueue(label: "noise").run {
                            var random = SplitMix64(seed: UInt64(part))
                            for _ in 0 ..< 2500 {
                                // Some end what they send and some just leave; nobody waits for an answer that may not come.
                                try Connection.send(Self.bytes(&random, template: template), port: server.port, ends: random.index(below: 4) == 0)
                            }
                        }
                    }
                }
                group.addTask {
                    for _ in 0 ..< 5 {
                        let answer = try await server.chat("What is the word?", images: [1])
                        #expect(try answer.status == 200 && answer.json()["choices"][0]["message"]["content"].string == expected)
                    }
                }
                try await group.waitForAll()
            }
            try await server.waitUntil("nothing is left") { server.server.admission.counts == (0, 0) }
            #expect(try await server.request("GET", "/health").status == 200)
            #expect(try await server.request("POST", "/tokenize", body: body).status == 200)
        }
    }

    // A failure means that a few slow clients keep everybody else out.
    @Test("clients that send a byte now and then do not keep others from their answers") func slowWriters() async throws {
        try await TestServer.run({ $0.bodyTimeout = .milliseconds(600) }) { server in
            let slow = try (0 ..< 40).map { _ in try Connection(port: server.port) }
            for (index, connection) in slow.enumerated() {
                try await connection.send(index % 2 == 0 ? "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{" : "GET /ver")
            }
            async let answer = server.chat("What is the word?", images: [1], ["max_tokens": 3])
            for _ in 0 ..< 5 {
                for connection in slow { try await connection.send(" ") }
                try await Task.sleep(for: .milliseconds(20))
            }
            #expect(try await answer.status == 200)
            // Those with a head are told.
            for connection in stride(from: 0, to: 40, by: 2).map({ slow[$0] }) {
                #expect(try TestResponse(await connection.read(until: "body_timeout")).status == 408)
            }
            for connection in slow { connection.close() }
            #expect(try await server.request("GET", "/health").status == 200)
        }
    }

    static let bodies: [(String, String)] = [
        ("data:image/png;base64,iVBORw0KGgo=", "invalid_image"), ("data:image/png;base64,====", "invalid_image"), ("data:image/png;base64,iVBOR\\u0000", "invalid_image"),
        ("data:image/png;base64," + String(repeating: "A", count: 4097), "invalid_image"), ("data:;base64,", "invalid_image"), ("data:image/svg+xml,<svg/>", "invalid_image"),
        ("data:image/gif;base64,R0lGODlh/////wAAACwAAAAA/////wAAOw==", "image"), ("data:image/jpeg;base64,/9j/4AAQSkZJRgABAQAAAQABAAD/2Q==", "invalid_image"),
    ]

    // A failure means that a damaged picture is taken for one, ends the server, or shows memory that is not the client's.
    @Test("damaged pictures and base64 are refused, and messages name nothing of the machine", arguments: bodies)
    func pictures(url: String, code: String) async throws {
        try await TestServer.run { server in
            let body = #"{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "\#(url)"}}, {"type": "text", "text": "Hi"}]}]}"#
            let response = try await server.request("POST", "/v1/chat/completions", body: Data(body.utf8))
            let error = try response.json()["error"]
            #expect(response.status == 400 || response.status == 413)
            #expect(error["code"].string?.contains(code) == true, "\(response.text)")
            for secret in ["0x", "/root", "/home", "/tmp", "Sources/", ".swift"] { #expect(!response.text.contains(secret), "\(response.text)") }
        }
    }

    @Test("a picture above the limit of bytes gets 413 however it is sent") func large() async throws {
        try await TestServer.run({ $0.maxBodyBytes = 100_000 }) { server in
            let url = "data:image/png;base64," + String(repeating: "A", count: 200_000)
            let response = try await server.request("POST", "/v1/chat/completions", [
                "messages": [["role": "user", "content": [["type": "image_url", "image_url": ["url": url]]]]],
            ])
            #expect(try response.status == 413 && response.json()["error"]["code"].string == "body_too_large")
            let upload = try await server.request("POST", "/v1/files", body: Data(repeating: 65, count: 200_000), headers: ["Content-Type": "multipart/form-data; boundary=x"])
            #expect(upload.status == 413)
        }
    }

    // A failure means that a route can be used without a key.
    @Test("no route but /live and /health answers a wrong key") func keys() async throws {
        try await TestServer.run({ $0.keys = ["right"] }) { server in
            for route in server.server.router().routes where !["/live", "/health"].contains(route.path.description) {
                let path = route.path.description.replacing(":id", with: "x").replacing("**", with: "x")
                for key in ["", "wrong", "righ", "right1", String(repeating: "r", count: 5000)] {
                    let response = try await server.request(
                        route.method.rawValue, path, body: route.method == .post ? Data("{}".utf8) : nil, headers: ["Authorization": "Bearer \(key)"])
                    #expect(response.status == 401, "\(route.method) \(path) with \(key.prefix(10))")
                }
            }
        }
    }

    /// Answers a name with one address after the other.
    private final class Names: @unchecked Sendable {
        private let lock = NSLock()
        private var answers: [String]
        private var asked: [String] = []

        init(_ answers: [String]) { self.answers = answers }

        func resolve(_ name: String) -> [NetworkAddress] {
            lock.withLock {
                asked.append(name)
                return answers.isEmpty ? [] : [answers.removeFirst()].compactMap(NetworkAddress.init(literal:))
            }
        }

        var questions: [String] { lock.withLock { asked } }
    }

    // A failure means that a name server can send this server to its own network: it says a public address when asked first and a private one after that.
    @Test("a name is resolved once for each connection, which goes to the address that was checked") func rebinding() async throws {
        let listener = try RedirectingServer()
        defer { listener.close() }
        let host = "pictures.example:\(listener.port)", url = "http://\(host)/end"
        // Unreachable here, so nothing is fetched; what counts is that nothing else is asked either.
        let names = Names(["192.88.99.1", "127.0.0.1", "127.0.0.1"])
        let fetcher = MediaFetcher(hosts: [host], resolve: names.resolve)
        await #expect(performing: { try await fetcher.fetch(url, maxBytes: 1000) }, throws: { APIError($0).code == "invalid_image_url" })
        #expect(names.questions == ["pictures.example"] && listener.paths.values.isEmpty)
        let second = Names(["127.0.0.1", "192.88.99.1"])
        await #expect(performing: { try await MediaFetcher(hosts: [host], resolve: second.resolve).fetch(url, maxBytes: 1000) }, throws: { APIError($0).code == "invalid_image_url" })
        #expect(second.questions == ["pictures.example"] && listener.paths.values.isEmpty)
    }

    // A failure means that the address behind a redirect is not checked like the first one.
    @Test("a redirect to a name with a private address is refused") func redirectToName() async throws {
        let listener = try RedirectingServer()
        defer { listener.close() }
        let here = "127.0.0.1:\(listener.port)", names = Names(["10.0.0.1"])
        let fetcher = MediaFetcher(hosts: [here, "localhost:\(listener.port)"], resolve: names.resolve)
        await #expect(performing: { try await fetcher.fetch("http://\(here)/name", maxBytes: 1000) }, throws: { APIError($0).code == "invalid_image_url" })
        #expect(names.questions == ["localhost"] && listener.paths.values == ["/name"])
    }

    // A failure means that one client reads from another's cached prompt what it may not: that its own words are not what is answered.
    @Test("prompts that begin like others' find the same answers as without a cache") func probes() async throws {
        let words = "The code is seven four nine."
        let prompts = ["\(words) Say it.", "\(words) Say it again.", String(words.dropLast(5)) + "eight. Say it.", "\(words)"]
        let fresh = try await AdaptiveModel(contentsOf: Scenes.root.appendingPathComponent("Models/scenes/L"))
        try await TestServer.run { server in
            for prompt in prompts + prompts.reversed() {
                let answer = try await server.request("POST", "/v1/completions", ["prompt": prompt, "max_tokens": 6]).json()
                var options = GenerationOptions()
                (options.maxTokens, options.reusesEarlierWork) = (6, false)
                let text = try await fresh.complete(try fresh.tokenize(prompt: prompt), options: options).whole().text
                #expect(answer["choices"][0]["text"].string == text, "\(prompt)")
            }
        }
    }
}
