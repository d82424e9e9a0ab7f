import AdaKernels

/// The cache lines of small objects that are read once per token. Between two tokens the weights push them out of every cache, and each one costs a
/// decode the latency of memory while all threads wait; so they are prefetched together, a layer ahead.
struct CacheLines {
    private var lines: [UnsafeRawPointer?] = []
    private static let lineBytes = 64
    /// What is taken of an object: no more than this is read of any.
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

    func prefetch() { lines.withUnsafeBufferPointer { ak_prefetch($0.baseAddress, Int32($0.count)) } }

    /// Asks for the first two lines of an object.
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
