import Foundation

/// Measured over predicted time of each phase: 1 on a machine as idle as when it was measured.
package struct PhaseLoads: Sendable, Equatable {
    package var encode = 1.0, prefill = 1.0, decode = 1.0

    package init(encode: Double = 1, prefill: Double = 1, decode: Double = 1) { (self.encode, self.prefill, self.decode) = (encode, prefill, decode) }
}

/// How much slower the machine is than when it was measured, from the newest layers and tokens.
///
/// A phase's load is a slow factor of its own times a fast one that all phases share: another program, or a lower clock, slows phases bound by arithmetic
/// and phases bound by memory differently, but the next layer of any phase shows its start.
///
/// Both are ratios of sums, each sample weighted by its predicted time and forgotten exponentially. The mean of ratios would depend on the length of
/// samples, because on a shared core some samples run through and others wait for a time slice.
package struct LoadFactor: Sendable, Equatable {
    package enum Phase: Int, CaseIterable, Sendable { case encode, prefill, decode }

    /// Measured and predicted nanoseconds, the older the less.
    private struct Sums: Equatable {
        var measured = 0.0, predicted = 0.0

        mutating func add(_ measured: Double, _ predicted: Double, memory: Double) {
            let kept = exp(-predicted / memory)
            (self.measured, self.predicted) = (self.measured * kept + measured, self.predicted * kept + predicted)
        }

        mutating func fade(_ kept: Double) { (measured, predicted) = (measured * kept, predicted * kept) }

        /// - Parameter assumed: nanoseconds of an idle machine that are assumed, so that one short sample is not taken for the machine's state.
        func ratio(assumed: Double) -> Double { max((measured + assumed) / (predicted + assumed), 0.25) }
    }

    /// Predicted nanoseconds after which a sample weighs 1/e.
    private static let fastMemory = 25e6, slowMemory = 300e6
    /// Seconds of a pause after which earlier samples weigh 1/e, because other programs come and go.
    private static let fastPause = 2.0, slowPause = 30.0
    /// One sample counts as at most so many times its prediction: a suspended process says nothing about the next layer.
    private static let largest = 20.0

    private var fast = Sums()
    private var slow = [Sums](repeating: Sums(), count: Phase.allCases.count)
    private var newest: ContinuousClock.Instant?

    package init() {}

    /// - Parameters:
    ///   - measured: nanoseconds that the work took.
    ///   - predicted: nanoseconds that it takes on an idle machine.
    package mutating func add(measured: Double, predicted: Double, _ phase: Phase) {
        guard predicted > 0, measured > 0, measured.isFinite else { return }
        let measured = min(measured, predicted * LoadFactor.largest)
        fast.add(measured, predicted * slowValue(phase), memory: LoadFactor.fastMemory)
        slow[phase.rawValue].add(measured, predicted, memory: LoadFactor.slowMemory)
    }

    private func slowValue(_ phase: Phase) -> Double { slow[phase.rawValue].ratio(assumed: 20e6) }

    /// Forgets the samples before a pause.
    package mutating func pause(until now: ContinuousClock.Instant) {
        if let newest {
            let seconds = max((now - newest) / .seconds(1), 0)
            fast.fade(exp(-seconds / LoadFactor.fastPause))
            for phase in slow.indices { slow[phase].fade(exp(-seconds / LoadFactor.slowPause)) }
        }
        newest = now
    }

    package var values: PhaseLoads {
        let shared = fast.ratio(assumed: 2e6)
        return PhaseLoads(encode: shared * slowValue(.encode), prefill: shared * slowValue(.prefill), decode: shared * slowValue(.decode))
    }
}
