import Foundation
import Testing

@testable import AdaLLaVA

/// Budgets as people write them, and the units they buy (`Tests/Fixtures/scheduler/quantize.json`).
@Suite struct BudgetTests {
    struct Table: Decodable {
        struct Row: Decodable {
            struct Quantized: Decodable {
                let units: Int
                let normalized: Float
            }
            let shape: String
            let prefixUnits, totalUnits: Int
            let latencyFraction: [Float]?
            let latency: Double
            let float32, float16, bfloat16: Quantized
        }
        let rows: [Row]
    }

    // A mismatch means that a budget buys more or less than in the reference, or that the scheduler is told so.
    @Test("units of the reference", arguments: LatencyPrecision.allCases) func unitsOfTheReference(precision: LatencyPrecision) throws {
        let table: Table = try Fixtures.json("scheduler/quantize.json")
        #expect(table.rows.count == 344)
        for row in table.rows {
            let expected =
                switch precision {
                case .float32: row.float32
                case .float16: row.float16
                case .bfloat16: row.bfloat16
                }
            let units = BudgetUnits(total: row.totalUnits, prefix: row.prefixUnits)
            var fraction = Float(row.latency)
            if let parts = row.latencyFraction { fraction = parts[0] / parts[1] }
            let granted = units.granted(fraction: fraction, in: precision)
            #expect(granted == expected.units, "\(row.shape) at \(row.latency)")
            #expect(units.normalized(granted, in: precision) == expected.normalized, "\(row.shape) at \(row.latency)")
        }
    }

    // A failure means that a 16-bit latency is cut off, or that its ties are rounded otherwise than by processors.
    @Test("rounds ties to even") func roundsTiesToEven() {
        #expect(LatencyPrecision.bfloat16.round(1 + 0x1p-8) == 1)
        #expect(LatencyPrecision.bfloat16.round(1 + 0x3p-8) == 1 + 0x1p-6)
        #expect(LatencyPrecision.bfloat16.round(1 + 0x1.01p-8) == 1 + 0x1p-7)
        #expect(LatencyPrecision.float16.round(1 + 0x1p-11) == 1)
        #expect(LatencyPrecision.float16.round(-1 - 0x3p-11) == -1 - 0x1p-9)
        #expect(LatencyPrecision.float32.round(0.1) == 0.1)
    }

    // A failure means that a budget outside its range crashes or buys more than the model has.
    @Test("units stay within the model") func unitsStayWithinTheModel() {
        let units = BudgetUnits(total: 32, prefix: 16)
        #expect(units.granted(fraction: 1) == 16)
        #expect(units.granted(fraction: 0.1) == 0)
        #expect(units.granted(fraction: .infinity) == 16)
        #expect(units.granted(fraction: .nan) == 0)
        #expect(units.granted(fraction: -3, in: .bfloat16) == 0)
        #expect(units.floor == 0.5)
    }

    // A failure means that variant H counts its budget in something other than rank heads and rank groups.
    @Test("units of both variants") func unitsOfBothVariants() {
        let layers = AdaptiveConfiguration(schedulerType: .layers, schedulerRank: 1, numPrefixLayers: 16)
        #expect(BudgetUnits(layers, layers: 32, heads: 32) == BudgetUnits(total: 32, prefix: 16))
        let heads = AdaptiveConfiguration(schedulerType: .heads, schedulerRank: 8, numPrefixLayers: 16)
        #expect(BudgetUnits(heads, layers: 32, heads: 32) == BudgetUnits(total: 128, prefix: 64))
        // 40 heads in eights, and a rank that does not divide: whole units only.
        #expect(BudgetUnits(heads, layers: 40, heads: 40) == BudgetUnits(total: 200, prefix: 80))
        let odd = AdaptiveConfiguration(schedulerType: .heads, schedulerRank: 5, numPrefixLayers: 3)
        #expect(BudgetUnits(odd, layers: 7, heads: 8) == BudgetUnits(total: 11, prefix: 4))
    }

    // A failure means that a budget people write every day is misread.
    @Test("budgets are read as people write them", arguments: [
        ("0.7", Budget.fraction(0.7)), ("1", .fraction(1)), (" 70% ", .fraction(0.7)), ("1e-2", .fraction(0.01)),
        ("400ms", .answer(within: .milliseconds(400))), ("1.5s", .answer(within: .milliseconds(1500))),
        ("1.5 S", .answer(within: .milliseconds(1500))),
    ])
    func readsBudgets(text: String, expected: Budget) throws {
        #expect(try Budget(parsing: text) == expected)
    }

    // A failure means that a budget that cannot be meant is taken, or refused without saying what would do.
    @Test("impossible budgets are refused with what is expected", arguments: [
        ("0", BudgetError.outOfRange(0)), ("-1", .outOfRange(-1)), ("2", .outOfRange(2)), ("150%", .outOfRange(1.5)),
        ("inf", .outOfRange(.infinity)), ("fast", .unreadable("fast")), ("", .unreadable("")), ("%", .unreadable("%")),
        ("-5ms", .unreadable("-5ms")), ("0s", .unreadable("0s")), ("1e300s", .unreadable("1e300s")), ("infs", .unreadable("infs")),
    ])
    func refusesBudgets(text: String, expected: BudgetError) throws {
        let error = #expect(throws: BudgetError.self) { try Budget(parsing: text) }
        #expect(error == expected)
        #expect(expected.category == .usage)
        #expect(expected.description.contains("such as 0.7") || expected.description.contains("at most 1"))
        #expect(throws: BudgetError.self) { try Budget(parsing: "nan") }
    }

    // A failure means that a time is taken for a share of compute, or shown as another one.
    @Test("times are no fractions") func timesAreNoFractions() throws {
        #expect(try Budget(parsing: "400ms").validFraction() == nil)
        #expect(Budget.answer(within: .microseconds(500)).description == "0.5ms")
        #expect(Budget.answer(within: .seconds(Int64.max)).description.hasSuffix("ms"))
    }
}
