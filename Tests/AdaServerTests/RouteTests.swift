import AdaLLaVA
import Foundation
import Testing

@testable import AdaServer

/// Routes that describe the server, keys, and errors.
@Suite struct RouteTests {
    @Test("probes, version and models")
    func descriptions() async throws {
        try await TestServer.run { server in
            #expect(try await server.request("GET", "/live").status == 200)
            let health = try await server.request("GET", "/health")
            #expect(try health.status == 200 && health.json()["status"].string == "ok")
            #expect(try await server.request("GET", "/version").json()["version"].string == "0.1.0")
            let model = try await server.request("GET", "/v1/models").json()["data"][0]
            #expect(model["id"].string == "scenes/L" && model["max_model_len"].int == 1024 && model["vision"].bool == true)
            #expect(model["adaptive"]["layers"].int == 8 && model["adaptive"]["prefix_layers"].int == 2)
            #expect(try await server.request("GET", "/v1/models/scenes/L").json()["id"].string == "scenes/L")
            #expect(try await server.request("GET", "/v1/models/scenes%2FL").json()["id"].string == "scenes/L")
            let other = try await server.request("GET", "/v1/models/gpt-4")
            #expect(try other.status == 404 && other.json()["error"]["code"].string == "model_not_found")
        }
    }

    @Test("texts become tokens and tokens texts")
    func tokens() async throws {
        let model = try await Scenes.model
        try await TestServer.run { server in
            let prompt = "A car and the word PUSH."
            let answer = try await server.request("POST", "/tokenize", ["prompt": prompt]).json()
            #expect(answer["tokens"].ints == (try model.tokenize(prompt: prompt)))
            #expect(answer["count"].int == answer["tokens"].ints?.count && answer["max_model_len"].int == model.contextLength)
            let back = try await server.request("POST", "/detokenize", ["tokens": answer["tokens"].ints ?? []]).json()
            #expect(back["prompt"].string == prompt)
            // Ids outside the vocabulary are no text and no trap.
            #expect(try await server.request("POST", "/detokenize", ["tokens": [-5, 1 << 40]]).json()["prompt"].string == "")
        }
    }

    // A failure means that a request without a key is answered, or that the time a comparison takes says something about keys.
    @Test("every route but /live and /health wants a key")
    func keys() async throws {
        try await TestServer.run({ $0.keys = ["first key", "second"] }) { server in
            for path in ["/live", "/health"] { #expect(try await server.request("GET", path).status == 200) }
            let routes = [
                ("GET", "/version"), ("GET", "/v1/models"), ("GET", "/v1/models/scenes/L"), ("POST", "/tokenize"), ("POST", "/detokenize"),
                ("POST", "/v1/chat/completions"), ("GET", "/nothing"), ("GET", "/live/"), ("GET", "/health/../version"), ("DELETE", "/v1/models"),
            ]
            for (method, path) in routes {
                for headers in [
                    [:], ["Authorization": "Bearer wrong"], ["Authorization": "Bearer first"], ["Authorization": "Bearer"], ["Authorization": "first key"],
                    ["x-api-key": ""], ["Authorization": "Basic ????"],
                ] {
                    let response = try await server.request(method, path, headers: headers)
                    #expect(response.status == 401, "\(method) \(path) \(headers)")
                    #expect(try response.json()["error"]["type"].string == "authentication_error")
                }
            }
            let basic = Data("anyone:second".utf8).base64EncodedString()
            for headers in [["Authorization": "Bearer first key"], ["x-api-key": "second"], ["Authorization": "Basic \(basic)"]] {
                #expect(try await server.request("GET", "/version", headers: headers).status == 200)
            }
        }
    }

    @Test("an address that other machines reach needs keys, or leave to go without")
    func addresses() throws {
        var options = ServerOptions()
        func make() throws { _ = try ModelServer(options, logger: .init(label: "test")) { throw CancellationError() } }
        for host in ["127.0.0.1", "localhost", "::1", "127.1.2.3"] {
            options.host = host
            try make()
        }
        for host in ["0.0.0.0", "::", "192.168.1.5", "example.org", "127.0.0.1.example.org"] {
            options.host = host
            #expect(throws: ServerError.unprotected(host: host)) { try make() }
        }
        options.keys = ["key"]
        try make()
        (options.keys, options.allowsAnyone) = ([], true)
        try make()
    }

    // A failure means that any page somebody has open can use a server without keys.
    @Test("pages of other sites cannot use a server without keys")
    func origins() async throws {
        try await TestServer.run { server in
            let cases: [([String: String], Int)] = [
                (["Origin": "https://evil.example"], 403), (["Origin": "null"], 403), (["Origin": "http://localhost:1"], 403),
                (["Host": "rebound.example:8080"], 403), (["Host": "localhost:8080", "Origin": "http://localhost:8080"], 200),
            ]
            for (headers, status) in cases {
                let response = try await server.request("GET", "/version", headers: headers)
                #expect(response.status == status, "\(headers)")
            }
        }
    }

    static let bad: [(String, String, Int, String?)] = [
        ("", "invalid_json", 400, nil), ("{", "invalid_json", 400, nil), ("[1]", "invalid_json", 400, nil), (#"{"a": 1, "a": 2}"#, "invalid_json", 400, nil),
        (String(repeating: "[", count: 100_000), "invalid_json", 400, nil), ("{}", "invalid_value", 400, "messages"),
        (#"{"messages": []}"#, "invalid_value", 400, "messages"), (#"{"messages": [1]}"#, "invalid_value", 400, "messages[0]"),
        (#"{"messages": [{"role": "robot", "content": "Hi"}]}"#, "invalid_value", 400, "messages[0].role"),
        (#"{"messages": [{"role": "assistant", "content": "Hi"}]}"#, "invalid_value", 400, "messages"),
        (#"{"messages": [{"role": "user"}]}"#, "invalid_value", 400, "messages[0].content"),
        (#"{"messages": [{"role": "user", "content": [{"type": "video"}]}]}"#, "invalid_value", 400, "messages[0].content[0].type"),
        (#"{"messages": [{"role": "user", "content": "Hi", "name": "Ann"}]}"#, "unknown_parameter", 400, "messages[0].name"),
        (#"{"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}]}"#, "model_not_found", 404, "model"),
    ]

    @Test("malformed bodies are refused in OpenAI's form", arguments: bad)
    func malformed(body: String, code: String, status: Int, parameter: String?) async throws {
        try await TestServer.run { server in
            let response = try await server.request("POST", "/v1/chat/completions", body: Data(body.utf8))
            let error = try response.json()["error"]
            #expect(response.status == status && error["code"].string == code && error["param"].string == parameter, "\(response.text)")
            #expect(error["message"].string?.isEmpty == false && error["type"].string == "invalid_request_error")
        }
    }

    // A failure means that a client gets less than it asked for without being told.
    @Test("parameters that are not supported, unknown or out of range are refused by name", arguments: [
        #""frequency_penalty": 0.5"#, #""presence_penalty": 1"#, #""logit_bias": {"5": 1}"#, #""tools": [{}]"#, #""tool_choice": "required""#,
        #""temperature": -1"#, #""temperature": "hot""#, #""top_p": 0"#, #""top_p": 1.5"#, #""min_p": 2"#, #""top_k": 1.5"#, #""max_tokens": 0"#,
        #""max_tokens": 1e99"#, #""n": 0"#, #""n": 1000"#, #""stop": 5"#, #""stop": [5]"#, #""seed": "a""#, #""stream": 1"#, #""stream_options": {}"#,
        #""return_progress": true"#, #""modalities": ["audio"]"#, #""temprature": 1"#, #""use_beam_search": true"#, #""store": true"#,
        #""min_tokens": 600"#, #""min_tokens": -1"#, #""ignore_eos": 1"#, #""response_format": {"type": "json_object"}, "ignore_eos": true"#,
    ])
    func unsupported(parameter: String) async throws {
        try await TestServer.run { server in
            let body = #"{"messages": [{"role": "user", "content": "Hi"}], \#(parameter)}"#
            let response = try await server.request("POST", "/v1/chat/completions", body: Data(body.utf8))
            let name = try #require(parameter.split(separator: "\"").first.map(String.init))
            let told = try response.json()["error"]["param"].string
            #expect(response.status == 400 && told?.hasPrefix(name) == true, "\(response.text)")
        }
    }

    @Test("values that ask for nothing are taken")
    func neutral() async throws {
        try await TestServer.run { server in
            let answer = try await server.chat("What is the word?", images: [1], [
                "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": [String: Int](), "tools": [Any](), "user": "someone", "n": 1,
                "include_reasoning": true, "separate_reasoning": true, "stream_reasoning": true, "no_stop_trim": false, "ignore_eos": false,
                "continue_final_message": false, "skip_special_tokens": true, "return_hidden_states": false,
                "stop": NSNull(), "response_format": ["type": "text"], "logprobs": false, "metadata": ["a": "b"], "top_k": -1, "max_tokens": 3,
            ])
            #expect(answer.status == 200, "\(answer.text)")
        }
    }

    // A difference means that the description lacks a route, or has one that is not there.
    @Test("the OpenAPI document has all routes")
    func description() async throws {
        try await TestServer.run { server in
            let document = try await server.request("GET", "/openapi.json").json()
            #expect(document["openapi"].string == "3.1.0")
            let paths = try #require(document["paths"].value as? [String: [String: Any]])
            let described = Set(paths.flatMap { path, methods in methods.keys.map { $0.uppercased() + " " + path } })
            let routes = server.server.router().routes.filter { $0.method != .head }.map { route in
                "\(route.method.rawValue) " + route.path.description.replacing(":id", with: "{id}").replacing("**", with: "{id}")
            }
            let parts: Set = ["GET /", "GET /page.css", "GET /page.js"]
            #expect(Set(routes).subtracting(parts) == described)
        }
    }

    @Test("unknown routes are told in the same form")
    func unknownRoutes() async throws {
        try await TestServer.run { server in
            let response = try await server.request("GET", "/v1/nothing")
            #expect(try response.status == 404 && response.json()["error"]["type"].string == "invalid_request_error")
        }
    }

    @Test("a body beyond the limit gets 413, with and without its length in the head")
    func tooLarge() async throws {
        try await TestServer.run({ $0.maxBodyBytes = 10_000 }) { server in
            let body = Data(repeating: UInt8(ascii: " "), count: 20_000)
            let response = try await server.request("POST", "/v1/chat/completions", body: body)
            #expect(try response.status == 413 && response.json()["error"]["code"].string == "body_too_large")
            let connection = try Connection(port: server.port)
            defer { connection.close() }
            try await connection.send("POST /tokenize HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in 0 ..< 3 { try await connection.send("1388\r\n" + String(repeating: " ", count: 5000) + "\r\n") }
            try await connection.send("0\r\n\r\n")
            #expect(try TestResponse(await connection.readToEnd()).status == 413)
        }
    }

    @Test("a body that does not arrive in time gets 408")
    func slowBody() async throws {
        try await TestServer.run({ $0.bodyTimeout = .milliseconds(300) }) { server in
            let connection = try Connection(port: server.port)
            defer { connection.close() }
            try await connection.send("POST /tokenize HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 100\r\n\r\n{")
            #expect(try TestResponse(await connection.read(until: "body_timeout")).status == 408)
        }
    }

    @Test("requests that come before the model is loaded are asked to come again")
    func loading() async throws {
        let (gate, open) = AsyncStream<Void>.makeStream()
        try await TestServer.run(load: {
            for await _ in gate {}
            return try await Scenes.model
        }) { server in
            let health = try await server.request("GET", "/health")
            #expect(try health.status == 503 && health.json()["status"].string == "loading")
            #expect(try await server.request("GET", "/live").status == 200)
            let early = try await server.chat("What is the word?")
            #expect(early.status == 503 && early.headers["retry-after"] == "1")
            open.finish()
            try await server.waitUntil("the model is ready") { try await server.request("GET", "/health").status == 200 }
            #expect(try await server.chat("What is the word?", images: [1]).status == 200)
        }
    }
}
