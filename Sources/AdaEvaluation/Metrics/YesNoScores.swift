import Foundation

/// POPE's counts (Li et al., EMNLP 2023) as its `evaluate.py` makes them: `yes` is the positive class, and what is not a no is a yes.
public struct YesNoCounts: Sendable, Equatable {
    public private(set) var truePositives = 0
    public private(set) var falsePositives = 0
    public private(set) var trueNegatives = 0
    public private(set) var falseNegatives = 0

    /// - Parameter answers: each with the one reference `yes` or `no`.
    public init(_ answers: some Sequence<AnsweredSample>) {
        for item in answers {
            switch (YesNoCounts.isYes(item.answer), item.sample.references.first != "no") {
            case (true, true): truePositives += 1
            case (true, false): falsePositives += 1
            case (false, false): trueNegatives += 1
            case (false, true): falseNegatives += 1
            }
        }
    }

    /// Whether an answer counts as a yes: its first sentence, without commas, has none of the words No, no and not.
    public static func isYes(_ answer: String) -> Bool {
        let sentence = answer.prefix { $0 != "." }
        let words = sentence.filter { $0 != "," }.split(separator: " ", omittingEmptySubsequences: false)
        return !words.contains { $0 == "No" || $0 == "not" || $0 == "no" }
    }

    public var count: Int { truePositives + falsePositives + trueNegatives + falseNegatives }

    /// Accuracy, precision, recall, F1 and the share of yes. A quotient without a denominator is 0, where the script would stop.
    public func scores(prefix: String = "") -> [BenchmarkScore] {
        func share(_ part: Int, _ whole: Int) -> Double { whole == 0 ? 0 : Double(part) / Double(whole) }
        let precision = share(truePositives, truePositives + falsePositives)
        let recall = share(truePositives, truePositives + falseNegatives)
        let f1 = precision + recall == 0 ? 0 : 2 * precision * recall / (precision + recall)
        return [
            BenchmarkScore(prefix + "accuracy", share(truePositives + trueNegatives, count)),
            BenchmarkScore(prefix + "precision", precision), BenchmarkScore(prefix + "recall", recall),
            BenchmarkScore(prefix + "f1", f1), BenchmarkScore(prefix + "yes_ratio", share(truePositives + falsePositives, count)),
        ]
    }
}
