import Foundation

/// Decides when a step's progress is shown, and how. A pure function of time: it returns text and writes nothing.
///
/// A step shows nothing in its first second. After that a terminal has one line that is rewritten; elsewhere there are plain lines, less often. A
/// step without progress is shown too (``tick(at:)``), so that the screen never stays empty.
struct ProgressReport {
    /// Where the text goes.
    enum Style { case terminal, plain }

    let style: Style
    private var name = ""
    private var done = 0
    private var total = 0
    private var detail = ""
    private var start = Duration.zero
    private var lastShown: (at: Duration, done: Int)?
    private var lineIsOpen = false

    /// Erases the line that the cursor is in.
    static let eraseLine = "\r\u{1B}[K"
    /// How long a step may take before it is shown.
    static let patience = Duration.seconds(1)

    init(style: Style) { self.style = style }

    /// Whether a step has begun and not ended.
    var isRunning: Bool { !name.isEmpty }

    /// Reports how far a step is; another name than before begins a new step.
    /// - Parameters:
    ///   - total: 0 or less if it is not known.
    ///   - detail: more about the current state of the step; shown after the count.
    ///   - now: time since any fixed moment.
    /// - Returns: the text to write now, or `nil`.
    mutating func update(_ name: String, done: Int, of total: Int, detail: String = "", at now: Duration) -> String? {
        var closing = ""
        if name != self.name {
            closing = finish()
            (self.name, start) = (name, now)
        }
        (self.done, self.total, self.detail) = (done, total, detail)
        let shown = show(at: now, interval: style == .terminal ? .milliseconds(100) : .seconds(2))
        return closing.isEmpty && shown == nil ? nil : closing + (shown ?? "")
    }

    /// To be called about once a second: shows a step from which no report came.
    mutating func tick(at now: Duration) -> String? {
        guard isRunning, !isComplete else { return nil }
        return show(at: now, interval: style == .terminal ? .seconds(1) : .seconds(10))
    }

    /// Removes the line temporarily, so that something else can be written in its place.
    mutating func interrupt() -> String {
        defer { lineIsOpen = false }
        return lineIsOpen ? Self.eraseLine : ""
    }

    /// Ends the step.
    /// - Returns: the text that removes its line.
    mutating func finish() -> String {
        (name, lastShown) = ("", nil)
        return interrupt()
    }

    private var isComplete: Bool { total > 0 && done >= total }

    private mutating func show(at now: Duration, interval: Duration) -> String? {
        guard now - start >= Self.patience else { return nil }
        if let lastShown {
            // The last report of a step is always shown, once.
            let isLast = isComplete && lastShown.done < done
            guard isLast || now - lastShown.at >= interval else { return nil }
        }
        lastShown = (now, done)
        let line = Self.line(name, done: done, of: total, detail: detail, elapsed: now - start)
        guard style == .terminal else { return line + "\n" }
        lineIsOpen = true
        return Self.eraseLine + line
    }

    /// One line: the step, its progress, and the remaining time.
    static func line(_ name: String, done: Int, of total: Int, detail: String = "", elapsed: Duration) -> String {
        guard total > 0 else { return "\(name) …" }
        // Large totals count positions and layers, which say less than a percentage.
        let line = name + (total > 1000 ? ": \(Int(Double(done) / Double(total) * 100)) %" : ": \(done)/\(total)")
            + (detail.isEmpty ? "" : " (\(detail))")
        guard done > 0, done < total else { return line }
        let seconds = elapsed / .seconds(1) / Double(done) * Double(total - done)
        let left = seconds < 90 ? String(format: "%.0f s", seconds.rounded(.up)) : String(format: "%.0f min", (seconds / 60).rounded(.up))
        return line + ", about \(left) left"
    }
}
