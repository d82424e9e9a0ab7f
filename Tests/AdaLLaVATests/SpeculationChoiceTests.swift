import Testing

@testable import AdaLLaVA

/// Prompt lookup, and the number of tokens that are drafted.
@Suite struct SpeculationChoiceTests {
    // A failure means that repeated text is not found, or that what is drafted is not what followed it.
    @Test("lookup finds what followed the newest tokens") func lookup() {
        func find(_ context: [Int32], _ count: Int = 3) -> [Int]? { PromptLookup.find(context, count: count)?.tokens }
        #expect(find([1, 2, 3, 4, 5, 9, 2, 3]) == [4, 5, 9])
        // The longer match wins, then the newer.
        #expect(find([1, 2, 3, 7, 5, 2, 3, 8, 1, 2, 3]) == [7, 5, 2])
        #expect(find([2, 3, 7, 7, 2, 3, 8, 8, 6, 2, 3]) == [8, 8, 6])
        // It runs into itself.
        #expect(find([4, 4, 4], 5) == [4, 4, 4, 4, 4])
        #expect(find([1, 2, 1, 2], 5) == [1, 2, 1, 2, 1])
        // One token alone, rows of images, and nothing at all.
        #expect(find([5, 1, 6, 1]) == nil && find([1, 2, -1, 3, 1, 2]) == nil && find([-1, -1, -1]) == nil)
        #expect(find([1, 2, 3, -1, 4, 1, 2]) == [3])
        #expect(find([]) == nil && find([1]) == nil && find([1, 2, 1, 2], 0) == nil)
        #expect(PromptLookup.find([1, 2, 3, 4, 5, 1, 2, 3, 4], count: 1)?.matched == 4)
    }

    private static let kind = SpeculationCosts.Kind(sequences: 1, units: 6, isFloor: true)

    /// Steps of a machine on which one without drafts takes 100, and each draft `cost` more.
    /// - Returns: numbers of drafts, and the time for each token beside that without drafts.
    private func run(_ costs: inout SpeculationCosts, cost: Double, acceptance: Double, steps: Int, sequences: Int = 1) -> (drafts: [Int], ratio: Double) {
        var random = SplitMix64(seed: 2), drafts: [Int] = [], time = 0.0, tokens = 0.0
        let kind = SpeculationCosts.Kind(sequences: sequences, units: 6, isFloor: true)
        for _ in 0 ..< steps {
            let candidate = SpeculationCosts.Candidate(most: 8, acceptance: costs.rate(.floor))
            let count = costs.choose(kind, Array(repeating: candidate, count: sequences), share: 0.3, others: 0)
            drafts.append(count)
            let taken = 100 + cost * Double(count * sequences)
            time += taken
            costs.add(kind, drafts: count * sequences, nanoseconds: taken, share: 0.3)
            for _ in 0 ..< sequences {
                var right = 0
                while right < count, random.unit() < acceptance { right += 1 }
                tokens += Double(right + 1)
                if count > 0 { costs.add(.floor, accepted: right, isRejected: right < count) }
            }
        }
        return (drafts, time / tokens / 100)
    }

    // A failure means that speculation that loses stays on, or that one that wins stays off.
    @Test("drafts are made where they pay") func choice() {
        var costs = SpeculationCosts()
        let good = run(&costs, cost: 10, acceptance: 0.95, steps: 500)
        #expect(good.ratio < 0.4 && good.drafts.suffix(50).max() ?? 0 >= 6)
        // Another text, of which hardly a draft is right.
        _ = run(&costs, cost: 10, acceptance: 0, steps: 100)
        let bad = run(&costs, cost: 10, acceptance: 0, steps: 2000)
        #expect(bad.ratio < 1.02 && bad.drafts.contains { $0 > 0 }, "\(bad.ratio)")
        // It recovers.
        let again = run(&costs, cost: 10, acceptance: 0.95, steps: 4000)
        #expect(again.drafts.suffix(50).max() ?? 0 >= 6)

        // A draft costs as much as a step, as where multiplications bound several sequences.
        var bound = SpeculationCosts()
        let several = run(&bound, cost: 100, acceptance: 0.7, steps: 3000, sequences: 4)
        #expect(several.drafts.suffix(2000).count { $0 > 0 } < 40 && several.ratio < 4)
        var cheap = SpeculationCosts()
        #expect(run(&cheap, cost: 5, acceptance: 0.5, steps: 500).ratio < 0.75)
    }

    // A failure means that one slow step turns drafts off for good, or that nothing bounds what is remembered.
    @Test("a hiccup and many kinds of steps change nothing for good") func robustness() {
        var costs = SpeculationCosts()
        _ = run(&costs, cost: 10, acceptance: 0.9, steps: 200)
        costs.add(Self.kind, drafts: 4, nanoseconds: 1e6, share: 0.3)
        #expect(run(&costs, cost: 10, acceptance: 0.9, steps: 400).drafts.suffix(50).max() ?? 0 >= 4)
        for units in 0 ..< 1000 {
            let kind = SpeculationCosts.Kind(sequences: 1, units: units, isFloor: true)
            costs.add(kind, drafts: 0, nanoseconds: 1, share: 0.3)
            _ = costs.choose(kind, [SpeculationCosts.Candidate(most: 4, acceptance: 1)], share: 0.3, others: 0)
        }
        #expect(costs.choose(Self.kind, [], share: 0.3, others: 1) == 0)
    }

    // A failure means that an option that nobody can mean is taken.
    @Test("the number of drafts is checked") func options() throws {
        var options = GenerationOptions()
        for count in [0, -1, Speculation.mostTokens + 1] {
            options.speculation = .tokens(count)
            #expect(throws: SamplingError.self) { try options.validate() }
        }
        for speculation in [Speculation.off, .auto, .tokens(1), .tokens(Speculation.mostTokens)] {
            options.speculation = speculation
            try options.validate()
        }
    }
}
