#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Asks whether the system has memory. Swift's arrays end the process if it has none, so sizes that an image decides are checked first.
enum MemoryProbe {
    /// Maps address space only: pages that are not written take no memory. (Compilers may remove a `malloc` that is freed at once.)
    static func isAvailable(_ bytes: Int) -> Bool {
        guard bytes > 0 else { return true }
        guard let memory = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0), memory != MAP_FAILED else { return false }
        munmap(memory, bytes)
        return true
    }

    /// Bytes that decoding and turning a picture hold at the same time, and its rows at the width of a vision tower.
    static func bytes(width: Int, height: Int) -> Int { width * height * 7 + height * 3072 }
}
