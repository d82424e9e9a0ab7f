import AdaKernels

/// The cache lines of small objects that are read once per token. Between two tokens the weights evict them from every cache, and each miss costs decode
/// the latency of memory while all threads wait, so they are prefetched together, a layer ahead.
struct CacheLines {
    fileprivate var lines: [UnsafeRawPointer?] = []
    private static let lineBytes = 64
    /// Maximum bytes prefetched of one object.
    private static let objectBytes = 256

    /// - Parameter object: it must outlive this list.
    mutating func add(_ object: AnyObject) { add(Unmanaged.passUnretained(object).toOpaque(), bytes: CacheLines.objectBytes) }

    mutating func add(_ memory: UnsafeRawPointer, bytes: Int) {
        let first = Int(bitPattern: memory) / CacheLines.lineBytes, last = (Int(bitPattern: memory) + bytes - 1) / CacheLines.lineBytes
        for line in first ... max(first, last) {
            let address = UnsafeRawPointer(bitPattern: line * CacheLines.lineBytes)
            if !lines.contains(address) { lines.append(address) }
        }
    }

    /// Adds the first two lines of an object.
    static func prefetch(_ object: AnyObject) {
        let address = UnsafeRawPointer(Unmanaged.passUnretained(object).toOpaque())
        prefetch(address)
        prefetch(address + lineBytes)
    }

    static func prefetch(_ address: UnsafeRawPointer) {
        var line: UnsafeRawPointer? = address
        ak_prefetch(&line, 1)
    }
}

/// The lines of several layers in one list, so that prefetching them causes no cache miss itself.
struct CacheLineTable {
    private var lines: [UnsafeRawPointer?] = []
    private var ends: [Int] = []

    mutating func append(_ layer: CacheLines?) {
        lines += layer?.lines ?? []
        ends.append(lines.count)
    }

    /// Prefetches a layer's lines, if there is such a layer.
    func prefetch(_ layer: Int) {
        guard layer < ends.count else { return }
        let start = layer > 0 ? ends[layer - 1] : 0
        lines.withUnsafeBufferPointer { lines in
            if let base = lines.baseAddress { ak_prefetch(base + start, Int32(ends[layer] - start)) }
        }
    }
}
