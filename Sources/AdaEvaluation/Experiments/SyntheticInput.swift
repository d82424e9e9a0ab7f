import AdaLLaVA

/// Synthetic prompts and pictures: the cost of a request does not depend on its content. The same numbers give the same input everywhere.
enum SyntheticInput {
    /// Token ids spread over the vocabulary.
    static func tokens(_ count: Int, vocabulary: Int, seed: UInt64 = 1) -> [Int] {
        var random = SplitMix64(seed: seed)
        return (0 ..< count).map { _ in min(Int(random.unit() * Double(vocabulary)), max(vocabulary - 1, 0)) }
    }

    /// A square of colour gradients with some noise.
    static func image(side: Int = 336) -> RGBImage? {
        var random = SplitMix64(seed: 2)
        var pixels = [UInt8]()
        pixels.reserveCapacity(side * side * 3)
        for y in 0 ..< side {
            for x in 0 ..< side {
                let noise = Int(random.unit() * 32)
                for value in [x * 223 / side, y * 223 / side, (x + y) * 111 / side] { pixels.append(UInt8(value + noise)) }
            }
        }
        return RGBImage(width: side, height: side, pixels: pixels)
    }
}
