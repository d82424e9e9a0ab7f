import Foundation

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#endif

/// Keeps other runs out of a folder as long as it lives, and no longer than the process does. The lock is the folder's own: no file is left.
package final class FolderLock: Sendable {
    private let descriptor: Int32

    /// - Returns: `nil` if another run holds the lock.
    /// - Throws: ``SystemError``
    package init?(_ folder: URL) throws {
        descriptor = Files.open(folder.path, O_RDONLY | O_DIRECTORY)
        guard descriptor >= 0 else { throw SystemError() }
        if flock(descriptor, LOCK_EX | LOCK_NB) == 0 { return }
        // Some file systems have no locks; that is no reason not to train.
        if errno == EWOULDBLOCK { return nil }
    }

    deinit {
        if descriptor >= 0 { close(descriptor) }
    }
}
