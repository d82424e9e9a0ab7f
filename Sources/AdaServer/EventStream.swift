import Foundation
import Hummingbird
import NIOCore
import Synchronization

/// One server-sent event.
struct StreamEvent: Sendable {
    /// `nil` leaves the event without a name, as OpenAI's chat events are.
    var name: String?
    let data: any Encodable & Sendable
}

/// Server-sent events to one client (WHATWG HTML, section 9.2).
///
/// The engine never waits for a client: pieces of an answer queue up, and the connection of a client that leaves one unread for too long is closed.
struct EventStream {
    private let writer: any ResponseBodyWriter
    private let watch = WriteWatch()
    private let channel: any Channel
    private let limit: Duration

    /// - Parameter limit: the longest time that the client may leave an event unread.
    init(_ writer: any ResponseBodyWriter, _ channel: any Channel, limit: Duration) {
        (self.writer, self.channel, self.limit) = (writer, channel, limit)
    }

    /// Runs `body`, closing the connection if one of its writes waits too long.
    func watched(_ body: () async throws -> Void) async throws {
        let (watch, channel, limit) = (watch, channel, limit)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                while true {
                    try await Task.sleep(for: limit / 4)
                    if watch.isBehind(limit) { return channel.close(promise: nil) }
                }
            }
            try await body()
            group.cancelAll()
        }
    }

    func send(_ events: [StreamEvent]) async throws {
        var buffer = ByteBuffer()
        for event in events {
            if let name = event.name { buffer.writeString("event: \(name)\n") }
            buffer.writeString("data: ")
            buffer.writeBytes(try JSONBody.data(event.data))
            buffer.writeString("\n\n")
        }
        if buffer.readableBytes > 0 { try await write(buffer) }
    }

    /// A line that clients ignore.
    func comment(_ text: String) async throws { try await write(ByteBuffer(string: ": \(text)\n\n")) }

    /// The mark that ends OpenAI's streams.
    func sendDone() async throws { try await write(ByteBuffer(string: "data: [DONE]\n\n")) }

    private func write(_ buffer: ByteBuffer) async throws {
        watch.begin()
        defer { watch.end() }
        var writer = writer
        try await writer.write(buffer)
    }
}

/// Since when a write waits for its client.
private final class WriteWatch: Sendable {
    private let started = Mutex<ContinuousClock.Instant?>(nil)

    func begin() { started.withLock { $0 = .now } }

    func end() { started.withLock { $0 = nil } }

    func isBehind(_ limit: Duration) -> Bool { started.withLock { $0.map { .now - $0 > limit } ?? false } }
}
