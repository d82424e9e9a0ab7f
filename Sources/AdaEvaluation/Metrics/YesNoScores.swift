import Foundation

/// POPE's counts (Li et al., EMNLP 2023) as in its `evaluate.py`: `yes` is the positive class, and every answer that is not a no is a yes.
package struct YesNoCounts: Sendable, Equatable {
    package private(set) var truePositives = 0
    package private(set) var falsePositives = 0
    package private(set) var trueNegatives = 0
    package private(set) var falseNegatives = 0

    /// - Parameter answers: each with the one reference `yes` or `no`.
    package init(_ answers: some Sequence<AnsweredSample>) {
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
    package static func isYes(_ answer: String) -> Bool {
        let sentence = answer.prefix { $0 != "." }
        let words = sentence.filter { $0 != "," }.split(separator: " ", omittingEmptySubsequences: false)
        return !words.contains { $0 == "No" || $0 == "not" || $0 == "no" }
    }

    package var count: Int { truePositives + falsePositives + trueNegatives + falseNegatives }

    /// Accuracy, precision, recall, F1 and the fraction of yes. A quotient without a denominator is 0, where the script would stop.
    package func scores(prefix: String = "") -> [BenchmarkScore] {
        let precision = BenchmarkScore(prefix + "precision", truePositives, of: truePositives + falsePositives)
        let recall = BenchmarkScore(prefix + "recall", truePositives, of: truePositives + falseNegatives)
        let sum = precision.value + recall.value
        return [
            BenchmarkScore(prefix + "accuracy", truePositives + trueNegatives, of: count), precision, recall,
            BenchmarkScore(prefix + "f1", sum == 0 ? 0 : 2 * precision.value * recall.value / sum),
            BenchmarkScore(prefix + "yes_ratio", truePositives + falsePositives, of: count),
        ]
    }
}
