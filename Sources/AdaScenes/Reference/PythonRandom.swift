import Crypto
import Foundation

/// Python's `random.Random` seeded with a text: the Mersenne Twister (Matsumoto and Nishimura, 1998), and the draws that Python 3.9 to 3.14
/// make from it. The same seed gives the same draws as there.
struct PythonRandom {
    private static let size = 624
    private static let shift = 397
    private var state: [UInt32]
    private var position = PythonRandom.size

    /// `random.Random(text)`: the text and its SHA-512, read as one large number, are the key.
    init(_ text: String) {
        let bytes = Array(text.utf8) + Array(SHA512.hash(data: Data(text.utf8)))
        // From the lowest byte on, without leading zeros.
        let reversed = Array(bytes.drop { $0 == 0 }.reversed())
        let key = stride(from: 0, to: reversed.count, by: 4).map { start in
            reversed[start ..< min(start + 4, reversed.count)].enumerated().reduce(UInt32(0)) { $0 | UInt32($1.element) << (8 * UInt32($1.offset)) }
        }
        state = Self.initial(key.isEmpty ? [0] : key)
    }

    /// `init_by_array` of the authors' program.
    private static func initial(_ key: [UInt32]) -> [UInt32] {
        var state = [UInt32](repeating: 19_650_218, count: size)
        for index in 1 ..< size { state[index] = 1_812_433_253 &* (state[index - 1] ^ state[index - 1] >> 30) &+ UInt32(index) }
        var (i, j) = (1, 0)
        func mixed(_ factor: UInt32) -> UInt32 { state[i] ^ (state[i - 1] ^ state[i - 1] >> 30) &* factor }
        func advance() {
            i += 1
            if i == size { (state[0], i) = (state[size - 1], 1) }
        }
        for _ in 0 ..< max(size, key.count) {
            state[i] = mixed(1_664_525) &+ key[j] &+ UInt32(j)
            advance()
            j = (j + 1) % key.count
        }
        for _ in 0 ..< size - 1 {
            state[i] = mixed(1_566_083_941) &- UInt32(i)
            advance()
        }
        state[0] = 0x8000_0000
        return state
    }

    private mutating func next() -> UInt32 {
        if position == Self.size {
            for index in 0 ..< Self.size {
                let bits = state[index] & 0x8000_0000 | state[(index + 1) % Self.size] & 0x7FFF_FFFF
                state[index] = state[(index + Self.shift) % Self.size] ^ bits >> 1 ^ (bits & 1 == 0 ? 0 : 0x9908_B0DF)
            }
            position = 0
        }
        var value = state[position]
        position += 1
        value ^= value >> 11
        value ^= value << 7 & 0x9D2C_5680
        value ^= value << 15 & 0xEFC6_0000
        return value ^ value >> 18
    }

    /// `random()`: uniform in [0, 1).
    mutating func fraction() -> Double {
        let (high, low) = (next() >> 5, next() >> 6)
        return (Double(high) * 67_108_864 + Double(low)) / 9_007_199_254_740_992
    }

    /// `_randbelow(count)`, for counts of 1 to 2³² - 1.
    mutating func below(_ count: Int) -> Int {
        let bits = Int.bitWidth - count.leadingZeroBitCount
        while true {
            let value = Int(next() >> UInt32(32 - bits))
            if value < count { return value }
        }
    }

    /// `randint`: both ends included.
    mutating func integer(_ range: ClosedRange<Int>) -> Int { range.lowerBound + below(range.count) }

    /// `choice`, of a list that is not empty.
    mutating func choice<Element>(_ elements: [Element]) -> Element { elements[below(elements.count)] }

    /// `shuffle`.
    mutating func shuffle<Element>(_ elements: inout [Element]) {
        for index in stride(from: elements.count - 1, to: 0, by: -1) { elements.swapAt(index, below(index + 1)) }
    }

    /// `sample`, of a list of at most 21 elements; more are drawn in another way there.
    mutating func sample<Element>(_ elements: [Element], count: Int) -> [Element] {
        var pool = elements
        return (0 ..< min(count, elements.count)).map { drawn in
            let index = below(pool.count - drawn)
            defer { pool[index] = pool[pool.count - drawn - 1] }
            return pool[index]
        }
    }
}
