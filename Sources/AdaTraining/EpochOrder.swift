import AdaLLaVA

/// The order in which samples are trained on in one pass, and their split into steps.
package struct EpochOrder: Sendable, Equatable {
    /// Sample numbers, each once.
    package let numbers: [Int]

    /// A random order.
    package init(count: Int, seed: UInt64, epoch: Int) {
        var generator = EpochOrder.generator(seed, epoch)
        var numbers = Array(0 ..< count)
        numbers.shuffle(using: &generator)
        self.numbers = numbers
    }

    /// LLaVA's `group_by_modality_length`: steps hold samples of like lengths, with images or without.
    /// - Parameter stepSize: samples of a step, of all processes.
    package init(lengths: [(words: Int, hasImage: Bool)], stepSize: Int, seed: UInt64, epoch: Int) {
        var generator = EpochOrder.generator(seed, epoch)
        var steps: [[Int]] = []
        var rest: [Int] = []
        for hasImage in [true, false] {
            var numbers = lengths.indices.filter { lengths[$0].hasImage == hasImage }
            numbers.shuffle(using: &generator)
            // Sorted within windows of many steps, so that similar lengths are batched and each epoch batches them differently.
            let stretch = stepSize * 50
            for start in stride(from: 0, to: numbers.count, by: stretch) {
                let sorted = numbers[start ..< min(start + stretch, numbers.count)].sorted {
                    (lengths[$0].words, $0) > (lengths[$1].words, $1)
                }
                for first in stride(from: 0, to: sorted.count, by: stepSize) {
                    let step = Array(sorted[first ..< min(first + stepSize, sorted.count)])
                    if step.count == stepSize { steps.append(step) } else { rest += step }
                }
            }
        }
        steps.shuffle(using: &generator)
        numbers = steps.flatMap { $0 } + rest
    }

    private static func generator(_ seed: UInt64, _ epoch: Int) -> SplitMix64 {
        SplitMix64(seed: seed &+ UInt64(epoch) &* 0x9E37_79B9_7F4A_7C15)
    }

    /// The samples of one process in one step of the pass.
    /// - Parameters:
    ///   - stepSize: samples of a step, of all processes.
    ///   - rank: which of `worldSize` processes.
    func samples(step: Int, stepSize: Int, rank: Int, worldSize: Int) -> [Int] {
        let first = step * stepSize
        let share = stepSize / max(1, worldSize)
        let start = min(first + rank * share, numbers.count)
        return Array(numbers[start ..< min(start + share, numbers.count)])
    }
}
