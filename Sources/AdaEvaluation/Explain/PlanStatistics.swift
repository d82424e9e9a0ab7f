import AdaLLaVA

/// The switches that a scheduler decides: optional layers (variant L), or their attention heads and MLP neuron groups (variant H).
package struct PlanSwitches: Sendable, Equatable {
    /// Layers at the front that always run.
    package let prefixLayers: Int
    /// Switches in all.
    package let count: Int

    package init(prefixLayers: Int, count: Int) { (self.prefixLayers, self.count) = (prefixLayers, count) }

    /// Whether a switch is a whole layer, which a plan of as many optional layers says.
    func areLayers(of plan: ExecutionPlan) -> Bool { count == plan.rows.count - prefixLayers }

    /// Which switches are on; per layer attention heads first, then groups.
    func states(of plan: ExecutionPlan) -> [Bool] {
        let optional = plan.rows.dropFirst(prefixLayers)
        if areLayers(of: plan) { return optional.map { !$0.isSkipped } }
        return optional.flatMap { row in
            let (heads, groups) = (Set(row.heads), Set(row.groups))
            return (0 ..< plan.headCount).map(heads.contains) + (0 ..< plan.headCount).map(groups.contains)
        }
    }
}

/// How often each switch of a model is on over some plans.
package struct SwitchFrequencies: Sendable, Equatable {
    package let layers: Int
    /// Attention heads of a layer, and as many MLP groups.
    package let heads: Int
    /// `[layers][2][heads]` in 0 ... 1: attention heads first, then MLP groups.
    package let values: [Double]

    /// - Returns: `nil` without plans, or with plans of several shapes.
    package init?(_ plans: [ExecutionPlan]) {
        guard let first = plans.first, plans.allSatisfy({ $0.rows.count == first.rows.count && $0.headCount == first.headCount }) else { return nil }
        (layers, heads) = (first.rows.count, first.headCount)
        var sums = [Double](repeating: 0, count: layers * 2 * heads)
        for plan in plans { for (index, switched) in plan.mask.enumerated() { sums[index] += Double(switched) } }
        values = sums.map { $0 / Double(plans.count) }
    }

    /// Attention heads (`part` 0) or MLP groups (1) of a layer.
    package func row(layer: Int, part: Int) -> ArraySlice<Double> { values[(layer * 2 + part) * heads ..< (layer * 2 + part + 1) * heads] }

    /// Heads and groups of a layer that run, as a fraction of all of them.
    package func share(layer: Int) -> Double {
        (row(layer: layer, part: 0).reduce(0, +) + row(layer: layer, part: 1).reduce(0, +)) / Double(2 * max(heads, 1))
    }

    /// Scheduler outputs that select the switches that were on most often: one value for each switch that it decides.
    func logits(_ switches: PlanSwitches) -> [Float] {
        let optional = layers - switches.prefixLayers
        if switches.count == optional { return (switches.prefixLayers ..< layers).map { Float(share(layer: $0)) } }
        return values.suffix(optional * 2 * heads).map { Float($0) }
    }
}

/// How much plans differ.
package enum PlanDifference {
    /// Switches that are on in one plan and off in the other.
    package static func hamming(_ a: ExecutionPlan, _ b: ExecutionPlan, _ switches: PlanSwitches) -> Int {
        zip(switches.states(of: a), switches.states(of: b)).count { $0 != $1 }
    }

    /// The mean over all pairs of plans; `nil` with fewer than two.
    ///
    /// Counted by switch: of `n` plans, `k` of which have a switch on, `k (n - k)` pairs differ in it.
    package static func meanHamming(_ plans: [ExecutionPlan], _ switches: PlanSwitches) -> Double? {
        guard plans.count > 1 else { return nil }
        var counts = [Int](repeating: 0, count: switches.count)
        for plan in plans { for (index, isOn) in switches.states(of: plan).enumerated() where isOn && index < counts.count { counts[index] += 1 } }
        let pairs = Double(plans.count) * Double(plans.count - 1) / 2
        return counts.reduce(0.0) { $0 + Double($1) * Double(plans.count - $1) } / pairs
    }

    /// An order in which nothing stays at its place: a random cycle (Sattolo, 1986), so that each input gets another one's plan.
    package static func derangement(count: Int, seed: UInt64) -> [Int] {
        var order = Array(0 ..< count)
        var generator = SplitMix64(seed: seed)
        for last in stride(from: count - 1, to: 0, by: -1) { order.swapAt(last, generator.index(below: last)) }
        return order
    }
}
