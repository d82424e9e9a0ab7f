#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// Whether the system gives memory: Swift's arrays end the process where it does not, so what an image's size decides is asked for first.
enum MemoryProbe {
    /// Asks for address space alone: pages that are not written take no memory. (A `malloc` that is freed at once is one that compilers leave out.)
    static func isAvailable(_ bytes: Int) -> Bool {
        guard bytes > 0 else { return true }
        guard let memory = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0), memory != MAP_FAILED else { return false }
        munmap(memory, bytes)
        return true
    }

    /// What decoding and turning a picture holds at the same time, and its rows in the width of a vision tower.
    static func bytes(width: Int, height: Int) -> Int { width * height * 7 + height * 3072 }
}
