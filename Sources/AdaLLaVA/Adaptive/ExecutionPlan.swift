/// Which switches are on: `[layers][2][heads]`, attention heads (or groups of heads that share keys and values) in the first row of a pair, MLP neuron
/// groups in the second.
///
/// Variant L turns a layer's row on or off as a whole; variant H picks heads and groups. One plan a request, made during prefill
/// (AdaLLaVA, section 3).
public struct ExecutionPlan: Sendable, Equatable {
    /// The switches of one layer.
    public struct Row: Sendable, Equatable {
        /// Attention heads that run, or shares of a convolution's channels, ascending.
        public let heads: [Int]
        /// MLP neuron groups that run, ascending.
        public let groups: [Int]

        /// Both lists ascending, each index once.
        public init(heads: [Int], groups: [Int]) { (self.heads, self.groups) = (heads, groups) }

        /// Nothing of the layer runs: no compute, no keys and values.
        public var isSkipped: Bool { heads.isEmpty && groups.isEmpty }
    }

    /// Attention heads of a layer, and as many neuron groups.
    public let headCount: Int
    /// One row a layer.
    public let rows: [Row]

    /// A plan with given rows, one a layer.
    public init(headCount: Int, rows: [Row]) { (self.headCount, self.rows) = (headCount, rows) }

    /// Everything runs.
    public static func full(layers: Int, heads: Int) -> ExecutionPlan {
        let row = Row(heads: Array(0 ..< heads), groups: Array(0 ..< heads))
        return ExecutionPlan(headCount: heads, rows: Array(repeating: row, count: layers))
    }

    /// The parts of each layer that run, for the kernels.
    package func selections(_ space: SwitchSpace, _ decoder: Decoder) -> [LayerSelection] {
        zip(rows, space.layers).map { row, switches in
            if row.heads.count == headCount, row.groups.count == headCount { return decoder.whole }
            let neurons = row.groups.map { switches.neurons[$0] }
            if switches.kind == .convolution {
                return LayerSelection(channels: row.heads.map { switches.heads[$0] }, neurons: neurons, decoder.configuration)
            }
            return LayerSelection(heads: row.heads.flatMap { Array(switches.heads[$0]) }, neurons: neurons, decoder.configuration)
        }
    }

    /// 1 for a switch that is on, `layers * 2 * heads` values.
    public var mask: [Float] {
        rows.flatMap { row -> [Float] in
            var mask = [Float](repeating: 0, count: 2 * headCount)
            for head in row.heads where head < headCount { mask[head] = 1 }
            for group in row.groups where group < headCount { mask[headCount + group] = 1 }
            return mask
        }
    }

    /// Attention heads that run, by layer.
    public var headsPerLayer: [Int] { rows.map(\.heads.count) }
    /// MLP neuron groups that run, by layer.
    public var groupsPerLayer: [Int] { rows.map(\.groups.count) }
}

extension CostPlan {
    /// The plan of a request.
    /// - Parameter plan: one for this model.
    package init(_ plan: ExecutionPlan, of configuration: ModelConfiguration) {
        let space = configuration.switchSpace
        self.init(
            shares: zip(plan.rows, space.layers).map {
                LayerShare(attention: $0.heads, groups: $0.groups, of: $1, configuration.language)
            })
    }
}
