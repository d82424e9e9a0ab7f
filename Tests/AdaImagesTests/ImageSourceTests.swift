import AdaLLaVA
import Foundation
import Testing

@testable import AdaImages

@Suite struct ImageSourceTests {
    private func scratch(_ bytes: [UInt8]) throws -> String {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("ada-images-\(UUID().uuidString)").path
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        return path
    }

    @Test("arguments are told apart") func argumentsAreToldApart() throws {
        // A failure means that the command line takes a file for a URL or standard input for a file.
        #expect(try ImageSource(argument: "photo.jpg") == .file("photo.jpg"))
        #expect(try ImageSource(argument: "-") == .standardInput)
        #expect(try ImageSource(argument: "./-") == .file("./-"))
        #expect(try ImageSource(argument: "database.png") == .file("database.png"))
        #expect(try ImageSource(argument: "data") == .file("data"))
        #expect(try ImageSource(argument: "a:b.png") == .file("a:b.png"))
        #expect(try ImageSource(argument: "file:b.png") == .file("file:b.png"))
    }

    @Test("file: URLs name files of this machine", arguments: [
        ("file:///a/my%20photo.png", "/a/my photo.png"), ("file://localhost/a.png", "/a.png"), ("FILE:/a%25b.png", "/a%b.png"),
        ("file:///caf%C3%A9/50%25?#.png", "/café/50%?#.png"), ("file:///a/caf%E9.png", "/a/caf\u{10FFE9}.png"),
    ])
    func fileURLs(url: String, path: String) throws {
        #expect(try ImageSource(argument: url) == .file(path))
    }

    @Test("data URLs are decoded", arguments: [
        ("data:image/png;base64,AAEC/w==", [0, 1, 2, 255]), ("DATA:;BASE64,AAEC_w", [0, 1, 2, 255]),
        ("data:image/png;charset=x; base64 ,AA\n EC%2Fw%3D%3D", [0, 1, 2, 255]), ("data:,a%00%ffB", [97, 0, 255, 66]),
        ("data:image/png;base64,", []),
    ] as [(String, [UInt8])])
    func dataURLsAreDecoded(url: String, expected: [UInt8]) throws {
        // A failure means that images pasted from a browser or sent by an API client cannot be used.
        let source = try ImageSource(argument: url)
        #expect(source == .data(expected))
        #expect(try source.read() == expected)
    }

    @Test("unusable arguments are refused",
        arguments: ["data:image/png;base64", "data:;base64,A", "data:;base64,A*==", "data:,%4", "data:,%zz", "", "https://example.com/a.png", "file://elsewhere/a.png", "file:///a%2", "file://", "file:///a%00b"])
    func unusableArgumentsAreRefused(argument: String) {
        // A failure means that a mistyped argument is reported as a missing file, or decodes to something else.
        #expect {
            try ImageSource(argument: argument)
        } throws: {
            ($0 as? ImageError)?.category == .usage
        }
    }

    @Test("whole picture from data URL") func wholePictureFromDataURL() throws {
        // A failure means that a data: URL does not end as the same picture as its file.
        let file = try ImageSamples.bytes("png-rgb.png")
        let source = try ImageSource(argument: "data:image/jpeg;base64," + Data(file).base64EncodedString())
        #expect(try RGBImage(source) == ImageDecoder.decode(file))
    }

    @Test("what cannot be read says why") func whatCannotBeReadSaysWhy() throws {
        // A failure means a wrong exit code, or a message that does not name the file and the reason.
        let missing = "/nonexistent/photo.jpg"
        #expect(throws: ImageError.missing(name: missing)) { try RGBImage(contentsOf: missing) }
        #expect(ImageError.missing(name: missing).category == .missingInput)
        #expect {
            try RGBImage(contentsOf: FileManager.default.temporaryDirectory.path)
        } throws: {
            "\($0)".contains("folder") && ($0 as? ImageError)?.category == .inputOutput
        }
        let empty = try scratch([])
        defer { try? FileManager.default.removeItem(atPath: empty) }
        #expect(throws: ImageError.empty(name: empty)) { try RGBImage(contentsOf: empty) }
    }

    @Test("reading an endless input ends") func endlessInputEnds() {
        // A hang or a crash means that reading has no bound: a device or a pipe fills the memory.
        #expect {
            try RGBImage(contentsOf: "/dev/zero")
        } throws: {
            if case .unknownFormat? = $0 as? ImageError { true } else { false }
        }
    }

    /// A file of gigabytes that takes no room on the disk.
    private func sparse(_ beginning: [UInt8], bytes: UInt64) throws -> String {
        let path = try scratch(beginning)
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        try handle.truncate(atOffset: bytes)
        try handle.close()
        return path
    }

    @Test("Of a large file little is read before its first bytes are looked at") func firstBytesDecide() throws {
        // A failure means that a model that is named as a picture is read whole before it is refused.
        let model = try sparse(Array("GGUF".utf8), bytes: 600 << 20)
        let picture = try sparse(try ImageSamples.bytes("png-rgb.png"), bytes: 600 << 20)
        let huge = try sparse(Array("GIF89a".utf8) + [0x60, 0xEA, 0x60, 0xEA, 0, 0, 0, 0x2C, 0, 0, 0, 0, 0x60, 0xEA, 0x60, 0xEA, 0], bytes: 600 << 20)
        defer { for path in [model, picture, huge] { try? FileManager.default.removeItem(atPath: path) } }
        // Each is beyond the limit of bytes too.
        #expect {
            try RGBImage(contentsOf: model)
        } throws: {
            "\($0)".contains("GGUF model")
        }
        #expect(throws: ImageError.tooManyBytes(name: picture, limit: ImageLimits.standard.maxFileBytes)) { try RGBImage(contentsOf: picture) }
        #expect(throws: ImageError.tooLarge(name: huge, format: .gif, width: 60_000, height: 60_000, limits: .standard)) {
            try RGBImage(contentsOf: huge)
        }
    }

    @Test("unknown formats are named", arguments: [
        ("%PDF-1.7 …", "PDF"), ("<html><body>", "HTML"), ("\u{0}\u{0}\u{0}\u{1C}ftypheic....", "HEIC"), ("GGUF....", "GGUF"), ("plain words", "plain wo"),
        ("B", "B"),
    ])
    func unknownFormatsAreNamed(content: String, expected: String) {
        // A failure means that someone who passes a PDF is not told that it is one.
        #expect {
            try ImageDecoder.decode(Array(content.utf8), name: "x")
        } throws: {
            let text = "\($0)"
            return text.contains(expected) && text.contains("WebP") && ($0 as? ImageError)?.category == .badData
        }
    }
}
