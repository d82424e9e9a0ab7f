import AdaKernels
import Foundation
import Testing

@testable import AdaLLaVA

@Suite struct SamplerTests {
    /// A distribution and what the options must make of it.
    struct Case: CustomTestStringConvertible {
        let name: String
        /// Probabilities at temperature 1.
        let start: [Double]
        let change: @Sendable (inout SamplingOptions) -> Void
        let expected: [Double]
        var prompt: [Int] = []
        var testDescription: String { name }
    }

    private static func normalized(_ weights: [Double]) -> [Double] { weights.map { $0 / weights.reduce(0, +) } }

    static let cases: [Case] = [
        Case(name: "temperature 1", start: [0.5, 0.3, 0.2], change: { $0.temperature = 1 }, expected: [0.5, 0.3, 0.2]),
        Case(
            name: "temperature 2", start: [0.64, 0.32, 0.04], change: { $0.temperature = 2 },
            expected: normalized([0.64, 0.32, 0.04].map { $0.squareRoot() })),
        Case(
            name: "top-k", start: [0.1, 0.4, 0.3, 0.2],
            change: {
                $0.temperature = 1
                $0.topK = 2
            }, expected: [0, 4.0 / 7, 3.0 / 7, 0]),
        Case(
            name: "top-p", start: [0.1, 0.4, 0.3, 0.2],
            change: {
                $0.temperature = 1
                $0.topP = 0.65
            }, expected: [0, 4.0 / 7, 3.0 / 7, 0]),
        Case(
            name: "min-p", start: [0.1, 0.4, 0.3, 0.2],
            change: {
                $0.temperature = 1
                $0.minP = 0.45
            }, expected: [0, 4.0 / 9, 3.0 / 9, 2.0 / 9]),
        // At temperature 1 the first two tokens would reach 0.75; at 2 it takes three.
        Case(
            name: "temperature before top-p", start: [0.5, 0.3, 0.2],
            change: {
                $0.temperature = 2
                $0.topP = 0.75
            }, expected: normalized([0.5, 0.3, 0.2].map { $0.squareRoot() })),
        // Of two tokens the first alone has 4/7; of all four it takes two to reach 0.55.
        Case(
            name: "top-k before top-p", start: [0.4, 0.3, 0.2, 0.1],
            change: {
                $0.temperature = 1
                $0.topK = 2
                $0.topP = 0.55
            }, expected: [1, 0, 0, 0]),
        // At temperature 1 the last token is a fifth as likely as the first; at 2 it is 0.45 times as likely.
        Case(
            name: "temperature before min-p", start: [0.5, 0.4, 0.1],
            change: {
                $0.temperature = 2
                $0.minP = 0.4
            }, expected: normalized([0.5, 0.4, 0.1].map { $0.squareRoot() })),
        // Logits are logarithms of probabilities, so negative: a penalty of 2 squares the probability of what occurred.
        Case(
            name: "repetition penalty before top-k", start: [0.4, 0.35, 0.25],
            change: {
                $0.temperature = 1
                $0.topK = 2
                $0.repetitionPenalty = 2
            }, expected: normalized([0, 0.35, 0.25]), prompt: [0, -200, 999]),
    ]

    // A failure means that sampling draws from another distribution than its options describe, or applies them in another order.
    @Test("draws from the distribution", arguments: cases) func drawsFromTheDistribution(item: Case) throws {
        let kernels = try KernelSet().table
        var options = SamplingOptions()
        item.change(&options)
        var counts = [Int](repeating: 0, count: item.start.count)
        let draws = 20_000
        for seed in 0 ..< draws {
            options.seed = UInt64(seed)
            // A new sampler for each draw, so that the penalty sees the prompt alone.
            var sampler = Sampler(options, prompt: item.prompt)
            counts[sampler.next(Tensor(item.start.map { Float(log($0)) }), kernels)] += 1
        }
        for (count, probability) in zip(counts, item.expected) {
            // Five standard deviations; fixed seeds, so this passes always or never.
            let deviation = (Double(draws) * probability * (1 - probability)).squareRoot()
            #expect(abs(Double(count) - Double(draws) * probability) <= 5 * deviation, "\(counts) for \(item.expected)")
        }
    }

    // A failure means that one sampler's successive draws are not independent.
    @Test("successive draws are independent") func successiveDraws() throws {
        let kernels = try KernelSet().table
        var options = SamplingOptions()
        (options.temperature, options.seed) = (1, 3)
        var sampler = Sampler(options, prompt: [])
        var pairs = [Int](repeating: 0, count: 4)
        var last = 0
        for _ in 0 ..< 20_000 {
            let token = sampler.next(Tensor([0, 0]), kernels)
            pairs[last * 2 + token] += 1
            last = token
        }
        for count in pairs { #expect(abs(count - 5000) < 5 * 62) }
    }

    // A failure means that greedy answers depend on the kernels, or that a broken logit ends up chosen.
    @Test("greedy sampling takes the largest finite logit", arguments: kernelSets) func greedy(name: String) throws {
        let kernels = try KernelSet(named: name).table
        func choice(_ logits: [Float]) -> Int {
            var sampler = Sampler(SamplingOptions(), prompt: [])
            return sampler.next(Tensor(logits), kernels)
        }
        for count in [3, 8, 17, 64, 100, 320] {
            for position in [0, 1, count / 2, count - 1] {
                var logits = [Float](repeating: -2, count: count)
                logits[position] = 5
                #expect(choice(logits) == position)
                // The first of equal ones.
                logits[count - 1] = 5
                #expect(choice(logits) == position)
                if position > 0 {
                    logits[0] = .nan
                    #expect(choice(logits) == position)
                }
            }
            #expect(choice(Array(repeating: -1, count: count)) == 0)
            #expect((0 ..< count).contains(choice(Array(repeating: .nan, count: count))))
            #expect((0 ..< count).contains(choice(Array(repeating: -.infinity, count: count))))
        }
    }

    // A failure means that logits out of range crash sampling or let it choose what is not a number.
    @Test("broken logits are never chosen") func brokenLogits() throws {
        let kernels = try KernelSet().table
        for temperature in [1e-300, 1e-30, 0.5, 1, 1e30] {
            for seed in 0 ..< 20 {
                var options = SamplingOptions()
                (options.temperature, options.seed, options.topP, options.minP) = (temperature, UInt64(seed), 0.9, 0.01)
                func choice(_ logits: [Float]) -> Int {
                    var sampler = Sampler(options, prompt: [])
                    return sampler.next(Tensor(logits), kernels)
                }
                #expect(choice([.nan, 1, .nan, 2]) % 2 == 1)
                #expect(choice([1, .infinity, 2]) == 1)
                #expect([1, 2].contains(choice([-.infinity, 1, 2])))
                #expect((0 ..< 2).contains(choice([.nan, .nan])))
                #expect((0 ..< 2).contains(choice([-.infinity, -.infinity])))
            }
        }
    }

    // A failure means that a temperature near 0 is not nearly greedy: it overflows to the first token instead.
    @Test("a tiny temperature is nearly greedy", arguments: [1e-3, 1e-20, 1e-40, 1e-300]) func tinyTemperature(temperature: Double) throws {
        var options = SamplingOptions()
        (options.temperature, options.seed) = (temperature, 1)
        var sampler = Sampler(options, prompt: [])
        #expect(sampler.next(Tensor([1, 2, 3, 2.5]), try KernelSet().table) == 2)
    }

    // A failure means that the penalty makes tokens which occurred more likely, or touches ones that did not.
    @Test("the repetition penalty lowers tokens that occurred") func repetitionPenalty() throws {
        let kernels = try KernelSet().table
        var options = SamplingOptions()
        options.repetitionPenalty = 2
        var sampler = Sampler(options, prompt: [0, -200])
        // 0 is halved from 3 to 1.5; its negative neighbour would win only if it were doubled upwards.
        #expect(sampler.next(Tensor([3, 2, -1]), kernels) == 1)
        // Now 0 and 1 have occurred: -1 and -1.2 become -2 and -2.4.
        #expect(sampler.next(Tensor([-1, -1.2, -1.9]), kernels) == 2)
        // A token it chose itself counts too.
        #expect(sampler.next(Tensor([-1, -1.2, -0.9]), kernels) == 2)
        #expect(sampler.next(Tensor([-1, -1.2, -1.1]), kernels) == 0)
    }

    // A failure means that a seed does not give the same tokens again.
    @Test("a seed reproduces the tokens") func seeds() throws {
        let kernels = try KernelSet().table
        func tokens(_ seed: UInt64?) -> [Int] {
            var options = SamplingOptions()
            (options.temperature, options.seed) = (1, seed)
            var sampler = Sampler(options, prompt: [])
            return (0 ..< 40).map { _ in sampler.next(Tensor([Float](repeating: 0, count: 100)), kernels) }
        }
        #expect(tokens(5) == tokens(5))
        #expect(tokens(5) != tokens(6))
        #expect(tokens(nil) != tokens(nil))
    }

    // A failure means that large top-k, which takes another path, keeps other tokens than small.
    @Test("large and small top-k keep the same kind of tokens") func largeTopK() throws {
        let kernels = try KernelSet().table
        var random = SeededGenerator(seed: 2)
        let logits = (0 ..< 1000).map { _ in Float(Int.random(in: 0 ..< 400, using: &random)) / 100 }
        let order = logits.indices.sorted { logits[$0] != logits[$1] ? logits[$0] > logits[$1] : $0 < $1 }
        for count in [1, 2, 200, 256, 257, 600, 2000] {
            var options = SamplingOptions()
            // So hot that all that is kept is equally likely.
            (options.temperature, options.topK, options.seed) = (1e6, count, 9)
            let allowed = Set(order.prefix(count))
            var sampler = Sampler(options, prompt: [])
            var seen: Set<Int> = []
            for _ in 0 ..< 4000 { seen.insert(sampler.next(Tensor(logits), kernels)) }
            #expect(seen.isSubset(of: allowed))
            if count <= 200 { #expect(seen == allowed) }
        }
    }

    // A failure means that a draw that looks at few tokens gives others than one that sorts the whole vocabulary.
    @Test("as if all were sorted", arguments: kernelSets) func asIfAllWereSorted(name: String) throws {
        let kernels = try KernelSet(named: name).table
        var random = SeededGenerator(seed: 4)
        for (topK, topP, minP) in [(40, 0.9, 0), (3, 1, 0), (0, 0.95, 0), (0, 1, 0.02), (0, 0.5, 0.3), (0, 1, 0), (300, 0.999, 1e-4), (7000, 0.8, 0)] {
            for temperature in [0.3, 1, 50] {
                var options = SamplingOptions()
                (options.temperature, options.topK, options.topP, options.minP, options.seed) = (temperature, topK, topP, minP, 11)
                var sampler = Sampler(options, prompt: [])
                var units = SplitMix64(seed: 11)
                for _ in 0 ..< 4 {
                    // Ties, and values that are no numbers.
                    var logits = (0 ..< 5003).map { _ in Float(Int.random(in: -400 ..< 900, using: &random)) / 60 }
                    logits[17] = .nan
                    logits[4000] = -.infinity
                    var all = logits.enumerated().filter { !$1.isNaN }.sorted { $0.element != $1.element ? $0.element > $1.element : $0.offset < $1.offset }
                    if topK > 0 { all = Array(all.prefix(topK)) }
                    var weights = all.map { Double(Float(exp(Double($0.element - all[0].element) / temperature))) }
                    if topP < 1 {
                        let total = weights.reduce(0, +)
                        var (sum, count) = (0.0, 0)
                        while count < weights.count, sum < topP * total {
                            sum += weights[count]
                            count += 1
                        }
                        weights = Array(weights.prefix(count))
                    }
                    weights = weights.filter { $0 >= minP }
                    var target = units.unit() * weights.reduce(0, +)
                    let index = weights.firstIndex { weight in
                        target -= weight
                        return target < 0
                    }
                    #expect(sampler.next(Tensor(logits), kernels) == all[index ?? weights.count - 1].offset, "\(topK) \(topP) \(minP) \(temperature)")
                }
            }
        }
    }

    // A failure means that options which make no sense are computed with.
    @Test("options out of range are refused") func validation() throws {
        let wrong: [(String, (inout SamplingOptions) -> Void)] = [
            ("temperature", { $0.temperature = -0.1 }), ("temperature", { $0.temperature = .nan }), ("temperature", { $0.temperature = .infinity }),
            ("top-k", { $0.topK = -1 }), ("top-p", { $0.topP = 0 }), ("top-p", { $0.topP = 1.1 }), ("top-p", { $0.topP = .nan }),
            ("min-p", { $0.minP = -0.1 }), ("min-p", { $0.minP = 1.1 }), ("repetition-penalty", { $0.repetitionPenalty = 0 }), ("repetition-penalty", { $0.repetitionPenalty = 1e-40 }),
            ("repetition-penalty", { $0.repetitionPenalty = 1e300 }), ("repetition-penalty", { $0.repetitionPenalty = .infinity }),
        ]
        for (name, change) in wrong {
            var options = GenerationOptions()
            change(&options.sampling)
            #expect { try options.validate() } throws: { ($0 as? SamplingError)?.option == name }
        }
        var options = GenerationOptions()
        try options.validate()
        options.maxTokens = 0
        #expect { try options.validate() } throws: { ($0 as? SamplingError)?.category == .usage }
    }
}
