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
