import AdaLLaVA
import Foundation
import Synchronization

/// Counts and times of a server, as Prometheus reads them (text format 0.0.4): under vLLM's names, so that gateways and dashboards know them, and our own.
final class Metrics: Sendable {
    /// Counts by upper bounds.
    struct Histogram {
        let bounds: [Double]
        private var counts: [Int]
        private var sum = 0.0

        init(_ bounds: [Double]) {
            self.bounds = bounds
            counts = Array(repeating: 0, count: bounds.count + 1)
        }

        mutating func add(_ value: Double) {
            guard value.isFinite else { return }
            counts[bounds.firstIndex { value <= $0 } ?? bounds.count] += 1
            sum += value
        }

        func lines(_ name: String, _ labels: String) -> [String] {
            var total = 0
            var lines: [String] = []
            for (bound, count) in zip(bounds + [.infinity], counts) {
                total += count
                lines.append("\(name)_bucket{\(labels),le=\"\(bound == .infinity ? "+Inf" : "\(bound)")\"} \(total)")
            }
            return lines + ["\(name)_sum{\(labels)} \(sum)", "\(name)_count{\(labels)} \(total)"]
        }
    }

    private struct State {
        var firstToken = Histogram([0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160])
        var betweenTokens = Histogram([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5])
        var whole = Histogram([0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480])
        var budget = Histogram([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1])
        var predicted = Histogram([0.25, 0.5, 0.75, 0.9, 0.95, 1, 1.05, 1.1, 1.25, 1.5, 2, 4])
        var promptTokens = 0, answerTokens = 0, cachedTokens = 0
        var missed = 0, shrunk = 0
        var finished: [String: Int] = [:]
        var refused: [Int: Int] = [:]
        /// Tokens given in the newest seconds, for the rate.
        var recent: [(time: ContinuousClock.Instant, tokens: Int)] = []
    }
    private let state = Mutex(State())

    /// One answer was given.
    /// - Parameter model: the one that gave it.
    func add(_ summary: AnswerSummary, _ model: AdaptiveModel) {
        let seconds = { (time: Duration) in time / .seconds(1) }
        state.withLock { state in
            state.firstToken.add(seconds(summary.measured.timeToFirstToken))
            if summary.tokens.count > 1 { state.betweenTokens.add(seconds(summary.measured.decode) / Double(summary.tokens.count - 1)) }
            state.whole.add(seconds(summary.measured.whole))
            if let units = summary.units, let fraction = model.fraction(buying: units) { state.budget.add(fraction) } else { state.budget.add(1) }
            if let predicted = summary.prediction?.times.timeToFirstToken, predicted > .zero {
                state.predicted.add(summary.measured.timeToFirstToken / predicted)
            }
            if case .time = summary.budget, summary.warning != nil { state.missed += 1 }
            if summary.shrunkFrom != nil { state.shrunk += 1 }
            state.promptTokens += summary.promptTokens
            state.cachedTokens += summary.cachedTokens.prefix
            state.answerTokens += summary.tokens.count
            state.finished[summary.finish.openAI, default: 0] += 1
            state.recent.append((.now, summary.tokens.count))
            Self.forget(&state)
        }
    }

    /// A request was answered with an error.
    func addError(_ status: Int) { state.withLock { $0.refused[status, default: 0] += 1 } }

    private static let window = Duration.seconds(10)

    private static func forget(_ state: inout State) {
        let now = ContinuousClock.now
        state.recent.removeAll { now - $0.time > window }
    }

    /// Tokens of answers a second over the newest ten, and the share of prompts' positions that earlier requests had computed.
    var rates: (tokensPerSecond: Double, cacheHits: Double) {
        state.withLock { state in
            Self.forget(&state)
            let tokens = state.recent.reduce(0) { $0 + $1.tokens }
            return (Double(tokens) / (Self.window / .seconds(1)), state.promptTokens > 0 ? Double(state.cachedTokens) / Double(state.promptTokens) : 0)
        }
    }

    /// All of it as text.
    func text(_ name: String, _ load: ModelLoad, _ counts: (running: Int, waiting: Int)) -> String {
        let label = "model_name=\"\(Self.escaped(name))\""
        var lines: [String] = []
        func metric(_ name: String, _ type: String, _ help: String, _ values: [String]) {
            lines += ["# HELP \(name) \(help)", "# TYPE \(name) \(type)"] + values
        }
        func one(_ name: String, _ type: String, _ help: String, _ value: some LosslessStringConvertible, _ more: String = "") {
            metric(name, type, help, ["\(name){\(label)\(more)} \(value)"])
        }
        one("vllm:num_requests_running", "gauge", "Answers that are being computed.", counts.running)
        one("vllm:num_requests_waiting", "gauge", "Requests that wait to be computed.", counts.waiting)
        let usage = load.keyValueLimit > 0 ? Double(load.keyValueBytes) / Double(load.keyValueLimit) : 0
        one("vllm:kv_cache_usage_perc", "gauge", "Memory of keys and values in use; 1 is all of it.", usage)
        let pages = load.keyValueLimit / max(load.keyValueBytesPerToken * load.pageLength, 1)
        one(
            "vllm:cache_config_info", "gauge", "Positions of a page of keys and values, pages that there can be, and how they are stored.", 1,
            ",block_size=\"\(load.pageLength)\",num_gpu_blocks=\"\(pages)\",cache_dtype=\"\(load.keyValueType.rawValue)\"")
        state.withLock { state in
            one("vllm:prompt_tokens_total", "counter", "Positions of prompts.", state.promptTokens)
            one("vllm:generation_tokens_total", "counter", "Tokens of answers.", state.answerTokens)
            one("vllm:prefix_cache_queries_total", "counter", "Positions that were looked for among earlier prompts.", state.promptTokens)
            one("vllm:prefix_cache_hits_total", "counter", "Positions that were found there.", state.cachedTokens)
            metric(
                "vllm:request_success_total", "counter", "Answers that were given, by what ended them.",
                ["stop", "length"].map { "vllm:request_success_total{\(label),finished_reason=\"\($0)\"} \(state.finished[$0] ?? 0)" })
            metric("vllm:time_to_first_token_seconds", "histogram", "From the call to the first token.", state.firstToken.lines("vllm:time_to_first_token_seconds", label))
            metric("vllm:inter_token_latency_seconds", "histogram", "From token to token, mean of an answer.", state.betweenTokens.lines("vllm:inter_token_latency_seconds", label))
            metric("vllm:e2e_request_latency_seconds", "histogram", "From the call to the last token.", state.whole.lines("vllm:e2e_request_latency_seconds", label))
            metric("adallava_budget", "histogram", "Fraction of the full model's compute that answers were granted.", state.budget.lines("adallava_budget", label))
            metric("adallava_predicted_ratio", "histogram", "Measured over predicted time to the first token.", state.predicted.lines("adallava_predicted_ratio", label))
            one("adallava_deadline_missed_total", "counter", "Answers that kept a time budget's limits not.", state.missed)
            one("adallava_budget_shrunk_total", "counter", "Answers whose budget was made smaller because other requests needed the time.", state.shrunk)
            metric(
                "adallava_errors_total", "counter", "Requests that were answered with an error, by status.",
                state.refused.sorted { $0.key < $1.key }.map { "adallava_errors_total{\(label),status=\"\($0.key)\"} \($0.value)" })
        }
        one("adallava_plan_union_ratio", "gauge", "Heads and MLP groups that any answer under way runs, of all.", load.planUnion)
        one("adallava_prompt_cache_bytes", "gauge", "Memory that earlier prompts take.", load.promptCacheBytes)
        one("adallava_feature_cache_bytes", "gauge", "Memory that earlier images' features take.", load.featureCacheBytes)
        return lines.joined(separator: "\n") + "\n"
    }

    private static func escaped(_ text: String) -> String {
        text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
    }
}
