import AdaKernels
import Foundation
import Testing

@testable import AdaLLaVA
@testable import AdaProbes

@Suite struct OperationProbeTests {
    // A failure means that made-up weights are not what a model's look like: not finite, or of another size than was asked for.
    @Test("random weights have their deviation", arguments: RandomWeights.types) func randomWeightsHaveTheirDeviation(type: ElementType) throws {
        var random = SplitMix64(seed: 3)
        let count = 32 * 2048
        let size = try #require(type.bytes(for: count))
        var bytes: [UInt8] = []
        RandomWeights(type, deviation: 0.25, &random).read(size, &random) { bytes.append(contentsOf: $0) }
        #expect(bytes.count == size)
        let kernelType = try #require(type.kernelType)
        var values = [Float](repeating: 0, count: count)
        ak_dequantize(&values, kernelType, bytes, 0, Int64(count))
        #expect(values.allSatisfy { $0.isFinite })
        let mean = values.reduce(0, +) / Float(count)
        let deviation = (values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Float(count)).squareRoot()
        #expect(abs(mean) < 0.04 && abs(deviation - 0.25) < 0.04, "\(mean) \(deviation)")
    }

    // A failure means that rates are calculated from other operations or bytes than those that run.
    @Test("product counts what it reads", arguments: RandomWeights.types) func productCountsWhatItReads(type: ElementType) throws {
        let probes = try OperationProbes(threads: 1, streamedBytes: 1 << 20)
        let decode = try probes.product([96, 32], inputs: 64, type: type, tokens: 1)
        decode.run()
        #expect(decode.operations == 2 * 64 * 128)
        let rowBytes = try #require(type.bytes(for: 64))
        let stored = Double(rowBytes * 128)
        #expect(decode.bytes >= stored && decode.bytes <= 8 * stored)
        // More copies than are read before the same again, and no more than that takes.
        #expect(Double(decode.copies) * decode.bytes >= Double(1 << 20) && Double(decode.copies - 1) * decode.bytes < Double(1 << 20))
        let prefill = try probes.product([64, 64], inputs: 64, type: type, tokens: 40, isGated: true)
        prefill.run()
        #expect(prefill.copies == 1 && prefill.operations == 2 * 40 * 64 * 128)
    }

    // A failure means that attention is held against work that it does not do: causal queries see half of a prompt's keys.
    @Test("attention counts visible keys") func attentionCountsVisibleKeys() throws {
        let probes = try OperationProbes(threads: 2, streamedBytes: 1 << 20)
        let prefill = probes.attention(heads: 4, keyValueHeads: 2, headDim: 16, positions: 40, queries: 40)
        prefill.run()
        #expect(prefill.operations == Double(4 * 4 * 16 * (40 * 41 / 2)))
        let tower = probes.attention(heads: 2, keyValueHeads: 2, headDim: 16, positions: 40, queries: 40, isCausal: false, type: .f32)
        tower.run()
        #expect(tower.operations == Double(4 * 2 * 16 * 40 * 40))
        let decode = probes.attention(heads: 4, keyValueHeads: 2, headDim: 16, positions: 40, queries: 1)
        decode.run()
        #expect(decode.operations == Double(4 * 4 * 16 * 40) && decode.copies > 1)
    }

    // A failure means that an operation that is timed again and again in place computes numbers that no model has: subnormal ones take a hundred times as
    // long.
    @Test("repeated elementwise operations keep normal numbers", arguments: OperationProbes.Elementwise.allCases) func elementwiseStaysItself(operation: OperationProbes.Elementwise) throws {
        let probes = try OperationProbes(threads: 1, streamedBytes: 1 << 20)
        let operands = probes.elementwiseOperands(operation, tokens: 2, columns: 64)
        let before = operands.x.values
        let probe = probes.elementwise(operation, operands, headDim: 16)
        for _ in 0 ..< 3000 { probe.run() }
        for (old, new) in zip(before, operands.x.values) {
            #expect(new.isFinite && (new == 0 || abs(new) > 1e-6))
            if operation == .siluMul || operation == .geluQuick { #expect(abs(new - old) <= 0.02 * abs(old)) }
        }
        let (first, last) = (before.reduce(0) { $0 + $1 * $1 }, operands.x.values.reduce(0) { $0 + $1 * $1 })
        if operation == .rope { #expect(abs(last - first) < 0.01 * first) }
    }

    // A failure means that an operation that is measured by itself traps or was left out.
    @Test("every elementwise operation can be measured", arguments: OperationProbes.Elementwise.allCases) func elementwiseRuns(operation: OperationProbes.Elementwise) throws {
        let probes = try OperationProbes(threads: 2, streamedBytes: 1 << 20)
        for tokens in [1, 40] {
            let probe = probes.elementwise(operation, tokens: tokens, columns: 64, headDim: 16)
            probe.run()
            #expect(probe.bytes > 0 && probe.operations == 0)
        }
        probes.emptyRun().run()
    }
}
