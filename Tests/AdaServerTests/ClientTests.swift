import AdaLLaVA
import Foundation
import Hummingbird
import NIOCore
import NIOEmbedded
import Testing

@testable import AdaServer

/// Clients that go away, stop reading, or send anything.
@Suite struct ClientTests {
    /// An answer that would take long: as many tokens as the context holds, drawn among all.
    private static func long(streams: Bool) throws -> Data {
        let body = try JSONSerialization.data(withJSONObject: TestServer.chat(
            "Describe the image.", images: [1], ["stream": streams, "temperature": 100, "min_p": 0, "max_tokens": 900, "seed": 3, "n": 8]))
        return TestServer.head("POST", "/v1/chat/completions", body) + body
    }

    // A failure means that clients who went away keep the machine busy.
    @Test("a client that goes away frees its work", arguments: [true, false])
    func disconnects(streams: Bool) async throws {
        let model = try await Scenes.model
        try await TestServer.run { server in
            let connection = try Connection(port: server.port)
            try await connection.send(try Self.long(streams: streams))
            try await server.waitUntil("it is answered") { model.load.runningRequests > 0 }
            connection.close()
            try await server.waitUntil("it is stopped") { model.load.runningRequests + model.load.waitingRequests == 0 }
            #expect(try await server.chat("What is the word?", images: [1]).status == 200)
        }
    }

    /// A client that reads nothing: a write waits until the connection is closed.
    private struct StuckWriter: ResponseBodyWriter {
        let channel: any Channel

        func write(_ buffer: ByteBuffer) async throws {
            try await channel.closeFuture.get()
            throw ChannelError.ioOnClosedChannel
        }

        consuming func finish(_ trailingHeaders: HTTPFields?) async throws {}
    }

    // A failure means that a client that stops reading holds the memory of its answer for ever.
    @Test("the connection of a client that leaves its answer unread is closed")
    func lagging() async throws {
        let channel = NIOAsyncTestingChannel()
        try await channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).get()
        let stream = EventStream(StuckWriter(channel: channel), channel, limit: .milliseconds(50))
        await #expect(throws: ChannelError.self) { try await stream.watched { try await stream.send([StreamEvent(data: "text")]) } }
        #expect(!channel.isActive)
    }

    @Test("silent streams get comments")
    func keepAlive() async throws {
        try await TestServer.run({ $0.keepAlive = .milliseconds(1) }) { server in
            let response = try await server.chat("Describe the image.", images: [12], ["stream": true])
            #expect(response.text.contains(": keep-alive\n\n") && response.text.hasSuffix("data: [DONE]\n\n"))
        }
    }

    @Test("progress events say what is encoded and read")
    func progress() async throws {
        try await TestServer.run { server in
            // A picture that nothing is known of yet.
            let pixels = Data([0x42, 0x4D, 58, 0, 0, 0, 0, 0, 0, 0, 54, 0, 0, 0, 40, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 24, 0]
                + [UInt8](repeating: 0, count: 24) + [UInt8.random(in: 0 ... 255), UInt8.random(in: 0 ... 255), UInt8.random(in: 0 ... 255), 0])
            let response = try await server.request("POST", "/v1/chat/completions", [
                "stream": true, "return_progress": true, "max_tokens": 4,
                "messages": [["role": "user", "content": [
                    ["type": "image_url", "image_url": ["url": "data:image/bmp;base64," + pixels.base64EncodedString()]], ["type": "text", "text": "What is the word?"],
                ]]],
            ])
            let phases = try response.events().compactMap { $0["progress"]["phase"].string }
            #expect(phases.first == "encode" && phases.contains("prefill"), "\(response.text)")
        }
    }

    @Test("random bytes on the socket end nothing but their connection")
    func randomBytes() async throws {
        try await TestServer.run { server in
            var random = SystemRandomNumberGenerator()
            let whole = try Self.long(streams: true)
            for round in 0 ..< 200 {
                let connection = try Connection(port: server.port)
                defer { connection.close() }
                switch round % 4 {
                case 0: try await connection.send(Data((0 ..< Int.random(in: 1 ... 300)).map { _ in UInt8.random(in: 0 ... 255, using: &random) }))
                case 1:
                    // A sound head, and anything behind it.
                    let junk = Data((0 ..< 200).map { _ in UInt8.random(in: 0 ... 255, using: &random) })
                    try await connection.send(TestServer.head("POST", ["/tokenize", "/v1/chat/completions"][round / 4 % 2], junk) + junk)
                case 2:
                    // A sound request with some bytes changed.
                    var changed = Data(whole.prefix(1500))
                    for _ in 0 ..< 5 { changed[changed.indices.randomElement(using: &random)!] = UInt8.random(in: 0 ... 255, using: &random) }
                    try await connection.send(changed)
                default: try await connection.send(Data(whole.prefix(Int.random(in: 1 ..< whole.count, using: &random))))
                }
            }
            #expect(try await server.chat("What is the word?", images: [1]).status == 200)
            let model = try await Scenes.model
            try await server.waitUntil("nothing is left") { model.load.runningRequests + model.load.waitingRequests == 0 }
        }
    }
}
