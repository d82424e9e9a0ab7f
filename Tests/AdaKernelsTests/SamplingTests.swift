import AdaKernels
import Foundation
import Testing

@Suite struct SamplingTests {
    private static func maxima(_ table: ak_kernels, _ values: [Float]) -> [Float] {
        var maxima = [Float](repeating: 77, count: (values.count + Int(AK_LOGIT_GROUP) - 1) / Int(AK_LOGIT_GROUP) + 1)
        table.group_maxima(&maxima, values, Int32(values.count))
        #expect(maxima.last == 77)
        return maxima.dropLast()
    }

    // A failure means that top-k sampling leaves likely tokens out, or keeps tokens that are not there.
    @Test("top-k selection keeps the largest logits", arguments: KernelSet.available)
    func selection(set: KernelSet) {
        var numbers = TestNumbers(seed: 8)
        for n in [1, 2, 7, 8, 9, 63, 64, 65, 127, 130, 200, 1000] {
            var values = numbers.floats(n)
            for index in values.indices where index % 11 == 3 { values[index] = [.nan, -.infinity, .infinity][index % 3] }
            let maxima = Self.maxima(set.table, values)
            let groups = stride(from: 0, to: n, by: Int(AK_LOGIT_GROUP)).map { values[$0 ..< min($0 + Int(AK_LOGIT_GROUP), n)] }
            #expect(maxima == groups.map { $0.filter { !$0.isNaN }.max() ?? -.infinity })
            for threshold in [-.infinity, -0.5, values.first { !$0.isNaN } ?? 0, 0.7, .infinity] as [Float] {
                var indices = [Int32](repeating: -1, count: n + 1)
                let count = set.table.at_least(&indices, values, Int32(n), maxima, threshold)
                #expect(indices.prefix(Int(count)).map(Int.init) == values.indices.filter { values[$0] >= threshold })
                #expect(indices.last == -1)
            }
        }
    }

    // A failure means that probabilities do not add up to one, so that some tokens are drawn too often.
    @Test("softmax sums are one", arguments: KernelSet.available)
    func sums(set: KernelSet) {
        var numbers = TestNumbers(seed: 9)
        for n in [1, 5, 8, 13, 64, 999] {
            for scale in [0.01, 1, 30] as [Float] {
                var values = numbers.floats(n).map { $0 * 20 }
                let best = values.max() ?? 0
                let expected = values.reduce(0) { $0 + exp(Double(($1 - best) * scale)) }
                #expect(abs(set.table.exp_sum(values, Int32(n), best, scale) - expected) <= 3e-7 * expected)
                // What is not a number is not there, and what is infinitely unlikely adds nothing.
                values += [.nan, -.infinity]
                #expect(abs(set.table.exp_sum(values, Int32(n + 2), best, scale) - expected) <= 3e-7 * expected)
            }
        }
    }

    // A failure means that a draw looks at fewer tokens than top-k keeps, or at far more.
    @Test("the kth largest logit bounds the candidates") func kthLargest() {
        var numbers = TestNumbers(seed: 10)
        for n in 1 ... 60 {
            for repeats in [1, 5] {   // with equal values too
                let values = numbers.floats(n).map { repeats == 1 ? $0 : ($0 * 3).rounded() } + [-.infinity]
                let sorted = values.sorted(by: >)
                for k in [1, 2, n / 2, n, n + 1] where k >= 1 && k <= n + 1 {
                    for start in [values, sorted, sorted.reversed()] {
                        var shuffled = start
                        #expect(ak_kth_largest(&shuffled, Int32(n + 1), Int32(k)) == sorted[k - 1])
                        #expect(shuffled.sorted(by: >) == sorted)
                    }
                }
            }
        }
    }
}
