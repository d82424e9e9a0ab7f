import Foundation
import Testing

@testable import AdaEvaluation

/// Intervals and fits, against numbers from elsewhere.
@Suite struct ExperimentStatisticsTests {
    // A failure means that a printed ± is not the 95 % confidence interval that it is called.
    @Test("margin of the mean") func marginOfTheMean() throws {
        // Student's sleep data, second drug (R: t.test(sleep$extra[11:20])): mean 2.33, interval 0.8976775 … 3.7623225.
        let sleep = try #require(SampleStatistics([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]))
        #expect(abs(sleep.mean - 2.33) < 1e-12)
        #expect(abs(try #require(sleep.meanMargin) - 1.4323225) < 1e-4)
        #expect(SampleStatistics([1.0])?.meanMargin == nil)
        #expect(SampleStatistics([2.0, 2, 2])?.meanMargin == 0)
        // R: qt(0.975, c(1, 30, 31, 60, 1000)).
        for (freedom, quantile) in [(1, 12.7062), (30, 2.042272), (31, 2.039513), (60, 2.000298), (1000, 1.962339)] {
            #expect(abs(SampleStatistics.studentQuantile(freedom: freedom) - quantile) < 1e-4, "\(freedom)")
        }
    }

    // A failure means that the interval of a median is too narrow, so that noise looks like a difference.
    @Test("interval of the median") func intervalOfTheMedian() throws {
        func interval(_ count: Int) -> ClosedRange<Double>? { SampleStatistics((1 ... count).map(Double.init))?.medianInterval }
        // Ranks from tables of the sign test at 5 % (Conover; Dixon and Massey).
        #expect(interval(5) == nil)
        #expect(interval(6) == 1 ... 6)
        #expect(interval(9) == 2 ... 8)
        #expect(interval(10) == 2 ... 9)
        #expect(interval(20) == 6 ... 15)
        #expect(interval(25) == 8 ... 18)
        #expect(interval(100) == 40 ... 61)
        // A thousand values and more: the normal approximation goes on where the exact count stops.
        let (exact, approximate) = (try #require(interval(1000)), try #require(interval(1001)))
        #expect(abs(exact.lowerBound - approximate.lowerBound) <= 2 && abs(exact.upperBound - approximate.upperBound) <= 2)
    }

    // A failure means that R² and slopes are not those of a least squares fit.
    @Test("slopes and R² are those of a least-squares fit") func fits() throws {
        let line = try #require(LinearFit([(1e9, 5), (2e9, 7), (3e9, 9)]))
        #expect(abs(line.slope - 2e-9) < 1e-20 && abs(line.intercept - 3) < 1e-9 && line.rSquared == 1)
        #expect(abs(line(4e9) - 11) < 1e-9)
        // Anscombe's first set: slope 0.5001, intercept 3.0001, R² 0.6665.
        let x = [10.0, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5]
        let y = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68]
        let anscombe = try #require(LinearFit(zip(x, y).map { (x: $0, y: $1) }))
        #expect(abs(anscombe.slope - 0.5000909) < 1e-6 && abs(anscombe.intercept - 3.0000909) < 1e-6)
        #expect(abs(anscombe.rSquared - 0.6665425) < 1e-6)
        #expect(LinearFit([(1, 2), (1, 3)]) == nil && LinearFit([]) == nil && LinearFit([(1, .nan), (2, 1)]) == nil)
        #expect(LinearFit([(1, 2), (2, 2)])?.rSquared == 1)
    }

    // A failure means that quick measurements are repeated too seldom to say anything, or slow ones for hours.
    @Test("the usual number of repeats follows from the duration of a round") func usualRepeats() {
        #expect(InterleavedRounds.repeats(round: .milliseconds(1)) == 101)
        #expect(InterleavedRounds.repeats(round: .seconds(1)) == 20)
        #expect(InterleavedRounds.repeats(round: .seconds(60)) == 9)
        #expect(InterleavedRounds.repeats(round: .zero) == 101)
    }

    // A failure means that numbers below an axis run into each other, or that there are none.
    @Test("axes have a readable number of labels", arguments: [(0.9, 0.2), (1.0, 0.2), (1.1, 0.5), (18000.0, 5000.0), (1e-9, 2e-10), (0, 1), (.infinity, 1)])
    func steps(range: Double, step: Double) {
        #expect(abs(ExperimentCharts.step(range) - step) < step * 1e-9)
    }

    // A failure means that a column of numbers is printed with a margin that has other digits, or that Markdown breaks at a model's name.
    @Test("numbers and margins have the same digits, and names do not break Markdown") func text() {
        #expect(ExperimentText.number(11.254, margin: 0.2114) == "11.25 ± 0.21")
        #expect(ExperimentText.number(7333.61, margin: nil) == "7333.6")
        #expect(ExperimentText.csv([["a,b", "c\"d"], ["1", "2"]]) == "\"a,b\",\"c\"\"d\"\n1,2\n")
        #expect(ExperimentText.markdown([["m", "t/s"], ["a|b", "10"]], textColumns: [0]) == ["| m    | t/s |", "| ---- | ---:|", "| a\\|b |  10 |"])
        #expect(ExperimentText.shortened("a\n b\tcd", to: 5) == "a b …" && ExperimentText.shortened("a\nb", to: 5) == "a b")
    }
}
