/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), seeded for one scene: the same seed and index give the same numbers everywhere.
struct SceneRandom: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64, index: Int) {
        // Mixed one after the other, so that neighbouring seeds and indices share nothing.
        var generator = SceneRandom(state: seed)
        generator.state = generator.next() ^ UInt64(truncatingIfNeeded: index)
        state = generator.next()
    }

    private init(state: UInt64) { self.state = state }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed >> 31
    }

    /// Uniform in [0, 1). The standard library does not promise how it draws, so all draws are made here.
    mutating func fraction() -> Double { Double(next() >> 11) * 0x1p-53 }

    mutating func chance(_ probability: Double) -> Bool { fraction() < probability }

    mutating func between(_ low: Double, _ high: Double) -> Double { low + (high - low) * fraction() }

    /// Uniform in `0 ..< count`; 0 for a count below 1.
    mutating func below(_ count: Int) -> Int { count < 1 ? 0 : Int(fraction() * Double(count)) }

    mutating func pick<Element>(_ elements: [Element]) -> Element? {
        elements.isEmpty ? nil : elements[below(elements.count)]
    }

    /// One of `choices`, each with a probability in proportion to its weight.
    mutating func pick<Element>(weighted choices: [(element: Element, weight: Double)]) -> Element? {
        var left = fraction() * choices.reduce(0) { $0 + $1.weight }
        for choice in choices {
            left -= choice.weight
            if left < 0 { return choice.element }
        }
        return choices.last?.element
    }

    mutating func shuffled<Element>(_ elements: [Element]) -> [Element] {
        var rest = elements
        var order: [Element] = []
        while !rest.isEmpty { order.append(rest.remove(at: below(rest.count))) }
        return order
    }

    /// Close to normal, mean 0 and deviation 1, within ±3.5: the sum of four uniform numbers, from one draw.
    mutating func bell() -> Double {
        let bits = next()
        let sum = (0..<4).reduce(0.0) { $0 + Double(bits >> UInt64($1 * 16) & 0xFFFF) }
        return (sum / 65_536 - 2) * 1.732_050_807_568_877_2
    }
}
