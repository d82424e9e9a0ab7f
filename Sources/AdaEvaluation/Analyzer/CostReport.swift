import AdaLLaVA
import Foundation

/// An analysis as tables, CSV and JSON.
package struct CostReport: Sendable {
    package enum Detail: String, Sendable, CaseIterable {
        case total, layer, operation
    }

    package let analysis: CostAnalysis
    package let detail: Detail
    package let fit: BudgetFit?

    package init(_ analysis: CostAnalysis, by detail: Detail = .total, fit: BudgetFit? = nil) {
        (self.analysis, self.detail, self.fit) = (analysis, detail, fit)
    }

    /// Remarks for people besides the numbers.
    package var warning: String? {
        guard analysis.plan.isBelowFloor, let floor = analysis.model.units?.floor else { return nil }
        return String(format: "the budget is below the floor %.3g: the prefix layers always run, so this is the cost of the floor", floor)
    }

    // MARK: - Rows

    /// One line of a table.
    struct Row {
        var stage: String
        /// `all`, `layer 3`, `lm_head`, ….
        var part: String
        var operation: String
        var totals: CostTotals
        /// Of sums that in which most of their time goes.
        var bound: RooflineOperation.Bound?
        /// The highest rate that the roofline allows; `nil` for sums.
        var performance: Double?

        var intensity: Double { totals.traffic.total > 0 ? totals.operations / totals.traffic.total : 0 }
    }

    var stages: [(name: String, cost: StageCost)] {
        [("encode", analysis.encode), ("prefill", analysis.prefill), ("decode", analysis.decode)].compactMap { name, cost in
            cost.map { (name, $0) }
        }
    }

    /// For `decode` the first step.
    var rows: [Row] { stages.flatMap { rows($0.name, $0.cost) } }

    private func rows(_ name: String, _ stage: StageCost) -> [Row] {
        if detail == .total { return [Row(stage: name, part: "all", operation: "all", totals: stage.totals, bound: bound(of: stage.parts))] }
        // Layers in their order, although those of one kind were counted together.
        var rows: [(order: Int, row: Row)] = []
        for (place, part) in stage.parts.enumerated() {
            let layers = part.layers.isEmpty ? [nil] : part.layers.map { Optional($0) }
            for layer in layers {
                let label = layer.map { "\(part.name) \($0)" } ?? part.name
                // Parts before or after the layers keep their place.
                let order = layer ?? (stage.parts.prefix(place).contains { !$0.layers.isEmpty } ? Int.max : -1)
                if detail == .layer {
                    let totals = part.operations.reduce(into: CostTotals()) { $0.add($1) }
                    rows.append((order, Row(stage: name, part: label, operation: "all", totals: totals, bound: bound(of: [part]))))
                } else {
                    rows += part.operations.map { operation in
                        var totals = CostTotals()
                        totals.add(operation)
                        return (
                            order,
                            Row(
                                stage: name, part: label, operation: operation.name, totals: totals, bound: operation.bound,
                                performance: operation.performance)
                        )
                    }
                }
            }
        }
        // `sorted` is stable.
        return rows.sorted { $0.order < $1.order }.map(\.row)
    }

    /// The bound of most of the time of some parts; `nil` if they take none.
    private func bound(of parts: [CostPart]) -> RooflineOperation.Bound? {
        var (memory, compute) = (0.0, 0.0)
        for part in parts {
            for operation in part.operations {
                let time = operation.time * Double(max(part.layers.count, 1))
                if operation.bound == .memory { memory += time } else { compute += time }
            }
        }
        return memory + compute > 0 ? memory >= compute ? .memory : .compute : nil
    }

    // MARK: - CSV

    /// Comma-separated values, numbers in full: operations, bytes, seconds.
    package var csv: String {
        let header =
            "stage,part,operation,OPs,memory_access,arithmetic_intensity,performance,bound,load_weight,load_act,store_act,load_kv_cache,store_kv_cache,inference_time"
        let lines = rows.map { row in
            let traffic = row.totals.traffic
            let numbers = [
                traffic.loadWeight, traffic.loadActivation, traffic.storeActivation, traffic.loadKeyValue, traffic.storeKeyValue, row.totals.time,
            ]
            return ([
                row.stage, row.part, row.operation, number(row.totals.operations), number(traffic.total), number(row.intensity),
                row.performance.map(number) ?? "", row.bound?.rawValue ?? "",
            ] + numbers.map(number)).joined(separator: ",")
        }
        return ([header] + lines).joined(separator: "\n")
    }

    private func number(_ value: Double) -> String {
        value == value.rounded() && abs(value) < 1e15 ? String(format: "%.0f", value) : "\(value)"
    }

    // MARK: - Table

    /// Lines for people.
    package var lines: [String] {
        let (request, settings, plan) = (analysis.request, analysis.settings, analysis.plan)
        let running = plan.shares.count { !$0.isSkipped }
        let (heads, all) = (plan.shares.reduce(0) { $0 + $1.heads }, plan.shares.count { $0.kind != .convolution } * analysis.model.configuration.language.numAttentionHeads)
        var lines = [
            "\(analysis.model.name) on \(analysis.hardware.name), \(analysis.formula.rawValue) formula",
            "prompt \(settings.promptTokens), generate \(settings.generatedTokens), batch \(settings.batchSize); weights \(CostReport.bits(settings.storedWeightBits)), activations \(settings.activationBits), KV \(settings.cacheBits) bits\(settings.flashAttention ? ", flash attention" : "")\(settings.tensorParallel > 1 ? "; one of \(settings.tensorParallel) devices" : "")",
            "plan: \(running) of \(plan.shares.count) layers, \(heads) of \(all) heads", "",
        ]
        let table = [["", "value", ""]] + [
            ["flops", CostReport.short(request.flops), "prompt and \(settings.generatedTokens) tokens"],
            ["avg_flops", CostReport.short(request.averageFlops), "each generated token"],
            ["prefill_flops", CostReport.short(request.prefillFlops), ""],
            ["prefill_time", CostReport.milliseconds(request.prefillTime), ""],
            ["memory_consumption", CostReport.short(request.memoryConsumption) + "B", analysis.formula == .exact ? "peak" : "sum over all steps"],
            ["prefill_memory_consumption", CostReport.short(request.prefillMemoryConsumption) + "B", ""],
            ["ttft", CostReport.milliseconds(analysis.timeToFirstToken), analysis.encode == nil ? "prefill" : "encode and prefill"],
            ["time_per_token", analysis.timePerToken.map(CostReport.milliseconds) ?? "none", "mean of the decode steps"],
            ["total_time", CostReport.milliseconds(analysis.wholeTime), ""],
        ]
        lines += CostReport.aligned(Array(table.dropFirst()), textColumns: [0, 2]) + [""]
        let header = ["stage", "part", "operation", "OPs", "bytes", "OPs/byte", "bound", "time"]
        lines += CostReport.aligned(
            [header]
                + rows.map { row in
                    [
                        row.stage, row.part, row.operation, CostReport.short(row.totals.operations),
                        CostReport.short(row.totals.traffic.total) + "B", CostReport.short(row.intensity), row.bound?.rawValue ?? "",
                        CostReport.milliseconds(row.totals.time),
                    ]
                }, textColumns: [0, 1, 2, 6])
        if let fit { lines += ["", fitLine(fit)] }
        return lines
    }

    private func fitLine(_ fit: BudgetFit) -> String {
        let what = fit.goal == .firstToken ? "the first token" : "the whole answer"
        let limit = CostReport.milliseconds(fit.limit / .seconds(1))
        let time = CostReport.milliseconds(fit.seconds)
        if let budget = fit.budget {
            return "fit: --budget \(budget) brings \(what) in \(time), within \(limit)"
        }
        if let floor = fit.analysis.model.units?.floor {
            return "fit: nothing fits \(limit): even the floor, --budget \(String(format: "%.3g", floor)), brings \(what) in \(time)"
        }
        return "fit: nothing fits \(limit): the model has no scheduler, so it always runs whole and brings \(what) in \(time)"
    }

    /// `16`, `8.5`.
    static func bits(_ bits: Double) -> String { String(format: "%g", bits) }

    private static func milliseconds(_ seconds: Double) -> String { String(format: "%.4g ms", seconds * 1000) }

    /// Columns with two spaces between them, numbers to the right.
    static func aligned(_ rows: [[String]], textColumns: Set<Int>) -> [String] {
        let columns = rows.map(\.count).max() ?? 0
        let widths = (0 ..< columns).map { column in rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0 }
        return rows.map { row in
            let cells = row.enumerated().map { column, cell in
                let space = String(repeating: " ", count: widths[column] - cell.count)
                return textColumns.contains(column) ? cell + space : space + cell
            }
            let line = cells.joined(separator: "  ")
            return String(line.reversed().drop { $0 == " " }.reversed())
        }
    }

    /// The reference's short form: `8.0T`, `13.4G`, `0.08`.
    package static func short(_ value: Double) -> String {
        for (scale, unit) in [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K")] where value > scale {
            return String(format: value > 100 * scale ? "%.0f" : "%.1f", value / scale) + unit
        }
        return String(format: value >= 1 ? "%.1f" : "%.2f", value)
    }
}
