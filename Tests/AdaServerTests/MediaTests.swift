import AdaLLaVA
import Foundation
import Testing

@testable import AdaServer

/// Images that requests name.
@Suite struct MediaTests {
    private static func ask(_ server: TestServer, _ url: String, _ more: [String: Any] = [:]) async throws -> TestResponse {
        let image: [String: Any] = ["url": url].merging(more) { $1 }
        return try await server.request("POST", "/v1/chat/completions", [
            "max_tokens": 4, "messages": [["role": "user", "content": [["type": "image_url", "image_url": image], ["type": "text", "text": "What is the word?"]]]],
        ])
    }

    @Test("what is no image is refused", arguments: [
        "", "photo.jpg", "/etc/passwd", "data:", "data:image/png;base64,", "data:image/png;base64,!!!!", "data:image/png;base64,aGVsbG8=",
        "data:text/plain,hello", "file:///etc/passwd", "FILE:///etc/passwd", "http://127.0.0.1/a.png", "https://example.org/a.png", "ftp://example.org/a.png",
        "javascript:alert(1)", "-",
    ])
    func refusals(url: String) async throws {
        try await TestServer.run { server in
            let response = try await Self.ask(server, url)
            #expect(response.status == 400)
            let error = try response.json()["error"]
            #expect(["invalid_image", "invalid_image_url"].contains(error["code"].string), "\(response.text)")
            #expect(error["message"].string?.contains("root:") == false)
        }
    }

    // A failure means that a small body makes the server take gigabytes.
    @Test("an image bomb is refused from its header with 413")
    func bomb() async throws {
        let bytes = { (value: UInt32) in (0 ..< 4).map { UInt8(truncatingIfNeeded: value >> (24 - $0 * 8)) } }
        let png = Data([0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A, 0, 0, 0, 13] + Array("IHDR".utf8) + bytes(60_000) + bytes(60_000) + [8, 2, 0, 0, 0, 0, 0, 0, 0])
        try await TestServer.run { server in
            let response = try await Self.ask(server, "data:image/png;base64," + png.base64EncodedString())
            #expect(try response.status == 413 && response.json()["error"]["code"].string == "image_too_large", "\(response.text)")
        }
    }

    // A failure means that a request reads files beside the folder that it may read.
    @Test("files of one folder are read, and nothing outside it")
    func folder() async throws {
        let parent = FileManager.default.temporaryDirectory.appendingPathComponent("adallava-media-\(UUID().uuidString)")
        let folder = parent.appendingPathComponent("media"), outside = parent.appendingPathComponent("outside")
        defer { try? FileManager.default.removeItem(at: parent) }
        for new in [folder.appendingPathComponent("inner"), outside] { try FileManager.default.createDirectory(at: new, withIntermediateDirectories: true) }
        let image = try Scenes.image(6)
        for file in [folder.appendingPathComponent("a b.png"), folder.appendingPathComponent("inner/b.png"), outside.appendingPathComponent("secret.png")] {
            try image.write(to: file)
        }
        let files = FileManager.default
        try files.createSymbolicLink(at: folder.appendingPathComponent("link.png"), withDestinationURL: outside.appendingPathComponent("secret.png"))
        try files.createSymbolicLink(at: folder.appendingPathComponent("linked"), withDestinationURL: outside)
        mkfifo(folder.appendingPathComponent("pipe.png").path, 0o600)
        try await TestServer.run({ $0.mediaFolder = folder }) { server in
            let expected = try await Scenes.asked("What is the word?", images: [6]) { $0.maxTokens = 4 }.text
            for url in ["file:///a%20b.png", "file:///inner/b.png", "file://localhost/inner/b.png", "file://\(folder.path)/inner/b.png"] {
                let response = try await Self.ask(server, url)
                #expect(try response.status == 200 && response.json()["choices"][0]["message"]["content"].string == expected, "\(url): \(response.text)")
            }
            for url in [
                "file:///../outside/secret.png", "file:///inner/../../outside/secret.png", "file:///%2e%2e/outside/secret.png", "file:///link.png",
                "file:///linked/secret.png", "file://\(outside.path)/secret.png", "file:///pipe.png", "file:///inner", "file:///", "file:///none.png",
                "file://example.org/inner/b.png", "file:///inner/b.png%00", "file:///etc/passwd", "file:///dev/zero",
            ] {
                let response = try await Self.ask(server, url)
                #expect(try response.status == 400 && response.json()["error"]["code"].string == "invalid_image_url", "\(url): \(response.text)")
            }
        }
    }

    @Test("limits of an image are checked against what it takes in the model")
    func limits() async throws {
        try await TestServer.run { server in
            let url = try Scenes.dataURL(6)
            #expect(try await Self.ask(server, url, ["max_image_tokens": 49, "max_pixels": 1 << 20, "detail": "high"]).status == 200)
            for more in [["max_image_tokens": 48], ["max_pixels": 100], ["max_pixels": 0], ["detail": "ultra"]] as [[String: Any]] {
                #expect(try await Self.ask(server, url, more).status == 400, "\(more)")
            }
        }
    }
}

/// Images that are fetched.
@Suite struct MediaFetcherTests {
    // A failure means that a request makes the server ask addresses that only it can reach.
    @Test("addresses that are not public are known as such")
    func addresses() throws {
        let closed = [
            "0.0.0.0", "10.1.2.3", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.168.1.1", "192.0.0.8", "192.0.2.1",
            "198.18.0.1", "198.51.100.7", "203.0.113.9", "100.64.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
            "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "fe80::1", "fec0::1", "fc00::1", "fd12::1", "ff02::1", "2001:db8::1", "2001::1", "100::1",
        ]
        for text in closed { #expect(try !#require(NetworkAddress(literal: text)).isPublic, "\(text)") }
        for text in ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"] {
            #expect(try #require(NetworkAddress(literal: text)).isPublic, "\(text)")
        }
        for text in ["", "localhost", "127.1", "0x7f000001", "2130706433", "1.2.3.4.5", ":::"] { #expect(NetworkAddress(literal: text) == nil, "\(text)") }
        #expect(!NetworkAddress.resolve("localhost").isEmpty && NetworkAddress.resolve("localhost").allSatisfy { !$0.isPublic })
    }

    @Test("only hosts that are named are asked, and none at an address that is not public")
    func hosts() async throws {
        let image = try Scenes.image(6)
        // Another server stands in for one that images come from: it serves its page as an image would be.
        try await TestServer.run { other in
            let here = "127.0.0.1:\(other.port)"
            let fetcher = MediaFetcher(hosts: [here, "localhost", "localhost:\(other.port)", "Example.org"])
            let page = try await fetcher.fetch("http://\(here)/page.css", maxBytes: 1 << 20)
            #expect(page == PackageResources.page_css && page.count < image.count * 100)
            func code(_ url: String, maxBytes: Int = 1 << 20) async -> String? {
                do {
                    _ = try await fetcher.fetch(url, maxBytes: maxBytes)
                    return nil
                } catch { return APIError(error).code }
            }
            for url in [
                // A name of this machine, though it is listed; other ports and hosts; what is no such address.
                "http://localhost:\(other.port)/page.css", "http://localhost/a.png", "http://127.0.0.1:1/a.png", "http://127.0.0.1/a.png", "http://[::1]:\(other.port)/page.css",
                "http://10.0.0.1/a.png", "http://169.254.169.254/latest/meta-data", "http://2130706433:\(other.port)/page.css", "ftp://\(here)/a", "file:///etc/passwd",
                "http://user:secret@\(here)/page.css", "http://\(here)@10.0.0.1/a", "http:///a", "http://", "http://\(here)/nothing",
            ] { #expect(await code(url) == "invalid_image_url", "\(url)") }
            #expect(await code("http://\(here)/page.css", maxBytes: 100) == "image_too_large")
        }
    }

    // A failure means that a host that may be asked can send the server where it may not go.
    @Test("redirects are checked like the first address")
    func redirects() async throws {
        let listener = try RedirectingServer()
        defer { listener.close() }
        let here = "127.0.0.1:\(listener.port)"
        let fetcher = MediaFetcher(hosts: [here])
        #expect(try await fetcher.fetch("http://\(here)/two", maxBytes: 1000) == Array("here".utf8))
        for path in ["inside", "name", "loop", "file"] {
            await #expect(performing: { try await fetcher.fetch("http://\(here)/\(path)", maxBytes: 1000) }, throws: { APIError($0).code == "invalid_image_url" })
        }
        #expect(listener.paths.values.filter { $0 == "/secret" }.isEmpty)
    }
}
