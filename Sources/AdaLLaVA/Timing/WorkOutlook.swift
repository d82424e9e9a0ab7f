/// Predicts requests that are not admitted yet, outside the engine's thread: a copy of the predictor's state of a few steps ago.
package struct WorkOutlook: Sendable {
    /// Nanoseconds of one request under the smallest plan.
    package struct Floor: Sendable, Equatable {
        /// Images and prompt, and the tokens after the first.
        package var prompt = 0.0, tokens = 0.0
    }

    private let predict: @Sendable (RemainingWork) -> PhaseNanoseconds
    private let lengths: AnswerLengths
    private let isAdaptive: Bool
    /// Prompts that admitted requests still have to read, under the smallest plan.
    private let prompts: [(order: WorkOrder, nanoseconds: Double)]

    init(_ planner: TimePlanner, isAdaptive: Bool, prompts: [(order: WorkOrder, nanoseconds: Double)]) {
        (self.isAdaptive, self.prompts, lengths) = (isAdaptive, prompts, planner.lengths)
        let predict = planner.predictor(units: 0), loads = planner.load.values
        self.predict = { predict($0) * loads }
    }

    /// A request by itself.
    package func floor(_ work: QueuedWork) -> Floor {
        let expected = lengths.expected(kind: work.kind, atMost: max(work.maxTokens, 1))
        let phases = predict(work.remaining(isAdaptive: isAdaptive, tokens: expected))
        return Floor(prompt: phases.firstToken, tokens: phases.decode)
    }

    /// Nanoseconds of the prompts that admitted requests read before one with this order.
    package func before(_ order: WorkOrder) -> Double { prompts.reduce(0) { $1.order < order ? $0 + $1.nanoseconds : $0 } }
}
