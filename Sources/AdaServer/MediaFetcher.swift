import AsyncHTTPClient
import Foundation
import NIOCore

/// Fetches images from the hosts that a server may reach, and from no address that is not public.
///
/// A name is resolved once and the connection goes to the address that was checked, so that a second answer of the name server has no effect. Redirects
/// are followed by hand, each checked like the first request. A host given by its address is allowed as it is.
struct MediaFetcher: Sendable {
    /// `HOST` or `HOST:PORT`.
    let hosts: Set<String>
    private static let redirectLimit = 3

    private let resolve: @Sendable (String) -> [NetworkAddress]

    /// - Parameter resolve: the addresses of a name.
    init(hosts: [String], resolve: @escaping @Sendable (String) -> [NetworkAddress] = NetworkAddress.resolve) {
        (self.hosts, self.resolve) = (Set(hosts.map { $0.lowercased() }), resolve)
    }

    /// - Throws: ``APIError``
    func fetch(_ url: String, maxBytes: Int) async throws -> [UInt8] {
        var next = url
        for _ in 0 ... Self.redirectLimit {
            let target = try await target(next, asked: url)
            var configuration = HTTPClient.Configuration(
                redirectConfiguration: .disallow, timeout: .init(connect: .seconds(5), read: .seconds(10)), decompression: .disabled)
            configuration.dnsOverride = [target.host: target.address]
            let client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
            let outcome: Outcome
            do {
                outcome = try await Self.get(client, target.url, maxBytes, asked: url)
                try await client.shutdown()
            } catch {
                try? await client.shutdown()
                throw error is APIError ? error : MediaLoader.refused(url, "the image could not be fetched")
            }
            switch outcome {
            case .bytes(let bytes): return bytes
            case .moved(let location):
                guard let moved = URL(string: location, relativeTo: URL(string: target.url))?.absoluteString else {
                    throw MediaLoader.refused(url, "the image has moved to no address")
                }
                next = moved
            }
        }
        throw MediaLoader.refused(url, "more than \(Self.redirectLimit) redirects")
    }

    private enum Outcome {
        case bytes([UInt8])
        case moved(String)
    }

    private static func get(_ client: HTTPClient, _ url: String, _ maxBytes: Int, asked: String) async throws -> Outcome {
        var request = HTTPClientRequest(url: url)
        request.headers.add(name: "accept", value: "image/*")
        let response = try await client.execute(request, timeout: .seconds(20))
        switch response.status.code {
        case 200:
            do {
                return .bytes([UInt8](buffer: try await response.body.collect(upTo: maxBytes)))
            } catch is NIOTooManyBytesError {
                throw APIError(.contentTooLarge, "image_url \(asked.prefix(80)): more than \(maxBytes) bytes", parameter: "messages", code: "image_too_large")
            }
        case 301, 302, 303, 307, 308:
            if let location = response.headers.first(name: "location") { return .moved(location) }
        default: break
        }
        throw MediaLoader.refused(asked, "the image could not be fetched: status \(response.status.code)")
    }

    /// Where a URL leads, if it may be reached.
    private func target(_ url: String, asked: String) async throws -> (url: String, host: String, address: String) {
        guard let components = URLComponents(string: url), let scheme = components.scheme?.lowercased(), ["http", "https"].contains(scheme),
            components.user == nil, components.password == nil, let host = components.host?.lowercased(), !host.isEmpty
        else { throw MediaLoader.refused(asked, "expected http://HOST/… or https://HOST/…") }
        let port = components.port ?? (scheme == "https" ? 443 : 80)
        let name = host.trimmingCharacters(in: ["[", "]"])
        let isListed = hosts.contains("\(host):\(port)") || (components.port == nil && hosts.contains(host))
        guard isListed else { throw MediaLoader.refused(asked, "this host is not among those that --allow-media-host names") }
        if NetworkAddress(literal: name) != nil { return (url, name, name) }
        let addresses = try await DispatchQueue.global().run { [resolve] in resolve(name) }
        guard let first = addresses.first, addresses.allSatisfy(\.isPublic) else { throw MediaLoader.refused(asked, "this host has no public address") }
        return (url, host, first.text)
    }
}

/// An address of the Internet Protocol, version 4 or 6.
struct NetworkAddress: Equatable {
    /// 4 or 16 bytes.
    let bytes: [UInt8]
    let text: String

    init?(literal text: String) {
        var four = in_addr(), six = in6_addr()
        if inet_pton(AF_INET, text, &four) == 1 {
            bytes = withUnsafeBytes(of: four) { Array($0) }
        } else if inet_pton(AF_INET6, text, &six) == 1 {
            bytes = withUnsafeBytes(of: six) { Array($0) }
        } else {
            return nil
        }
        self.text = text
    }

    /// All addresses of a name. Waits for the name server.
    static func resolve(_ name: String) -> [NetworkAddress] {
        var hints = addrinfo()
        #if canImport(Glibc)
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        #else
        hints.ai_socktype = SOCK_STREAM
        #endif
        var list: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(name, nil, &hints, &list) == 0 else { return [] }
        defer { freeaddrinfo(list) }
        var found: [NetworkAddress] = []
        var entry = list
        while let info = entry {
            var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
            if getnameinfo(info.pointee.ai_addr, info.pointee.ai_addrlen, &text, socklen_t(text.count), nil, 0, NI_NUMERICHOST) == 0,
                let address = NetworkAddress(literal: String(decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self))
            {
                found.append(address)
            }
            entry = info.pointee.ai_next
        }
        return found
    }

    /// Whether it belongs to the public Internet (IANA's special-purpose registries): no loopback, private, link-local, shared, documentation, multicast
    /// or reserved address, also not one of version 4 inside one of version 6.
    var isPublic: Bool {
        if bytes.count == 4 { return Self.isPublic(bytes) }
        func begins(_ prefix: [UInt8]) -> Bool { bytes.starts(with: prefix) }
        let zeros = [UInt8](repeating: 0, count: 10)
        // Mapped, translated (NAT64) and 6to4 addresses hold one of version 4.
        if begins(zeros + [0xFF, 0xFF]) || begins([0, 0x64, 0xFF, 0x9B] + [UInt8](repeating: 0, count: 8)) { return Self.isPublic(Array(bytes[12...])) }
        if begins([0x20, 0x02]) { return Self.isPublic(Array(bytes[2 ..< 6])) }
        // Only 2000::/3 is given out; in it Teredo, benchmarks and documentation are not reached.
        return bytes[0] & 0xE0 == 0x20 && !begins([0x20, 0x01, 0, 0]) && !begins([0x20, 0x01, 0, 2]) && !begins([0x20, 0x01, 0x0D, 0xB8])
    }

    private static func isPublic(_ b: [UInt8]) -> Bool {
        switch (b[0], b[1], b[2]) {
        case (0, _, _), (10, _, _), (127, _, _), (169, 254, _), (172, 16 ... 31, _), (192, 168, _), (192, 0, 0), (192, 0, 2), (198, 18 ... 19, _),
            (198, 51, 100), (203, 0, 113), (100, 64 ... 127, _), (224..., _, _):
            false
        default: true
        }
    }
}
