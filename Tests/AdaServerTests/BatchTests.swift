import AdaLLaVA
import Foundation
import Synchronization
import Testing

@testable import AdaServer

/// Batches, over HTTP and from files; embeddings.
@Suite struct BatchTests {
    private static func line(_ id: String, _ question: String, image: Int? = nil, _ more: [String: Any] = [:]) throws -> String {
        let body = try TestServer.chat(question, images: image.map { [$0] } ?? [], more)
        let object: [String: Any] = ["custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body]
        return String(decoding: try JSONSerialization.data(withJSONObject: object), as: UTF8.self)
    }

    private static func upload(_ server: TestServer, _ content: String, purpose: String = "batch") async throws -> TestResponse {
        let boundary = "----boundary\(Int.random(in: 0 ... 999_999))"
        let body = Data("--\(boundary)\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\n\(purpose)\r\n--\(boundary)\r\nContent-Disposition: form-data; name=\"file\"; filename=\"in.jsonl\"\r\nContent-Type: application/octet-stream\r\n\r\n\(content)\r\n--\(boundary)--\r\n".utf8)
        return try await server.request("POST", "/v1/files", body: body, headers: ["Content-Type": "multipart/form-data; boundary=\(boundary)"])
    }

    @Test("files are kept, given back and deleted")
    func files() async throws {
        try await TestServer.run { server in
            let content = "one\r\ntwo\n\n--three"
            let file = try await Self.upload(server, content).json()
            let id = try #require(file["id"].string)
            #expect(file["bytes"].int == content.utf8.count && file["filename"].string == "in.jsonl" && file["purpose"].string == "batch")
            #expect(try await server.request("GET", "/v1/files/\(id)/content").text == content)
            #expect(try await server.request("GET", "/v1/files").json()["data"].array?.count == 1)
            #expect(try await server.request("DELETE", "/v1/files/\(id)").json()["deleted"].bool == true)
            #expect(try await server.request("GET", "/v1/files/\(id)").status == 404)
            #expect(try await Self.upload(server, "x", purpose: "assistants").status == 400)
            for (type, body) in [
                ("application/json", "{}"), ("multipart/form-data", "--\r\n"), ("multipart/form-data; boundary=x", "--x\r\n"), ("multipart/form-data; boundary=x", "--x--"),
                ("multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nabc"), ("multipart/form-data; boundary=\"\"", "--"),
            ] { #expect(try await server.request("POST", "/v1/files", body: Data(body.utf8), headers: ["Content-Type": type]).status == 400, "\(type) \(body)") }
        }
    }

    @Test("nobody sees another client's files and batches")
    func owners() async throws {
        try await TestServer.run({ $0.keys = ["a", "b"] }) { server in
            let boundary = "x"
            let body = Data("--x\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nhello\r\n--x--".utf8)
            let file = try await server.request("POST", "/v1/files", body: body, headers: ["Content-Type": "multipart/form-data; boundary=\(boundary)", "x-api-key": "a"]).json()
            let id = try #require(file["id"].string)
            for (key, status) in [("a", 200), ("b", 404)] {
                let found = try await server.request("GET", "/v1/files/\(id)/content", headers: ["x-api-key": key])
                #expect(found.status == status)
            }
        }
    }

    @Test("a batch's results are those of single requests, in the order of its lines")
    func batch() async throws {
        try await TestServer.run { server in
            let lines = [
                try Self.line("b", "What is the word?", image: 3), try Self.line("a", "Describe the image.", image: 4, ["budget": 0.6]), "",
                try Self.line("bad", "Hi", ["temperature": -1]), try Self.line("c", "Describe the image.", image: 3),
            ]
            let file = try await Self.upload(server, lines.joined(separator: "\n")).json()["id"].string
            let made = try await server.request("POST", "/v1/batches", ["input_file_id": file ?? "", "endpoint": "/v1/chat/completions", "completion_window": "24h"]).json()
            let id = try #require(made["id"].string)
            var batch = made
            try await server.waitUntil("it is done") {
                batch = try await server.request("GET", "/v1/batches/\(id)").json()
                return batch["status"].string == "completed"
            }
            #expect(batch["request_counts"]["completed"].int == 3 && batch["request_counts"]["failed"].int == 1 && batch["request_counts"]["total"].int == 4)
            let output = try await server.request("GET", "/v1/files/\(batch["output_file_id"].string ?? "")/content").text
            let results = try output.split(separator: "\n").map { JSON(try JSONSerialization.jsonObject(with: Data($0.utf8)), #_sourceLocation) }
            #expect(results.map { $0["custom_id"].string } == ["b", "a", "c"])
            let expected = [
                try await Scenes.asked("What is the word?", images: [3]).text, try await Scenes.asked("Describe the image.", images: [4], budget: .fraction(0.6)).text,
                try await Scenes.asked("Describe the image.", images: [3]).text,
            ]
            #expect(results.map { $0["response"]["body"]["choices"][0]["message"]["content"].string } == expected)
            let errors = try await server.request("GET", "/v1/files/\(batch["error_file_id"].string ?? "")/content").json()
            #expect(errors["custom_id"].string == "bad" && errors["response"]["status_code"].int == 400)
            #expect(try await server.request("POST", "/v1/batches/\(id)/cancel").status == 409)
            #expect(try await server.request("GET", "/v1/batches").json()["data"].array?.count == 1)
        }
    }

    @Test("a file that is no batch fails as a whole, and says why; a batch is cancelled")
    func failures() async throws {
        try await TestServer.run { server in
            for content in ["{", "{\"custom_id\": \"a\"}", "", try Self.line("a", "Hi") + "\n" + Self.line("a", "Hi"), #"{"custom_id":"a","method":"POST","url":"/v1/files","body":{}}"#] {
                let file = try await Self.upload(server, content).json()["id"].string
                let id = try await server.request("POST", "/v1/batches", ["input_file_id": file ?? "", "endpoint": "/v1/chat/completions"]).json()["id"].string
                try await server.waitUntil("it has failed") { try await server.request("GET", "/v1/batches/\(id ?? "")").json()["status"].string == "failed" }
            }
            #expect(try await server.request("POST", "/v1/batches", ["input_file_id": "file-1", "endpoint": "/v1/chat/completions"]).status == 404)
            // Its lines wait for the places that the test holds.
            let lease = try await server.server.admission.lease(Admission.Order(), slots: 100)
            let file = try await Self.upload(server, try Self.line("a", "Hi")).json()["id"].string
            #expect(try await server.request("POST", "/v1/batches", ["input_file_id": file ?? "", "endpoint": "/v1/nothing"]).status == 400)
            let id = try await server.request("POST", "/v1/batches", ["input_file_id": file ?? "", "endpoint": "/v1/chat/completions"]).json()["id"].string ?? ""
            try await server.waitUntil("it waits") { server.server.admission.counts.waiting == 1 }
            #expect(try await server.request("POST", "/v1/batches/\(id)/cancel").json()["status"].string == "cancelling")
            try await server.waitUntil("it is cancelled") { try await server.request("GET", "/v1/batches/\(id)").json()["status"].string == "cancelled" }
            lease.end()
        }
    }

    private static func withFolder(_ body: (URL) async throws -> Void) async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("adallava-batch-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try await body(folder)
    }

    private static func results(_ url: URL) throws -> [String: JSON] {
        let lines = try String(contentsOf: url, encoding: .utf8).split(separator: "\n")
        let values = try lines.map { JSON(try JSONSerialization.jsonObject(with: Data($0.utf8)), #_sourceLocation) }
        return Dictionary(values.map { ($0["custom_id"].string ?? "", $0) }) { _, _ in JSON(nil, #_sourceLocation) }
    }

    // A failure means that work is done twice after a stop, or that a cut line spoils the output.
    @Test("without a server: answers are the same, images are encoded once, and a run goes on where it was")
    func offline() async throws {
        try await Self.withFolder { folder in
            let input = folder.appendingPathComponent("in.jsonl"), output = folder.appendingPathComponent("out.jsonl")
            let questions = ["What is the word?", "Describe the image."]
            let lines = try (0 ..< 6).map { try Self.line("q\($0)", questions[$0 % 2], image: 10 + $0 / 2) }
            try Data(lines.joined(separator: "\n").utf8).write(to: input)
            let runner = try OfflineBatch(try await Scenes.model, modelName: "scenes/L")
            #expect(try await runner.run(input: input, output: output) == .init(answered: 6, errors: 0, known: 0))
            let first = try Self.results(output)
            for index in 0 ..< 6 {
                let answer = try #require(first["q\(index)"])["response"]["body"]
                #expect(answer["choices"][0]["message"]["content"].string == (try await Scenes.asked(questions[index % 2], images: [10 + index / 2]).text))
            }
            // Of the two questions about an image one found the image's positions computed.
            for image in 0 ..< 3 {
                let cached = [2 * image, 2 * image + 1].compactMap { first["q\($0)"]?["response"]["body"]["usage"]["prompt_tokens_details"]["cached_tokens"].int }
                #expect(cached.max() ?? 0 >= 49, "\(cached)")
            }
            // Stopped after three lines and a half.
            let written = try String(contentsOf: output, encoding: .utf8).split(separator: "\n").map(String.init)
            try Data((written[..<3].joined(separator: "\n") + "\n" + written[3].prefix(40)).utf8).write(to: output)
            #expect(try await runner.run(input: input, output: output) == .init(answered: 3, errors: 0, known: 3))
            #expect(Set(try Self.results(output).keys) == Set(first.keys))
            try Data("hello\n".utf8).write(to: output)
            await #expect(throws: CheckpointError.self) { try await runner.run(input: input, output: output) }
        }
    }

    @Test("shards share all lines, and questions about one image are in one of them")
    func shards() async throws {
        try await Self.withFolder { folder in
            let input = folder.appendingPathComponent("in.jsonl")
            let lines = try (0 ..< 12).map { try Self.line("q\($0)", ["What is the word?", "Describe the image."][$0 % 2], image: $0 / 2, ["max_tokens": 1]) }
            try Data(lines.joined(separator: "\n").utf8).write(to: input)
            let runner = try OfflineBatch(try await Scenes.model, modelName: "scenes/L")
            var all: [String] = []
            for number in 1 ... 3 {
                let output = folder.appendingPathComponent("out\(number).jsonl")
                let shard = try #require(OfflineBatch.Shard(number: number, count: 3))
                _ = try await runner.run(input: input, output: output, shard: shard)
                let ids = try Array(Self.results(output).keys)
                all += ids
                for id in ids {
                    let index = try #require(Int(id.dropFirst()))
                    #expect(ids.contains("q\(index ^ 1)"))
                }
            }
            #expect(all.count == 12 && Set(all).count == 12)
            #expect(OfflineBatch.Shard(number: 0, count: 3) == nil && OfflineBatch.Shard(number: 4, count: 3) == nil && OfflineBatch.Shard(number: 1, count: 0) == nil)
        }
    }

    @Test("embeddings of images: one vector each, of length 1, as numbers and in base64")
    func embeddings() async throws {
        try await TestServer.run { server in
            let urls = [try Scenes.dataURL(1), try Scenes.dataURL(2), try Scenes.dataURL(1)]
            let answer = try await server.request("POST", "/v1/embeddings", ["model": "scenes/L", "input": urls]).json()
            let vectors = try #require(answer["data"].array).map { ($0["embedding"].value as? [NSNumber] ?? []).map(\.doubleValue) }
            #expect(vectors.count == 3 && vectors[0] == vectors[2] && vectors[0] != vectors[1] && !vectors[0].isEmpty)
            for vector in vectors { #expect(abs(vector.reduce(0) { $0 + $1 * $1 } - 1) < 1e-4) }
            #expect(answer["usage"]["prompt_tokens"].int == 3 * 49)
            let coded = try await server.request("POST", "/v1/embeddings", ["input": urls[1], "encoding_format": "base64"]).json()["data"][0]["embedding"].string
            let bytes = try #require(Data(base64Encoded: coded ?? ""))
            let numbers: [Double] = stride(from: 0, to: bytes.count, by: 4).map { index in
                var pattern: UInt32 = 0
                for byte in bytes[index ..< index + 4].reversed() { pattern = pattern << 8 | UInt32(byte) }
                return Double(Float(bitPattern: pattern))
            }
            #expect(numbers.count == vectors[1].count && zip(numbers, vectors[1]).allSatisfy { abs($0 - $1) < 1e-6 })
            for bad in [["input": "a text"], ["input": [Any]()], ["input": [5]], ["input": urls[0], "dimensions": 5], ["input": urls[0], "encoding_format": "hex"]] as [[String: Any]] {
                #expect(try await server.request("POST", "/v1/embeddings", bad).status == 400)
            }
        }
    }
}
