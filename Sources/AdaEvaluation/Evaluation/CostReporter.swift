import AdaLLaVA

/// Calculated cost of one request, under the names of the reference's lmms-eval runs: operations, seconds, bytes.
package struct RequestCost: Codable, Sendable, Equatable {
    /// Operations of the prompt and all generated tokens.
    package var flops: Double
    /// Operations for each generated token.
    package var averageFlops: Double
    package var prefillFlops: Double
    /// Seconds.
    package var prefillTime: Double
    /// Bytes.
    package var memoryConsumption: Double
    package var prefillMemoryConsumption: Double

    package init(
        flops: Double, averageFlops: Double, prefillFlops: Double, prefillTime: Double, memoryConsumption: Double,
        prefillMemoryConsumption: Double
    ) {
        (self.flops, self.averageFlops, self.prefillFlops) = (flops, averageFlops, prefillFlops)
        (self.prefillTime, self.memoryConsumption) = (prefillTime, memoryConsumption)
        self.prefillMemoryConsumption = prefillMemoryConsumption
    }

    /// - Returns: `nil` without costs.
    init?(meanOf costs: [RequestCost]) {
        func mean(_ value: (RequestCost) -> Double) -> Double { costs.map(value).mean ?? 0 }
        if costs.isEmpty { return nil }
        self.init(
            flops: mean(\.flops), averageFlops: mean(\.averageFlops), prefillFlops: mean(\.prefillFlops), prefillTime: mean(\.prefillTime),
            memoryConsumption: mean(\.memoryConsumption), prefillMemoryConsumption: mean(\.prefillMemoryConsumption))
    }

    enum CodingKeys: String, CodingKey {
        case flops
        case averageFlops = "avg_flops"
        case prefillFlops = "prefill_flops"
        case prefillTime = "prefill_time"
        case memoryConsumption = "memory_consumption"
        case prefillMemoryConsumption = "prefill_memory_consumption"
    }

    /// Each key with its value, in the reference's order.
    static let fields: [(name: String, value: @Sendable (RequestCost) -> Double)] = [
        ("flops", { $0.flops }), ("avg_flops", { $0.averageFlops }), ("prefill_flops", { $0.prefillFlops }),
        ("prefill_time", { $0.prefillTime }), ("memory_consumption", { $0.memoryConsumption }),
        ("prefill_memory_consumption", { $0.prefillMemoryConsumption }),
    ]
}

/// Calculates the cost of an answered request; the evaluation reports the means. `nil` omits the keys.
package protocol CostReporter: Sendable {
    /// Names the model shape, the hardware and the formula, so that answers costed in another way are not mixed in one run.
    var description: String { get }

    /// - Parameters:
    ///   - plan: the plan that ran.
    ///   - promptTokens: positions of the prompt, image tokens included, the latency token not.
    ///   - imageTokens: those of them that hold features of images.
    ///   - generatedTokens: the ending token included.
    func cost(plan: ExecutionPlan, promptTokens: Int, imageTokens: Int, generatedTokens: Int) throws -> RequestCost
}
