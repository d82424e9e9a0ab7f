import Foundation
import Testing

@testable import adallava

/// What a step's progress looks like, with the clock in the test's hands.
@Suite struct ProgressReportTests {
    // A failure means that quick steps litter the screen, or that slow ones say nothing.
    @Test("only slow steps show progress") func patience() {
        var report = ProgressReport(style: .plain)
        #expect(report.update("loading", done: 0, of: 10, at: .seconds(100)) == nil)
        #expect(report.update("loading", done: 4, of: 10, at: .milliseconds(100_900)) == nil)
        #expect(report.update("loading", done: 5, of: 10, at: .seconds(101)) == "loading: 5/10, about 1 s left\n")
        // Plain lines come at most every two seconds, and once at the end.
        #expect(report.update("loading", done: 6, of: 10, at: .seconds(102)) == nil)
        #expect(report.update("loading", done: 8, of: 10, at: .seconds(104)) == "loading: 8/10, about 1 s left\n")
        #expect(report.update("loading", done: 10, of: 10, at: .milliseconds(104_100)) == "loading: 10/10\n")
        #expect(report.update("loading", done: 10, of: 10, at: .milliseconds(104_200)) == nil)
    }

    // A failure means that a step which is over in less than a second makes the next one's clock start too early.
    @Test("each step has its own clock") func eachStepHasItsOwnClock() {
        var report = ProgressReport(style: .plain)
        #expect(report.update("one", done: 1, of: 2, at: .zero) == nil)
        #expect(report.update("two", done: 0, of: 4, at: .milliseconds(900)) == nil)
        #expect(report.update("two", done: 1, of: 4, at: .milliseconds(1800)) == nil)
        #expect(report.update("two", done: 2, of: 4, at: .milliseconds(1900)) == "two: 2/4, about 1 s left\n")
    }

    // A failure means that a terminal is left with half a progress line, or that an answer is printed behind one.
    @Test("progress lines are removed from a terminal") func terminalLines() {
        var report = ProgressReport(style: .terminal)
        let erase = ProgressReport.eraseLine
        #expect(report.update("loading", done: 0, of: 4, at: .zero) == nil)
        #expect(report.interrupt() == "", "nothing was shown, so nothing is erased")
        #expect(report.update("loading", done: 1, of: 4, at: .seconds(2)) == erase + "loading: 1/4, about 6 s left")
        #expect(report.update("loading", done: 2, of: 4, at: .milliseconds(2050)) == nil)
        #expect(report.interrupt() == erase)
        #expect(report.interrupt() == "")
        #expect(report.update("loading", done: 3, of: 4, at: .milliseconds(2200)) == erase + "loading: 3/4, about 1 s left")
        // The next step removes the line of the one before.
        #expect(report.update("reading", done: 0, of: 4, at: .milliseconds(2300)) == erase)
        #expect(report.finish() == "")
        #expect(!report.isRunning)
    }

    // A failure means that a step from which no report comes leaves the screen empty, or fills it.
    @Test("a step without reports still shows progress") func standingStill() {
        var report = ProgressReport(style: .plain)
        #expect(report.tick(at: .seconds(50)) == nil, "no step has begun")
        #expect(report.update("opening", done: 0, of: 0, at: .seconds(60)) == nil)
        #expect(report.tick(at: .milliseconds(60_500)) == nil)
        #expect(report.tick(at: .seconds(61)) == "opening …\n")
        #expect(report.tick(at: .seconds(62)) == nil)
        #expect(report.tick(at: .seconds(71)) == "opening …\n")
        // A step that is complete needs no repeating.
        #expect(report.update("reading", done: 3, of: 3, at: .seconds(72)) == nil)
        #expect(report.tick(at: .seconds(90)) == nil)
    }

    // A failure means that the line misleads: wrong shares, wrong units, a time left where there is none.
    @Test("progress lines have the right shares, units and times") func text() {
        #expect(ProgressReport.line("a", done: 0, of: 3, elapsed: .seconds(5)) == "a: 0/3")
        #expect(ProgressReport.line("a", done: 3, of: 3, elapsed: .seconds(5)) == "a: 3/3")
        #expect(ProgressReport.line("a", done: 500, of: 2000, elapsed: .seconds(5)) == "a: 25 %, about 15 s left")
        #expect(ProgressReport.line("a", done: 1, of: 101, elapsed: .seconds(6)) == "a: 1/101, about 10 min left")
        #expect(ProgressReport.line("a", done: 7, of: 0, elapsed: .seconds(6)) == "a …")
    }
}
