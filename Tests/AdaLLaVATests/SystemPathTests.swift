import Foundation
import Testing

@testable import AdaLLaVA

/// Names of files that are no UTF-8, and files that are not complete.
@Suite struct SystemPathTests {
    private func withFolder(_ body: (URL) throws -> Void) throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("paths-\(UUID().uuidString)")
        try Files.createFolder(folder)
        defer { try? Files.remove(folder) }
        try body(folder)
    }

    // A mismatch means that a name given to the command names another file, or none.
    @Test("the bytes of a path survive the conversion to text", arguments: [
        Array("plain.png".utf8), Array("é\u{1F600}".utf8), [0x63, 0x61, 0x66, 0xE9, 0x2E], [0xFF], [0xE3, 0x81], [0x61, 0xC3, 0x28, 0xED, 0xA0, 0x80],
        Array("\u{10FFE9}".utf8), Array("\u{10FF7F}".utf8), [0xF4, 0x8F, 0xBF, 0xA9, 0xE9],
    ] as [[UInt8]]) func bytesComeBack(_ name: [UInt8]) {
        let found = SystemPath.withBytes(SystemPath.text(name)) { Array(UnsafeRawBufferPointer(start: $0, count: strlen($0))) }
        #expect(found == name)
        let url = URL(fileURLWithPath: "/tmp").appendingPathComponent(SystemPath.text(name))
        #expect(SystemPath.withBytes(url.path) { Array(UnsafeRawBufferPointer(start: $0, count: strlen($0))) } == Array("/tmp/".utf8) + name)
    }

    // A mismatch means that a question keeps private characters that stand for bytes.
    @Test("text of a question has no characters that stand for bytes") func proseIsUnicode() {
        #expect(SystemPath.prose(SystemPath.text([0x68, 0xE9, 0x69])) == "h\u{FFFD}i")
        #expect(SystemPath.prose("né") == "né")
    }

    // A failure means that files with such names cannot be written, listed, copied, moved or removed.
    @Test("files with such names") func filesWithSuchNames() throws {
        try withFolder { place in
            let folder = place.appendingPathComponent(SystemPath.text([0x64, 0xE9]))
            let file = folder.appendingPathComponent(SystemPath.text([0xE8, 0x66]))
            try Files.createFolder(folder.appendingPathComponent("a/b"))
            try Files.createFolder(folder)
            try Files.write(Data("x".utf8), to: file)
            #expect(try Files.names(in: folder) == ["a", file.lastPathComponent])
            #expect(try Files.data(file) == Data("x".utf8) && Files.data(file, mapped: true) == Data("x".utf8))
            let copy = place.appendingPathComponent("copy")
            try Files.copy(folder, to: copy)
            #expect(try Files.names(in: copy) == Files.names(in: folder))
            try Files.move(copy, to: place.appendingPathComponent("moved"))
            #expect(try MappedFile(contentsOf: place.appendingPathComponent("moved").appendingPathComponent(file.lastPathComponent)).bytes.count == 1)
            try Files.remove(folder)
            #expect(FileKind(folder) == .nothing)
            #expect(throws: SystemError.self) { try Files.names(in: folder) }
        }
    }

    // A failure means that a file which is written through a symbolic link replaces the link.
    @Test("writing through a symbolic link keeps the link") func linksAreFollowed() throws {
        try withFolder { place in
            let (target, link) = (place.appendingPathComponent("target"), place.appendingPathComponent("link"))
            try FileManager.default.createSymbolicLink(atPath: link.path, withDestinationPath: "target")
            try Files.write(Data("x".utf8), to: link)
            #expect(try Files.data(target) == Data("x".utf8))
            #expect(Files.status(link, followsLinks: false).map { $0.st_mode & S_IFMT == S_IFLNK } == true)
            #expect(Files.resolved(link) == Files.resolved(target))
        }
    }

    // A failure means that what a killed process left stays for ever, or that what another one writes now is taken from it.
    @Test("abandoned files are removed") func abandonedFilesAreRemoved() throws {
        try withFolder { place in
            let output = place.appendingPathComponent("out.gguf")
            let (abandoned, folder, held) = (".out.gguf.1-2.partial", ".out.1-3.partial", ".out.gguf.1-4.partial")
            let mine = [".hidden.partial", "1-2.partial", "out.partial"]
            for name in [abandoned, held] + mine { try Data("x".utf8).write(to: place.appendingPathComponent(name)) }
            try Files.createFolder(place.appendingPathComponent(folder + "/inside"))
            let descriptor = Files.open(place.appendingPathComponent(held).path, O_RDONLY)
            defer { close(descriptor) }
            #expect(flock(descriptor, LOCK_EX) == 0)
            let file = try AtomicFile(replacing: output)
            try file.write([1, 2])
            #expect(try Files.names(in: place).count == 5)
            try file.commit()
            #expect(try Files.names(in: place) == ([held, "out.gguf"] + mine).sorted())
        }
    }

    // A failure means that a folder which could not be filled takes the place of a good one, or that parts of it stay.
    @Test("a folder is replaced whole or not at all") func aFolderIsReplacedWholeOrNotAtAll() throws {
        struct Stop: Error {}
        try withFolder { place in
            let output = place.appendingPathComponent("out")
            try PartialFiles.writeFolder(output) { try Files.write(Data("1".utf8), to: $0.appendingPathComponent("a")) }
            #expect(throws: Stop.self) {
                try PartialFiles.writeFolder(output) {
                    try Files.write(Data("2".utf8), to: $0.appendingPathComponent("a"))
                    throw Stop()
                }
            }
            #expect(try Files.data(output.appendingPathComponent("a")) == Data("1".utf8) && Files.names(in: place) == ["out"])
            try PartialFiles.writeFolder(output) { try Files.write(Data("3".utf8), to: $0.appendingPathComponent("b")) }
            #expect(try Files.names(in: output) == ["b"] && Files.names(in: place) == ["out"])
        }
    }

    // A failure means that two runs write into one folder, or that a folder stays locked once its run has ended.
    @Test("a folder is locked once") func aFolderIsLockedOnce() throws {
        try withFolder { place in
            var lock = try FolderLock(place)
            #expect(lock != nil)
            #expect(try FolderLock(place) == nil)
            lock = nil
            #expect(try FolderLock(place) != nil)
            #expect(throws: SystemError.self) { try FolderLock(place.appendingPathComponent("none")) }
        }
    }
}
