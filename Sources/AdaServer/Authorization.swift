import Crypto
import Foundation
import HTTPTypes
import Hummingbird

/// Lets requests with one of the server's keys pass, and those for `/live` and `/health`.
///
/// A key is given as `Authorization: Bearer KEY`, as `x-api-key: KEY`, or as the password of Basic authentication, which browsers support.
struct AuthorizationMiddleware: RouterMiddleware {
    static let openPaths: Set = ["/live", "/health"]

    /// Digests all have one length, so that how long a comparison takes says nothing about a key.
    private let digests: [[UInt8]]
    /// Whether only names of this machine are served; `nil` where any may be.
    private let servesLoopbackOnly: Bool

    init(keys: [String], isLoopback: Bool) {
        digests = keys.map { Array(SHA256.hash(data: Data($0.utf8))) }
        servesLoopbackOnly = keys.isEmpty && isLoopback
    }

    func handle(_ request: Request, context: ServerContext, next: (Request, ServerContext) async throws -> Response) async throws -> Response {
        var context = context
        if Self.openPaths.contains(request.uri.path) { return try await next(request, context) }
        if digests.isEmpty {
            try checkOrigin(request)
        } else {
            guard let key = Self.key(in: request.headers), let client = client(key) else {
                throw APIError(.unauthorized, "expected a valid key as Authorization: Bearer KEY", code: "invalid_api_key")
            }
            context.client = client
        }
        return try await next(request, context)
    }

    /// The name of a key's owner; `nil` for a key that is not known. Compares with every key to the end.
    private func client(_ key: String) -> String? {
        let digest = Array(SHA256.hash(data: Data(key.utf8)))
        var found: UInt8 = 0
        for known in digests {
            var difference: UInt8 = 0
            for (a, b) in zip(known, digest) { difference |= a ^ b }
            found |= difference == 0 ? 1 : 0
        }
        return found == 1 ? digest.prefix(8).map { String($0, radix: 16) }.joined() : nil
    }

    private static func key(in headers: HTTPFields) -> String? {
        if let name = HTTPField.Name("x-api-key"), let key = headers[name] { return key }
        guard let value = headers[.authorization] else { return nil }
        let parts = value.split(separator: " ", maxSplits: 1).map(String.init)
        guard parts.count == 2 else { return nil }
        let credentials = parts[1].trimmingCharacters(in: .whitespaces)
        switch parts[0].lowercased() {
        case "bearer": return credentials
        case "basic":
            guard let data = Data(base64Encoded: credentials) else { return nil }
            return String(decoding: data, as: UTF8.self).split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).dropFirst().first.map(String.init)
        default: return nil
        }
    }

    /// Without keys, a page of another site, open in a browser, must not use the server: neither by its own name, nor by one that resolves to
    /// this machine (DNS rebinding).
    private func checkOrigin(_ request: Request) throws {
        let host = request.head.authority ?? ""
        if servesLoopbackOnly, !host.isEmpty, !Self.isLoopback(authority: host) {
            throw APIError(.forbidden, "Host: expected a name of this machine, found \(host.prefix(80))", code: "forbidden_host")
        }
        if let origin = request.headers[.origin], URLComponents(string: origin).map({ Self.authority($0) }) != host {
            throw APIError(.forbidden, "Origin: pages of other sites may not use this server, found \(origin.prefix(80))", code: "forbidden_origin")
        }
    }

    private static func authority(_ components: URLComponents) -> String {
        (components.host ?? "") + (components.port.map { ":\($0)" } ?? "")
    }

    private static func isLoopback(authority: String) -> Bool {
        ServerOptions.isLoopback(host: authority.hasPrefix("[") ? authority.prefix { $0 != "]" } + "]" : String(authority.prefix { $0 != ":" }))
    }
}
