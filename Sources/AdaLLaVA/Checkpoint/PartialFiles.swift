import Foundation
import Synchronization

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#endif

/// Files and folders that are not complete yet. They are next to their destination under a temporary name and locked by the process that writes
/// them. If that process ends, the lock is released, and the next process that writes there removes them.
package enum PartialFiles {
    /// Files and folders that this process is writing.
    private static let open = Mutex<[String: Int32]>([:])
    private static let commit = NSLock()
    /// Nothing is begun any more.
    private static let isClosed = Atomic(false)
    /// Folders that were searched for leftovers.
    private static let searched = Mutex<Set<String>>([])

    /// Makes an empty file or folder to be filled.
    /// - Returns: where it is, and a descriptor of it that holds the lock; pass both to ``settle(_:)`` once it has another name.
    /// - Throws: ``SystemError``
    static func make(for destination: URL, isFolder: Bool) throws -> (url: URL, descriptor: Int32) {
        let folder = destination.deletingLastPathComponent()
        if searched.withLock({ $0.insert(folder.path).inserted }) { removeAbandoned(in: folder) }
        while true {
            if isClosed.load(ordering: .sequentiallyConsistent) { throw SystemError(ECANCELED) }
            let url = folder.appendingPathComponent(".\(destination.lastPathComponent).\(getpid())-\(UInt32.random(in: 0 ... .max)).partial")
            if isFolder { guard SystemPath.withBytes(url.path, { mkdir($0, 0o777) }) == 0 else { throw SystemError() } }
            let descriptor = Files.open(url.path, isFolder ? O_RDONLY : O_WRONLY | O_CREAT | O_EXCL)
            guard descriptor >= 0 else { throw SystemError() }
            // A file system without locks has no abandoned files found either.
            _ = flock(descriptor, LOCK_EX)
            // Between its making and its locking another process may have taken it for an abandoned one.
            guard Files.exists(url) else {
                close(descriptor)
                continue
            }
            open.withLock { $0[url.path] = descriptor }
            return (url, descriptor)
        }
    }

    /// Forgets a file that has its final name now, or is to stay.
    static func settle(_ url: URL) {
        let descriptor = open.withLock { $0.removeValue(forKey: url.path) }
        if let descriptor { close(descriptor) }
    }

    /// Removes an unfinished file.
    static func abandon(_ url: URL) {
        try? Files.remove(url)
        settle(url)
    }

    /// Lets `body` give complete files their names. Nobody who ends the process does so in between.
    static func committing<Result>(_ body: () throws -> Result) rethrows -> Result {
        commit.lock()
        defer { commit.unlock() }
        return try body()
    }

    /// Removes all unfinished files of this process, for exits that run no `deinit`.
    package static func abandonAll() {
        isClosed.store(true, ordering: .sequentiallyConsistent)
        committing {
            // Who is writing meanwhile may have added a file to a folder that is being removed.
            for path in open.withLock({ Array($0.keys).sorted() }) {
                let url = URL(fileURLWithPath: path)
                for _ in 0 ..< 8 where Files.exists(url) { try? Files.remove(url) }
            }
        }
    }

    /// Lets `body` fill a new folder, which then replaces `output`; if `body` throws, `output` stays unchanged.
    /// - Throws: ``CheckpointError/unwritable(file:reason:)``, and errors of `body`.
    package static func writeFolder(_ output: URL, _ body: (URL) throws -> Void) throws {
        let output = Files.resolved(output)
        func attempt<Result>(_ action: () throws -> Result) throws -> Result {
            do { return try action() } catch { throw CheckpointError.unwritable(file: output.path, reason: error.localizedDescription) }
        }
        let partial = try attempt { try make(for: output, isFolder: true).url }
        var old: URL?
        defer {
            abandon(partial)
            if let old { try? Files.remove(old) }
        }
        try body(partial)
        try attempt {
            try committing {
                if Files.exists(output) {
                    let aside = partial.appendingPathExtension("old")
                    try Files.move(output, to: aside)
                    old = aside
                }
                do { try Files.move(partial, to: output) } catch {
                    if let aside = old { try Files.move(aside, to: output) }
                    old = nil
                    throw error
                }
            }
        }
        settle(partial)
        Files.synchronize(folder: output.deletingLastPathComponent())
    }

    /// Removes unfinished files of killed processes.
    private static func removeAbandoned(in folder: URL) {
        for name in (try? Files.names(in: folder)) ?? [] where name.wholeMatch(of: /\..+\.[0-9]+-[0-9]+\.partial/) != nil {
            let url = folder.appendingPathComponent(name)
            let descriptor = Files.open(url.path, O_RDONLY | O_NONBLOCK)
            guard descriptor >= 0 else { continue }
            if flock(descriptor, LOCK_EX | LOCK_NB) == 0 { try? Files.remove(url) }
            close(descriptor)
        }
    }
}
