import AdaLLaVA

/// The random numbers of one scene: the same seed and index give the same numbers everywhere.
struct SceneRandom: RandomNumberGenerator {
    private var generator: SplitMix64

    init(seed: UInt64, index: Int) {
        // Mixed one after the other, so that neighbouring seeds and indices have unrelated numbers.
        var first = SplitMix64(seed: seed)
        var second = SplitMix64(seed: first.next() ^ UInt64(truncatingIfNeeded: index))
        generator = SplitMix64(seed: second.next())
    }

    mutating func next() -> UInt64 { generator.next() }

    /// Uniform in [0, 1).
    mutating func fraction() -> Double { generator.unit() }

    mutating func chance(_ probability: Double) -> Bool { fraction() < probability }

    mutating func between(_ low: Double, _ high: Double) -> Double { low + (high - low) * fraction() }

    /// Uniform in `0 ..< count`; 0 for a count below 1.
    mutating func below(_ count: Int) -> Int { count < 1 ? 0 : Int(fraction() * Double(count)) }

    /// Uniform in `range`, both ends included.
    mutating func integer(_ range: ClosedRange<Int>) -> Int { range.lowerBound + below(range.count) }

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
