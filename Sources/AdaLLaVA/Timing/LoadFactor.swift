import Foundation

/// How much slower the machine is than when it was measured, from the newest layers and tokens: measured over predicted time.
///
/// A ratio of sums, each sample weighted by its predicted time and forgotten exponentially: on a core that another program shares, samples come in two
/// clumps, those that ran through and those that waited for a time slice, and the mean of their ratios would depend on how short the samples are.
package struct LoadFactor: Sendable, Equatable {
    /// Predicted nanoseconds after which a sample weighs 1/e.
    static let memory = 25e6
    /// One sample counts as at most so many times its prediction: a suspended process says nothing about the next layer.
    static let largest = 20.0

    private var measured = 0.0, predicted = 0.0
    private var newest: ContinuousClock.Instant?

    package init() {}

    /// - Parameters:
    ///   - measured: nanoseconds that a piece of work took.
    ///   - predicted: nanoseconds that it takes on an idle machine.
    package mutating func add(measured: Double, predicted: Double) {
        guard predicted > 0, measured > 0, measured.isFinite else { return }
        let kept = exp(-predicted / LoadFactor.memory)
        self.measured = self.measured * kept + min(measured, predicted * LoadFactor.largest)
        self.predicted = self.predicted * kept + predicted
    }

    /// Forgets what was seen before a pause, within seconds: other programs come and go.
    package mutating func pause(until now: ContinuousClock.Instant) {
        if let newest {
            let kept = exp(-max((now - newest) / .seconds(1), 0) / 2)
            (measured, predicted) = (measured * kept, predicted * kept)
        }
        newest = now
    }

    /// 1 on a machine as idle as when it was measured; 1 also before any sample.
    package var value: Double {
        // A few milliseconds of an idle machine are assumed, so that one short sample is not taken for the machine's state.
        let assumed = 2e6
        return max((measured + assumed) / (predicted + assumed), 0.25)
    }

    /// Natural logarithm of ``value``.
    package var logarithm: Double { log(value) }
}
