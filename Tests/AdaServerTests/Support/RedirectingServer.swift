import Foundation
import Synchronization

/// Answers every path with a redirect of its own: `/two` leads to `/end` in two steps, `/inside`, `/name` and `/file` to places that nobody may be sent to.
final class RedirectingServer: @unchecked Sendable {
    final class Paths: Sendable {
        private let all = Mutex<[String]>([])

        func add(_ path: String) { all.withLock { $0.append(path) } }
        var values: [String] { all.withLock { $0 } }
    }

    let port: Int
    let paths = Paths()
    private let socket: Int32

    init() throws {
        #if canImport(Glibc)
        socket = Foundation.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        #else
        socket = Foundation.socket(AF_INET, SOCK_STREAM, 0)
        #endif
        var address = sockaddr_in(), length = socklen_t(MemoryLayout<sockaddr_in>.size)
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        let socket = socket
        let result = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                bind(socket, address, length) == 0 && listen(socket, 16) == 0 && getsockname(socket, address, &length) == 0
            }
        }
        if !result { throw POSIXError(.EADDRINUSE) }
        port = Int(UInt16(bigEndian: address.sin_port))
        let thread = Thread { [self] in serve() }
        thread.start()
    }

    private func serve() {
        while true {
            let client = accept(socket, nil, nil)
            if client < 0 { return }
            var buffer = [UInt8](repeating: 0, count: 4096)
            let count = recv(client, &buffer, buffer.count, 0)
            let path = String(decoding: buffer.prefix(max(count, 0)), as: UTF8.self).split(separator: " ").dropFirst().first.map(String.init) ?? ""
            paths.add(path)
            let location = [
                "/two": "/one", "/one": "http://127.0.0.1:\(port)/end", "/inside": "http://169.254.169.254/latest", "/name": "http://localhost:\(port)/secret",
                "/loop": "/loop", "/file": "file:///etc/passwd",
            ][path]
            let answer = location.map { "HTTP/1.1 302 Found\r\nLocation: \($0)\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" }
                ?? "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nhere"
            _ = Array(answer.utf8).withUnsafeBytes { send(client, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            Foundation.close(client)
        }
    }

    func close() {
        shutdown(socket, Int32(SHUT_RDWR))
        Foundation.close(socket)
    }
}
