/// The pieces of a vocabulary, stored end to end, with a hash table from bytes to id.
///
/// Looking up `n` bytes takes O(n); nothing is allocated. The hash is seeded anew in every process, so a vocabulary cannot be made
/// to collide on purpose.
struct PieceTable: Sendable {
    private let storage: [UInt8]
    private let starts: [Int]
    private let slots: [Int32]
    private let seed: UInt64
    /// Bytes of the longest piece that can be found.
    let longest: Int

    /// - Parameters:
    ///   - pieces: by id.
    ///   - isIndexed: which ids can be found by their bytes. Empty pieces never are.
    ///   - findsLast: of equal pieces the last is found, else the first.
    init(_ pieces: [[UInt8]], isIndexed: (Int) -> Bool = { _ in true }, findsLast: Bool = false) {
        var storage: [UInt8] = []
        storage.reserveCapacity(pieces.reduce(0) { $0 + $1.count })
        var starts: [Int] = [0]
        starts.reserveCapacity(pieces.count + 1)
        for piece in pieces {
            storage.append(contentsOf: piece)
            starts.append(storage.count)
        }
        var capacity = 16
        while capacity < pieces.count * 2 { capacity *= 2 }
        var slots = [Int32](repeating: -1, count: capacity)
        let seed = UInt64.random(in: .min ... .max)
        var longest = 0
        for id in pieces.indices where !pieces[id].isEmpty && isIndexed(id) {
            longest = max(longest, pieces[id].count)
            var slot = pieces[id].withUnsafeBufferPointer { Int(truncatingIfNeeded: Self.hash($0, seed)) } & (capacity - 1)
            var found = false
            while slots[slot] >= 0 {
                if pieces[Int(slots[slot])] == pieces[id] {
                    if findsLast { slots[slot] = Int32(truncatingIfNeeded: id) }
                    found = true
                    break
                }
                slot = (slot + 1) & (capacity - 1)
            }
            if !found { slots[slot] = Int32(truncatingIfNeeded: id) }
        }
        (self.storage, self.starts, self.slots, self.seed, self.longest) = (storage, starts, slots, seed, longest)
    }

    var count: Int { starts.count - 1 }

    /// The ids of pieces that the vocabulary has under another id too: they can be decoded, but no text becomes them.
    var doubled: [Int] { (0 ..< count).filter { id in ![id, -1].contains(find(self[id])) } }

    /// The bytes of piece `id`; empty if there is none.
    subscript(id: Int) -> ArraySlice<UInt8> {
        id >= 0 && id < count ? storage[starts[id]..<starts[id + 1]] : []
    }

    /// The id of the piece with exactly these bytes, or -1.
    func find(_ key: UnsafeBufferPointer<UInt8>) -> Int {
        guard !key.isEmpty, key.count <= longest else { return -1 }
        let mask = slots.count - 1
        var slot = Int(truncatingIfNeeded: Self.hash(key, seed)) & mask
        while true {
            let id = Int(slots[slot])
            if id < 0 { return -1 }
            let (start, end) = (starts[id], starts[id + 1])
            if end - start == key.count {
                var offset = 0
                while offset < key.count && storage[start + offset] == key[offset] { offset += 1 }
                if offset == key.count { return id }
            }
            slot = (slot + 1) & mask
        }
    }

    func find(_ key: some Collection<UInt8>) -> Int {
        key.withContiguousStorageIfAvailable { find($0) } ?? Array(key).withUnsafeBufferPointer { find($0) }
    }

    /// A multiply-and-fold hash over words of eight bytes.
    private static func hash(_ bytes: UnsafeBufferPointer<UInt8>, _ seed: UInt64) -> UInt64 {
        var state = seed ^ UInt64(truncatingIfNeeded: bytes.count)
        var index = 0
        while index < bytes.count {
            var word: UInt64 = 0
            let end = min(index + 8, bytes.count)
            while index < end {
                word = word << 8 | UInt64(bytes[index])
                index += 1
            }
            state = fold(state ^ word, 0x9E37_79B9_7F4A_7C15)
        }
        return fold(state ^ seed, 0xD6E8_FEB8_6659_FD93)
    }
}

/// Both halves of a 128-bit product, mixed.
@inline(__always)
func fold(_ left: UInt64, _ right: UInt64) -> UInt64 {
    let product = left.multipliedFullWidth(by: right)
    return product.high ^ product.low
}

/// From a pair of token ids to the rank of their merge and the id it makes.
struct MergeTable: Sendable {
    private var keys: [UInt64]
    private var ranks: [Int32]
    private var results: [Int32]
    private let seed: UInt64
    private(set) var count = 0
    private static let free = UInt64.max

    init(capacity: Int) {
        var slots = 16
        while slots < capacity * 2 { slots *= 2 }
        keys = [UInt64](repeating: Self.free, count: slots)
        ranks = [Int32](repeating: 0, count: slots)
        results = [Int32](repeating: 0, count: slots)
        seed = UInt64.random(in: .min ... .max)
    }

    /// Adds a merge unless the pair already has one (the first, lower rank stays). At most `capacity` pairs are added.
    mutating func insert(left: Int32, right: Int32, rank: Int32, result: Int32) {
        let key = Self.key(left, right)
        var slot = index(key)
        while keys[slot] != Self.free {
            if keys[slot] == key { return }
            slot = (slot + 1) & (keys.count - 1)
        }
        (keys[slot], ranks[slot], results[slot]) = (key, rank, result)
        count += 1
    }

    func find(_ left: Int32, _ right: Int32) -> (rank: Int32, result: Int32)? {
        let key = Self.key(left, right)
        var slot = index(key)
        while keys[slot] != Self.free {
            if keys[slot] == key { return (ranks[slot], results[slot]) }
            slot = (slot + 1) & (keys.count - 1)
        }
        return nil
    }

    /// Every merge, lowest rank first.
    var ordered: [(left: Int, right: Int, result: Int)] {
        keys.indices.filter { keys[$0] != Self.free }.sorted { ranks[$0] < ranks[$1] }.map {
            (Int(keys[$0] >> 32), Int(keys[$0] & 0xFFFF_FFFF), Int(results[$0]))
        }
    }

    private func index(_ key: UInt64) -> Int {
        Int(truncatingIfNeeded: fold(key ^ seed, 0x9E37_79B9_7F4A_7C15)) & (keys.count - 1)
    }

    private static func key(_ left: Int32, _ right: Int32) -> UInt64 {
        UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
    }
}
