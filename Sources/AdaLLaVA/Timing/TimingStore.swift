import Foundation

/// Measurements of one model on this machine, stored in the user's cache folder: the times that predictions use, and recent errors of
/// predictions.
///
/// A file serves one machine, thread count, kernel set, precision, model and build; another one, or a damaged one, is measured anew and never trusted.
package struct TimingStore: Sendable {
    private let configuration: ModelConfiguration
    private let weightBytes: Double
    /// Everything that times depend on, in words.
    package let identity: String
    package let file: URL

    /// - Parameters:
    ///   - identity: everything that times depend on.
    ///   - folder: where files are kept; `nil`: `adallava/timings` in the user's cache folder.
    package init(_ configuration: ModelConfiguration, weightBytes: Double, identity: String, folder: URL? = nil) {
        (self.configuration, self.weightBytes, self.identity) = (configuration, weightBytes, identity)
        let folder = folder ?? MachineCeilings.defaultFolder.appendingPathComponent("timings", isDirectory: true)
        // The hash names a file, whose identity is then compared in full.
        let hash = FNV1a(identity).value
        file = folder.appendingPathComponent("times-" + String(hash, radix: 16) + ".json")
    }

    /// The content of a file.
    private struct Kept: Codable {
        let identity: String
        let nanoseconds: [String: Double]
        let chunkCurve, tokenCurve: SizeCurve
        let imageNanoseconds: Double
        let wholeErrors: [Double]
        let firstTokenErrors: [Double]
        let lengths: AnswerLengths
    }

    private func read() -> Kept? {
        guard let data = try? Files.data(file), let kept = try? JSONDecoder().decode(Kept.self, from: data), kept.identity == identity else { return nil }
        let values = StepCounts.Term.allCases.compactMap { kept.nanoseconds["\($0)"] }
        guard values.count == StepCounts.Term.allCases.count, (values + [kept.imageNanoseconds]).allSatisfy({ $0.isFinite && $0 >= 0 }),
            values.contains(where: { $0 > 0 }), kept.lengths.isUsable, kept.chunkCurve.isUsable, kept.tokenCurve.isUsable
        else { return nil }
        return kept
    }

    /// Whether measurements of this model on this machine are kept.
    package var hasMeasurements: Bool { read() != nil }

    /// A predictor with the stored measurements, or with guesses.
    package func makePlanner() -> TimePlanner {
        let planner = TimePlanner(configuration, weightBytes: weightBytes)
        guard let kept = read() else { return planner }
        var coefficients = StepCounts()
        for term in StepCounts.Term.allCases { coefficients[term] = kept.nanoseconds["\(term)"] ?? 0 }
        planner.use(TimeModel(coefficients: coefficients, chunkCurve: kept.chunkCurve, tokenCurve: kept.tokenCurve), imageNanoseconds: kept.imageNanoseconds)
        (planner.wholeMargin, planner.firstTokenMargin) = (DeadlineMargin(errors: kept.wholeErrors), DeadlineMargin(errors: kept.firstTokenErrors))
        planner.lengths = kept.lengths
        return planner
    }

    /// Stores a predictor's measurements. If the cache folder cannot be written, the next process measures again.
    package func keep(_ planner: TimePlanner) {
        let terms = StepCounts.Term.allCases.map { ("\($0)", planner.model.coefficients[$0]) }
        let kept = Kept(
            identity: identity, nanoseconds: Dictionary(uniqueKeysWithValues: terms), chunkCurve: planner.model.chunkCurve, tokenCurve: planner.model.tokenCurve,
            imageNanoseconds: planner.imageNanoseconds,
            wholeErrors: planner.wholeMargin.errors, firstTokenErrors: planner.firstTokenMargin.errors, lengths: planner.lengths)
        guard let data = try? JSONText.data(kept) else { return }
        try? Files.createFolder(file.deletingLastPathComponent())
        try? Files.write(data, to: file)
    }
}
