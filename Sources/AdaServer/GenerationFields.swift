import AdaLLaVA
import Foundation
import HTTPTypes

/// Generation options that requests of every API share.
struct GenerationFields: Sendable {
    var options = GenerationOptions()
    /// Answers to the same prompt.
    var choices = 1
    /// When the request arrived: times count from here.
    let arrived = ContinuousClock.now
    private(set) var asked = Budget.full
    private var deadline: Date?
    /// Lower ones are answered first.
    var priority = 0

    /// Takes budget, sampling and lengths out of a request.
    /// - Parameters:
    ///   - maxTokens: names of the longest answer's field, the first of them being the one that wins.
    ///   - standard: the longest answer if none is given.
    init(_ fields: inout RequestFields, headers: HTTPFields, maxTokens: [String], standard: Int) throws {
        let lengths = try maxTokens.compactMap { try fields.integer($0, in: 1 ... .max) }
        options.maxTokens = lengths.first ?? standard
        let least = try fields.integer("min_tokens", in: 0 ... options.maxTokens) ?? 0
        options.minTokens = try fields.bool("ignore_eos") ?? false ? options.maxTokens : least
        options.sampling.temperature = try fields.number("temperature") ?? 0
        options.sampling.topP = try fields.number("top_p") ?? 1
        // -1 means all tokens to vLLM's clients.
        options.sampling.topK = max(try fields.integer("top_k", in: -1 ... .max) ?? 0, 0)
        options.sampling.minP = try fields.number("min_p") ?? 0
        options.sampling.repetitionPenalty = try fields.number("repetition_penalty") ?? 1
        options.sampling.seed = try fields.integer("seed").map { UInt64(bitPattern: Int64($0)) }
        options.stop = try Self.stop(&fields, "stop")
        choices = try fields.integer("n", in: 1 ... 16) ?? 1
        try options.validate()
        priority = try fields.integer("priority") ?? 0
        asked = try Self.budget(&fields, headers)
        if let milliseconds = try fields.integer("deadline_unix_ms", in: 0 ... .max) {
            let isTaken = switch asked {
            case .fraction(let fraction): fraction >= 1
            case .time: true
            case .automatic: false
            }
            guard isTaken else {
                throw APIError.parameter("deadline_unix_ms", expected: "no fraction or auto as budget beside it", found: "budget \(asked)")
            }
            deadline = Date(timeIntervalSince1970: Double(milliseconds) / 1000)
            _ = try budget()
        }
    }

    /// Stop texts, as one string or a list.
    static func stop(_ fields: inout RequestFields, _ name: String) throws -> [String] {
        guard let value = fields.take(name) else { return [] }
        if case .string(let text) = value { return [text] }
        guard case .array(let elements) = value, elements.count <= 64 else { throw fields.wrong(name, expected: "a string or up to 64 of them", found: value) }
        return try elements.map { element in
            guard case .string(let text) = element else { throw fields.wrong(name, expected: "strings", found: element) }
            return text
        }
    }

    /// `0.7`, `"400ms"`, `"auto"`, `{"ttft_ms": 150, "tpot_ms": 20, "answer_ms": 400}`; without it, the headers of llm-d's gateways.
    private static func budget(_ fields: inout RequestFields, _ headers: HTTPFields) throws -> Budget {
        guard let value = fields.take("budget") else { return try limits(headers).map(Budget.time) ?? .full }
        switch value {
        case .string(let text): return try Budget(parsing: text)
        case .object:
            var members = try RequestFields(value, path: "budget")
            func milliseconds(_ name: String) throws -> Duration? {
                guard let number = try members.number(name) else { return nil }
                guard let time = duration(milliseconds: number) else {
                    throw APIError.parameter("budget." + name, expected: "milliseconds above 0", found: "\(number)")
                }
                return time
            }
            let limits = TimeLimits(
                answer: try milliseconds("answer_ms"), firstToken: try milliseconds("ttft_ms"), perToken: try milliseconds("tpot_ms"))
            try members.expectNothingElse()
            let budget = Budget.time(limits)
            try budget.validate()
            return budget
        default:
            guard let fraction = value.finiteNumber else {
                throw fields.wrong("budget", expected: #"a fraction such as 0.7, a time such as "400ms", "auto", or {"ttft_ms": 150, "tpot_ms": 20}"#, found: value)
            }
            let budget = Budget.fraction(fraction)
            try budget.validate()
            return budget
        }
    }

    private static func limits(_ headers: HTTPFields) throws -> TimeLimits? {
        func milliseconds(_ name: String) throws -> Duration? {
            guard let field = HTTPField.Name(name), let text = headers[field] else { return nil }
            guard let number = Double(text), let time = duration(milliseconds: number) else {
                throw APIError.parameter(name, expected: "milliseconds above 0", found: text)
            }
            return time
        }
        let limits = TimeLimits(
            firstToken: try milliseconds("x-llm-d-slo-ttft-ms"), perToken: try milliseconds("x-llm-d-slo-tpot-ms"))
        return limits == TimeLimits() ? nil : limits
    }

    private static func duration(milliseconds: Double) -> Duration? {
        guard milliseconds.isFinite, milliseconds > 0, milliseconds < 1e12 else { return nil }
        return .nanoseconds(Int64((milliseconds * 1e6).rounded(.up)))
    }

    /// The request's place among those that wait.
    func order(client: String, _ work: QueuedWork) -> Admission.Order {
        var work = work
        (work.priority, work.called) = (priority, arrived)
        if case .time(let limits) = asked {
            (work.deadline, work.firstTokenDeadline) = (limits.answer.map { arrived + $0 }, limits.firstToken.map { arrived + $0 })
        }
        if let deadline {
            let instant = ContinuousClock.now + .seconds(min(max(deadline.timeIntervalSinceNow, 0), 1e9))
            work.deadline = min(work.deadline ?? instant, instant)
        }
        return Admission.Order(priority: priority, deadline: work.deadline ?? work.firstTokenDeadline, client: client, work: work)
    }

    /// The requested budget less the time since the request arrived.
    /// - Throws: ``APIError`` once the deadline has passed.
    func budget() throws -> Budget {
        let elapsed = ContinuousClock.now - arrived
        var limits = TimeLimits()
        if case .time(let given) = asked { limits = given }
        limits.answer = limits.answer.map { max($0 - elapsed, .microseconds(1)) }
        limits.firstToken = limits.firstToken.map { max($0 - elapsed, .microseconds(1)) }
        if let deadline {
            let left = deadline.timeIntervalSinceNow
            guard left > 0 else {
                throw APIError(
                    .badRequest, "deadline_unix_ms: the deadline passed \(Int((-left * 1000).rounded(.up))) ms ago, so nothing was computed",
                    parameter: "deadline_unix_ms", code: "deadline_passed")
            }
            let time = Duration.milliseconds(Int64(min(left, 1e9) * 1000) + 1)
            limits.answer = min(limits.answer ?? time, time)
        }
        return limits == TimeLimits() ? asked : .time(limits)
    }
}

extension RequestFields {
    /// Accepts fields of OpenAI's and vLLM's clients whose values have no effect.
    mutating func takeNeutral() throws {
        for name in ["frequency_penalty", "presence_penalty"] { try neutral(name) { $0.finiteNumber == 0 } }
        for name in ["length_penalty", "best_of"] { try neutral(name) { $0.finiteNumber == 1 } }
        for name in ["tools", "functions", "stop_token_ids", "bad_words"] { try neutral(name) { $0 == .array([]) } }
        try neutral("logit_bias") { $0 == .object([:]) }
        try neutral("tool_choice") { $0 == .string("none") || $0 == .string("auto") }
        try neutral("modalities") { $0 == .array([.string("text")]) }
        try neutral("service_tier") { $0 == .string("auto") || $0 == .string("default") }
        for name in [
            "store", "use_beam_search", "continue_final_message", "include_stop_str_in_output", "echo", "add_special_tokens",
            "return_hidden_states", "no_stop_trim", "return_token_ids",
        ] {
            try neutral(name) { $0 == .bool(false) }
        }
        for name in ["skip_special_tokens", "spaces_between_special_tokens", "add_generation_prompt"] { try neutral(name) { $0 == .bool(true) } }
        // No answer depends on the user or on related requests.
        for name in ["user", "safety_identifier", "prompt_cache_key", "request_id"] { _ = try string(name) }
        _ = try bool("parallel_tool_calls")
        // No model here keeps its reasoning apart from its answer, so both values mean the same; vllm-router always sends them.
        for name in ["include_reasoning", "separate_reasoning", "stream_reasoning"] { _ = try bool(name) }
        _ = try object("metadata")
    }
}
