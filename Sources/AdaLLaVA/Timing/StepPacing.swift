/// How much of prompts and images a step takes while answers grow, so that no answer waits much longer for its next token than without them.
///
/// Prompt rows ride along in steps that are bound by reading weights (SARATHI: Agrawal et al., 2023), and their number follows from predicted times; images
/// are divided by rows (stages as in EPD: Singh et al., 2025). The error of predictions is learned from the steps themselves.
package struct StepPacing: Sendable {
    /// Most time of a step with prompt rows, and of a step with rows of an image, over that of its single rows alone.
    package static let promptFactor = 1.75, imageFactor = 1.4
    /// Fewest rows of a prompt in a step: fewer cost as much.
    package static let leastRows = 8

    /// Whether measurements count; tests of made-up times turn it off.
    package var learns = true
    /// Measured over predicted time of prompt rows that ride along.
    private var ratio = 1.0
    /// Measured nanoseconds of steps of single rows alone.
    package private(set) var single: Double?
    /// Nanoseconds of a row by phase of the tower.
    private var rowTimes: [Int: Double] = [:]

    package init() {}

    /// Rows of prompts that a step takes.
    /// - Parameters:
    ///   - single: predicted nanoseconds of the step's single rows.
    ///   - limits: longest time of a token that each running answer permits, in nanoseconds.
    ///   - row: predicted nanoseconds of one more row.
    package func promptRows(single: Double, limits: [Double], row: Double, atMost most: Int) -> Int {
        let allowed = (limits + [single * StepPacing.promptFactor]).min() ?? 0
        let rows = (allowed - single) / max(row * ratio, 1)
        guard rows.isFinite, rows < Double(most) else { return most }
        return min(max(Int(max(rows, 0)) / StepPacing.leastRows * StepPacing.leastRows, StepPacing.leastRows), most)
    }

    /// - Parameters:
    ///   - measured: nanoseconds of the whole step.
    ///   - single: predicted nanoseconds of its single rows.
    ///   - rows: predicted nanoseconds of its prompt rows.
    package mutating func note(measured: Double, single: Double, rows: Double) {
        guard learns, rows > 0, measured.isFinite else { return }
        // A suspended process says nothing about the next step.
        let newest = min(max((measured - single) / rows, 0.1), 20)
        ratio += (newest - ratio) / 4
    }

    /// - Parameter measured: nanoseconds of a step of single rows alone.
    package mutating func note(single measured: Double) {
        guard learns, measured > 0, measured.isFinite else { return }
        let known = single ?? measured
        single = known + (min(measured, known * 20) - known) / 8
    }

    /// Rows of a phase of the tower that fit into some nanoseconds.
    /// - Parameters:
    ///   - left: rows that the phase has left; `least`: fewest that are worth a call.
    package func imageRows(phase: Int, left: Int, least: Int, within nanoseconds: Double) -> Int {
        guard let row = rowTimes[phase] else { return 0 }
        let rows = nanoseconds / max(row, 1)
        guard rows < Double(left) else { return left }
        return Int(max(rows, 0)) < least ? 0 : Int(rows) / max(least, 1) * max(least, 1)
    }

    package mutating func note(phase: Int, rows: Int, measured: Double) {
        guard learns, rows > 0, measured > 0, measured.isFinite else { return }
        let newest = measured / Double(rows), known = rowTimes[phase] ?? newest
        rowTimes[phase] = known + (min(newest, known * 20) - known) / 4
    }
}
