/// A small deterministic random generator (Steele, Lea and Flood, OOPSLA 2014): the same seed gives the same numbers on every platform.
package struct SplitMix64: RandomNumberGenerator, Sendable {
    private var state: UInt64

    package init(seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// Uniform in [0, 1). The standard library does not promise how it draws, so a reproducible draw is made here.
    package mutating func unit() -> Double { Double(next() >> 11) * 0x1p-53 }

    /// A number in `0 ..< count`, uniform but for a bias below `count / 2^64`; `count` is positive.
    package mutating func index(below count: Int) -> Int { Int(next() % UInt64(max(1, count))) }
}
