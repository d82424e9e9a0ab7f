import Foundation
import Testing

@testable import adallava

/// What a line of the chat is taken for.
@Suite struct ChatInputTests {
    @Test("words are a shell's", arguments: [
        ("a b", ["a", "b"]), ("  a\tb  ", ["a", "b"]), (#"a\ b"#, ["a b"]), ("'a b' c", ["a b", "c"]), (#""a \"b\" \x""#, [#"a "b" \x"#]),
        (#"it\'s"#, ["it's"]), ("'it'\\''s'", ["it's"]), ("''", [""]), ("'open end", ["open end"]), ("end\\", ["end\\"]), ("", []),
    ] as [(String, [String])])
    func words(line: String, words: [String]) {
        #expect(ShellWords(line).words.map(\.text) == words)
    }

    @Test("what completion writes is read back as the same name", arguments: ["my photo.png", "it's \"100%\" (1) $x `y`.png", "a\\b;c&d|e<f>g*h?i[j]{k}#l!.png"])
    func quoting(name: String) {
        #expect(ShellWords(ShellWords.quoted(name, inside: nil)).words.map(\.text) == [name])
        for quote in ["'", "\""] as [Character] {
            #expect(ShellWords("\(quote)\(ShellWords.quoted(name, inside: quote))\(quote)").words.map(\.text) == [name], "\(quote)")
        }
    }

    @Test("Tab completes commands, and paths after /image and /save only")
    func completion() throws {
        #expect(ChatCompletion(before: "/re").insertion == "try ")
        #expect(ChatCompletion(before: "/ima").insertion == "ge")
        #expect(ChatCompletion(before: "/image").choices == ["/image", "/images"])
        #expect(ChatCompletion(before: "Is it /re").insertion.isEmpty && ChatCompletion(before: "").choices.isEmpty)
        try withTemporaryFolder { folder in
            for name in ["my photo.png", "my poem.txt", ".hidden"] { try Data().write(to: folder.appendingPathComponent(name)) }
            try FileManager.default.createDirectory(at: folder.appendingPathComponent("other folder"), withIntermediateDirectories: false)
            func insertion(_ line: String) -> String { ChatCompletion(before: line.replacing("DIR", with: folder.path)).insertion }
            #expect(insertion("/image DIR/m") == "y\\ p")
            #expect(insertion("/image DIR/my\\ ph") == "oto.png ")
            #expect(insertion("/image 'DIR/my ph") == "oto.png' ")
            #expect(insertion("/image \"DIR/my po") == "em.txt\" ")
            #expect(insertion("/save DIR/o") == "ther\\ folder/")
            #expect(insertion("/image DIR/.") == "hidden ")
            #expect(insertion("/image DIR/x").isEmpty && insertion("/budget DIR/m").isEmpty)
            #expect(ChatCompletion(before: "/image \(folder.path)/").choices == ["my photo.png", "my poem.txt", "other folder/"])
        }
    }

    @Test("a path is what a file is called, before it is a shell's words")
    func paths() throws {
        try withTemporaryFolder { folder in
            func path(_ name: String) -> String { folder.appendingPathComponent(name).path }
            for name in ["a b.png", "a\\ c.png", "'d'.png", "e.png"] { try Data().write(to: folder.appendingPathComponent(name)) }
            #expect(ChatPath.paths(path("a b.png")) == [path("a b.png")])
            #expect(ChatPath.paths(path("a\\ b.png")) == [path("a b.png")])
            #expect(ChatPath.paths(path("a\\ c.png")) == [path("a\\ c.png")])
            #expect(ChatPath.paths(path("'d'.png")) == [path("'d'.png")])
            #expect(ChatPath.paths(path("e.png") + " '" + path("a b.png") + "'") == [path("e.png"), path("a b.png")])
            // What is missing is named whole.
            #expect(ChatPath.paths(path("no such file.png")) == [path("no such file.png")])
            #expect(ChatPath.paths("file:///it's%20here.png") == ["file:///it's%20here.png"])
            #expect(ChatPath.paths("file:///a.png file:///b.png") == ["file:///a.png", "file:///b.png"])
            #expect(ChatPath.paths("data:image/png;base64, AAEC") == ["data:image/png;base64, AAEC"])
        }
    }

    @Test("the history is where the environment says", arguments: [
        (["HOME": "/h"], "/h/.local/state/adallava/history"), (["HOME": "/h", "XDG_STATE_HOME": "/s"], "/s/adallava/history"),
        (["HOME": "/h", "XDG_STATE_HOME": "relative"], "/h/.local/state/adallava/history"), (["HOME": "/h", "ADALLAVA_HISTORY": "/f"], "/f"),
        (["HOME": "/h", "ADALLAVA_HISTORY": ""], nil), ([:], nil),
    ] as [([String: String], String?)])
    func historyFile(environment: [String: String], path: String?) {
        #expect(LineHistory.file(in: environment)?.path == path)
    }

    @Test("a history keeps every byte, holds a thousand messages, and refuses a file of another kind")
    func history() throws {
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("deep/er/history")
            let messages = ["plain", "two\nlines", "a\\n b\\", "\u{1F600} é"].map { Array($0.utf8) } + [[0xFF, 0xE9]]
            let history = try #require(try LineHistory.open(file))
            for message in messages { history.append(message) }
            history.append(messages[4])
            #expect(try LineHistory.open(file)?.earlier == messages)
            let another = try #require(try LineHistory.open(file))
            for number in 0 ..< 1200 { (number % 2 == 0 ? history : another).append(Array("\(number)".utf8)) }
            history.append([UInt8](repeating: 65, count: 1 << 20))
            let kept = try #require(try LineHistory.open(file)).earlier
            #expect(kept == (200 ..< 1200).map { Array("\($0)".utf8) })
            #expect(try LineHistory.open(file)?.earlier == kept)
            try Data([1, 0, 2]).write(to: file)
            #expect(throws: LineHistory.Unusable.self) { try LineHistory.open(file) }
            #expect(try Data(contentsOf: file) == Data([1, 0, 2]))
            #expect(try LineHistory.open(URL(fileURLWithPath: "/dev/null")) == nil)
        }
    }
}
