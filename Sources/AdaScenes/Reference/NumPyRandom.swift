import Foundation

/// NumPy's `default_rng` seeded with whole numbers: PCG64 (O'Neill, 2014), and normal draws by the Ziggurat method (Marsaglia and Tsang,
/// 2000) with NumPy's layers. The same seed gives the same numbers as there, but for the last bit of some.
struct NumPyRandom {
    private var state: UInt128
    private let increment: UInt128

    /// `numpy.random.default_rng(seed)`.
    init(_ seed: [UInt64]) {
        let words = SeedSequence(seed.flatMap { $0 >> 32 == 0 ? [UInt32($0)] : [UInt32(truncatingIfNeeded: $0), UInt32($0 >> 32)] }).words(8)
        let values = (0 ..< 4).map { UInt64(words[2 * $0]) | UInt64(words[2 * $0 + 1]) << 32 }
        func joined(_ high: UInt64, _ low: UInt64) -> UInt128 { UInt128(high) << 64 | UInt128(low) }
        increment = joined(values[2], values[3]) << 1 | 1
        state = 0
        step()
        state &+= joined(values[0], values[1])
        step()
    }

    private mutating func step() {
        let multiplier = UInt128(2_549_297_995_355_413_924) << 64 | UInt128(4_865_540_595_714_422_341)
        state = state &* multiplier &+ increment
    }

    private mutating func next() -> UInt64 {
        step()
        let (folded, turn) = (UInt64(truncatingIfNeeded: state >> 64) ^ UInt64(truncatingIfNeeded: state), UInt64(truncatingIfNeeded: state >> 122))
        return folded >> turn | folded << ((64 - turn) & 63)
    }

    /// Uniform in [0, 1).
    private mutating func fraction() -> Double { Double(next() >> 11) / 9_007_199_254_740_992 }

    /// `standard_normal()`.
    mutating func normal() -> Double {
        let layers = NormalLayers.shared
        while true {
            let bits = next()
            let layer = Int(bits & 0xFF)
            let isNegative = bits >> 8 & 1 == 1
            let magnitude = bits >> 9 & 0x000F_FFFF_FFFF_FFFF
            let x = Double(magnitude) * layers.width[layer]
            if magnitude < layers.inside[layer] { return isNegative ? -x : x }
            if layer == 0 {
                while true {
                    let tail = -log1p(-fraction()) / NormalLayers.start
                    let y = -log1p(-fraction())
                    if y + y > tail * tail { return magnitude >> 8 & 1 == 1 ? -(NormalLayers.start + tail) : NormalLayers.start + tail }
                }
            }
            let height = (layers.height[layer - 1] - layers.height[layer]) * fraction() + layers.height[layer]
            if height < exp(-0.5 * x * x) { return isNegative ? -x : x }
        }
    }
}

/// The 256 layers of equal area under the normal curve.
private struct NormalLayers {
    static let shared = NormalLayers()
    /// Where the tail starts.
    static let start = 3.6541528853610088
    private static let area = 0.00492867323399

    /// Factor of a drawn number of 52 bits.
    let width: [Double]
    /// A drawn number below this is certainly under the curve.
    let inside: [UInt64]
    /// The curve at the layer's right end.
    let height: [Double]

    private init() {
        let scale = 4_503_599_627_370_496.0
        var (width, inside, height) = ([Double](repeating: 0, count: 256), [UInt64](repeating: 0, count: 256), [Double](repeating: 1, count: 256))
        let base = Self.area / exp(-0.5 * Self.start * Self.start)
        inside[0] = UInt64(Self.start / base * scale)
        width[0] = base / scale
        var x = Self.start
        (width[255], height[255]) = (x / scale, exp(-0.5 * x * x))
        for layer in stride(from: 254, to: 0, by: -1) {
            let narrower = (-2 * log(Self.area / x + exp(-0.5 * x * x))).squareRoot()
            inside[layer + 1] = UInt64(narrower / x * scale)
            x = narrower
            (width[layer], height[layer]) = (x / scale, exp(-0.5 * x * x))
        }
        (self.width, self.inside, self.height) = (width, inside, height)
    }
}

/// `numpy.random.SeedSequence`, which spreads a seed over a pool of four words (after O'Neill's `seed_seq_fe`).
private struct SeedSequence {
    private var pool: [UInt32]

    init(_ entropy: [UInt32]) {
        var constant: UInt32 = 0x43B0_D7E5
        func hashed(_ value: UInt32) -> UInt32 {
            var value = value ^ constant
            constant = constant &* 0x931E_8875
            value = value &* constant
            return value ^ value >> 16
        }
        func mixed(_ first: UInt32, _ second: UInt32) -> UInt32 {
            let value = 0xCA01_F9DD &* first &- 0x4973_F715 &* second
            return value ^ value >> 16
        }
        var pool = (0 ..< 4).map { hashed($0 < entropy.count ? entropy[$0] : 0) }
        for source in 0 ..< 4 {
            for target in 0 ..< 4 where target != source { pool[target] = mixed(pool[target], hashed(pool[source])) }
        }
        for word in entropy.dropFirst(4) {
            for target in 0 ..< 4 { pool[target] = mixed(pool[target], hashed(word)) }
        }
        self.pool = pool
    }

    /// `generate_state(count)`.
    func words(_ count: Int) -> [UInt32] {
        var constant: UInt32 = 0x8B51_F9DD
        return (0 ..< count).map { index in
            var value = pool[index % 4] ^ constant
            constant = constant &* 0x58F3_8DED
            value = value &* constant
            return value ^ value >> 16
        }
    }
}
