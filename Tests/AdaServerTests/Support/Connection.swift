import Foundation
import Testing

/// A socket to a server on loopback. Its calls wait on a queue of their own, so that they take no thread from the server in the same process.
final class Connection: @unchecked Sendable {
    struct Closed: Error {}

    private let socket: Int32
    private let queue = DispatchQueue(label: "connection")
    /// Touched on `queue` only.
    private var received = Data()

    init(port: Int) throws { socket = try Connection.connected(port: port) }

    /// - Returns: a socket to the server.
    private static func connected(port: Int) throws -> Int32 {
        #if canImport(Glibc)
        let socket = Foundation.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        #else
        let socket = Foundation.socket(AF_INET, SOCK_STREAM, 0)
        #endif
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        // A server that does not answer must not hang the tests.
        var limit = timeval(tv_sec: 60, tv_usec: 0)
        setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
        if result != 0 {
            Foundation.close(socket)
            throw POSIXError(POSIXErrorCode(rawValue: errno) ?? .EIO)
        }
        return socket
    }

    /// Sends some bytes over a connection of their own and leaves. Waits on the calling thread.
    /// - Parameter ends: whether this side says first that nothing more comes.
    static func send(_ bytes: Data, port: Int, ends: Bool) throws {
        let socket = try connected(port: port)
        defer { Foundation.close(socket) }
        _ = bytes.withUnsafeBytes { Foundation.send(socket, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
        if ends { shutdown(socket, Int32(SHUT_WR)) }
    }

    private func onQueue<Result: Sendable>(_ work: @escaping @Sendable () throws -> Result) async throws -> Result {
        try await withCheckedThrowingContinuation { continuation in
            queue.async { continuation.resume(with: Swift.Result { try work() }) }
        }
    }

    /// Sends everything, or as much as the other side takes before it closes.
    func send(_ bytes: Data) async throws {
        try await onQueue { [socket] in
            var left = bytes[...]
            while !left.isEmpty {
                let count = left.withUnsafeBytes { Foundation.send(socket, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
                guard count > 0 else { return }
                left = left.dropFirst(count)
            }
        }
    }

    func send(_ text: String) async throws { try await send(Data(text.utf8)) }

    /// Everything until the other side closes.
    func readToEnd() async throws -> Data {
        try await onQueue { [self] in
            while receive() {}
            return received
        }
    }

    /// Waits until a text has come.
    /// - Returns: everything so far.
    @discardableResult
    func read(until text: String) async throws -> Data {
        try await onQueue { [self] in
            while received.range(of: Data(text.utf8)) == nil {
                guard receive() else { throw Closed() }
            }
            return received
        }
    }

    /// - Returns: whether anything came.
    private func receive() -> Bool {
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let count = recv(socket, &buffer, buffer.count, 0)
        if count > 0 { received += buffer[..<count] }
        return count > 0
    }

    func close() {
        shutdown(socket, Int32(SHUT_RDWR))
        queue.async { [socket] in Foundation.close(socket) }
    }
}
