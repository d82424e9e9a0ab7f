import Foundation
import Testing

/// Images that cannot be used, wherever they come from.
@Suite struct BadImageTests {
    static let damaged: [(name: String, data: Data, words: [String])] = {
        let picture = (try? Data(contentsOf: URL(fileURLWithPath: Files.scene()))) ?? Data()
        return [
            ("empty.png", Data(), ["no data at all"]),
            ("cut.png", picture.prefix(picture.count / 2), ["cut off"]),
            ("zero.png", Files.png(width: 0, height: 0), ["0 x 0"]),
            ("huge.png", Files.png(width: 60_000, height: 60_000), ["60000 x 60000", "100000000 pixels"]),
            ("text.png", Data("This is no picture at all, whatever its name says.".utf8), ["JPEG, PNG, WebP, GIF or BMP"]),
        ]
    }()

    // A failure means that half a picture, or none, is answered about, or that a header alone makes the process take gigabytes.
    @Test("broken image files are refused", arguments: damaged.indices) func files(index: Int) throws {
        let item = Self.damaged[index]
        try withTemporaryFolder { folder in
            let image = folder.appendingPathComponent(item.name)
            try item.data.write(to: image)
            try expectFailure(["ask", image.path, "What?"], status: 65, saying: [item.name] + item.words)
            try expectFailure(["chat", "--image", image.path], status: 65, saying: [item.name] + item.words)
            let output = folder.appendingPathComponent("t.safetensors").path
            try expectFailure(
                ["trace", Files.fixture("ada-L").path, "--image", image.path, "--tokens", "1,-200", "--output", output], status: 65,
                saying: [item.name] + item.words)
            #expect(!FileManager.default.fileExists(atPath: output))
        }
        try expectFailure(["ask", "-", "What?"], status: 65, saying: ["standard input"] + item.words, input: item.data)
        let url = "data:image/png;base64," + item.data.base64EncodedString()
        try expectFailure(["ask", url, "What?"], status: 65, saying: ["data: URL"] + item.words)
    }

    // A failure means that a wrong path, a folder or a web address is not told apart from a broken picture.
    @Test("wrong paths are told apart from broken images") func paths() throws {
        try expectFailure(["ask", "/nowhere.png", "What?"], status: 66, saying: ["/nowhere.png", "no such file", "a file: or a data: URL"])
        try expectFailure(["ask", NSTemporaryDirectory(), "What?"], status: 74, saying: ["it is a folder"])
        try expectFailure(["ask", "https://example.org/a.png", "What?"], status: 64, saying: ["not fetched from the network"])
        try expectFailure(["ask", "data:image/png;base64,%%%", "What?"], status: 64, saying: ["data: URL"])
        try expectFailure(["chat", "--image", "-"], status: 64, saying: ["standard input"])
    }

    // A failure means that a few small files take gigabytes or minutes before they are refused.
    @Test("A request with too many pixels, or too many images, is refused before anything is decoded") func requests() throws {
        try withTemporaryFolder { folder in
            let picture = folder.appendingPathComponent("header.png")
            try Files.png(width: 10_000, height: 10_000).write(to: picture)
            let eleven = [String](repeating: picture.path, count: 11)
            try expectFailure(["ask"] + eleven + ["Compare."], status: 65, saying: ["11 images", "1100000000 pixels"])
            try expectFailure(["chat"] + eleven.flatMap { ["--image", $0] }, status: 65, saying: ["11 images"])
            // The pictures have no pixels, so reading any would fail with another message.
            let small = folder.appendingPathComponent("small.png")
            try Files.png(width: 2, height: 2).write(to: small)
            try expectFailure(
                ["ask", "--model", Files.referenceModel.path] + [String](repeating: small.path, count: 100) + ["Compare."], status: 64,
                saying: ["positions", "context"])
            try expectFailure(["ask", "-", "-", "Compare."], status: 64, saying: ["standard input", "found it for 2"])
        }
    }

    // A failure means that an image for a model without a vision tower is left out silently.
    @Test("an image for a text model is refused") func modelWithoutVision() throws {
        try Files.withCopy(of: "ada-L") { model in
            try Files.edit(model.appendingPathComponent("config.json"), ["model_type": "llama", "architectures": ["LlamaForCausalLM"]])
            try FileManager.default.copyItem(
                at: Files.fixture("tokenizer/tok320/tokenizer.model"), to: model.appendingPathComponent("tokenizer.model"))
            try expectFailure(
                ["ask", Files.scene(), "What?", "--model", model.path, "--template", "plain"], status: 64, saying: ["no vision tower"])
        }
    }
}
