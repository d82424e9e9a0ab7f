import AdaLLaVA
import Foundation

/// Gain of `auto` budgets on inputs that the head was not fitted to: accuracy over mean budget, compared with every fixed budget, the same
/// budgets shuffled among the inputs, and a head that sees only the question's text.
package struct BudgetStudy: Sendable {
    /// One way of choosing budgets.
    package struct Point: Codable, Sendable, Equatable {
        /// Mean fraction of the full model's units.
        package let mean: Double
        package let accuracy: Double
    }

    /// `auto` at one price, and other budgets with the same mean.
    package struct Automatic: Sendable {
        package let own: Point
        /// Gain of own budgets over the same ones shuffled among the inputs.
        package let overShuffled: PairedDifference?
        /// Gain over budgets that a head chooses from the question alone; `nil` without such a head.
        package let overText: PairedDifference?
        package let text: Point?
    }

    package let inputs: Int
    package let full: Double
    /// From no optional units to all.
    package let fixed: [Point]
    package let oracle: Point
    /// At the prices of the head's curve that give different means, cheapest first.
    package let curve: [Automatic]
    /// At the price of `auto` without arguments.
    package let standard: Automatic

    /// - Parameter textHead: one that was fitted to ``BudgetLabels/textStates``.
    package init(_ head: BudgetHead, on labels: BudgetLabels, textHead: BudgetHead? = nil, seed: UInt64 = 1) {
        (inputs, full) = (labels.count, labels.fullAccuracy)
        fixed = (0 ... labels.optional).map { Point(mean: labels.share($0), accuracy: labels.accuracy(fixed: $0)) }
        let best = labels.oracle
        oracle = Point(mean: labels.mean(best), accuracy: labels.accuracy(best))
        let choice = BudgetChoice(head, labels), rival = textHead.map { BudgetChoice($0, labels, usesText: true) }
        let order = PlanDifference.derangement(count: labels.count, seed: seed)
        func automatic(_ price: Float) -> Automatic {
            let units = choice.units(price: price)
            func scores(_ units: [Int]) -> [Double] { zip(labels.scores, units).map { Double($0[$1]) } }
            let own = scores(units), mean = labels.mean(units)
            let text = rival.map { $0.units(mean: mean) }
            return Automatic(
                own: Point(mean: mean, accuracy: own.mean ?? 0),
                overShuffled: labels.count > 1 ? PairedDifference(own, scores(order.map { units[$0] }), seed: seed) : nil,
                overText: text.flatMap { PairedDifference(own, scores($0), seed: seed) },
                text: text.map { Point(mean: labels.mean($0), accuracy: labels.accuracy($0)) })
        }
        var known: Set<Double> = []
        curve = head.curve.map(\.price).sorted(by: >).map(automatic).filter { known.insert(($0.own.mean * 200).rounded()).inserted }
        standard = automatic(head.price(for: .within(AutomaticBudget.standardLoss)))
    }

    /// The least fixed budget that loses at most `loss` against the full one.
    package func leastFixed(within loss: Double) -> Point? { fixed.first { $0.accuracy >= full - loss } }

    // MARK: - Reports

    package var table: String {
        func line(_ name: String, _ point: Point, _ more: String = "") -> String {
            let padding = String(repeating: " ", count: max(0, 12 - name.count))
            return name + padding + String(format: "%8.3f%10.4f", point.mean, point.accuracy) + more
        }
        func gain(_ name: String, _ difference: PairedDifference?) -> String {
            difference.map { String(format: "  %@ %+.1f (%+.1f to %+.1f)", name, 100 * $0.mean, 100 * $0.low, 100 * $0.high) } ?? ""
        }
        func gains(_ item: Automatic) -> String { gain("over shuffled", item.overShuffled) + gain("over the text alone", item.overText) }
        var lines = ["\(inputs) inputs", "budget          mean  accuracy"]
        lines += fixed.map { line("fixed", $0) }
        lines.append(line("oracle", oracle))
        lines += curve.map { line("auto", $0.own, gains($0)) }
        lines.append(line("auto itself", standard.own, gains(standard)))
        if let least = leastFixed(within: AutomaticBudget.standardLoss) {
            lines.append(
                String(
                    format: "the least fixed budget within %g of full accuracy is %.3f; auto's mean is %.2f of it and its accuracy %+.4f from full",
                    AutomaticBudget.standardLoss, least.mean, standard.own.mean / least.mean, standard.own.accuracy - full))
        }
        lines.append("gains in points, with 95 % intervals (paired bootstrap)")
        return lines.joined(separator: "\n")
    }

    /// The study in `auto --json` and `explain --json`.
    package struct JSON: Codable, Sendable {
        package var inputs: Int
        /// Accuracy at the full budget.
        package var full: Double
        package var fixed: [Point]
        package var oracle: Point
        package var curve: [AutomaticJSON]
        package var auto: AutomaticJSON

        package struct AutomaticJSON: Codable, Sendable {
            package var mean: Double
            package var accuracy: Double
            @Nullable package var overShuffled: PairedDifference?
            @Nullable package var overText: PairedDifference?
            @Nullable package var text: Point?

            enum CodingKeys: String, CodingKey {
                case mean, accuracy, text
                case overShuffled = "over_shuffled"
                case overText = "over_text"
            }

            init(_ item: Automatic) {
                (mean, accuracy, text) = (item.own.mean, item.own.accuracy, item.text)
                (overShuffled, overText) = (item.overShuffled, item.overText)
            }
        }
    }

    package var json: JSON {
        JSON(
            inputs: inputs, full: full, fixed: fixed, oracle: oracle, curve: curve.map(JSON.AutomaticJSON.init), auto: JSON.AutomaticJSON(standard))
    }
}
