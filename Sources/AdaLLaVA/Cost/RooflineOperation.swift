/// One operation of a model under the roofline model (Williams et al., 2009; for language models Yuan et al., "LLM Inference Unveiled:
/// Survey and Roofline Model Insights", 2024): arithmetic and memory traffic overlap, so the slower of the two sets the time.
package struct RooflineOperation: Sendable, Equatable {
    package enum Bound: String, Sendable {
        case memory, compute
    }

    /// As the reference calls it: `q_proj`, `qk_matmul`, `mlp_norm`, ….
    package let name: String
    /// Floating-point or integer operations; a multiply-add counts as two.
    package let operations: Double
    /// Bytes that move between memory and the processor.
    package let traffic: Traffic
    /// Operations a second that the hardware does at most in this operation's arithmetic.
    package let peak: Double
    /// Bytes a second.
    package let bandwidth: Double

    package init(name: String, operations: Double, traffic: Traffic, peak: Double, bandwidth: Double) {
        (self.name, self.operations, self.traffic, self.peak, self.bandwidth) = (name, operations, traffic, peak, bandwidth)
    }

    /// Bytes by kind.
    package struct Traffic: Sendable, Equatable {
        package var loadWeight = 0.0
        package var loadActivation = 0.0
        package var storeActivation = 0.0
        package var loadKeyValue = 0.0
        package var storeKeyValue = 0.0

        package init(
            loadWeight: Double = 0, loadActivation: Double = 0, storeActivation: Double = 0, loadKeyValue: Double = 0, storeKeyValue: Double = 0
        ) {
            (self.loadWeight, self.loadActivation, self.storeActivation) = (loadWeight, loadActivation, storeActivation)
            (self.loadKeyValue, self.storeKeyValue) = (loadKeyValue, storeKeyValue)
        }

        package var total: Double { loadWeight + loadActivation + storeActivation + loadKeyValue + storeKeyValue }

        static func + (left: Traffic, right: Traffic) -> Traffic {
            Traffic(
                loadWeight: left.loadWeight + right.loadWeight, loadActivation: left.loadActivation + right.loadActivation,
                storeActivation: left.storeActivation + right.storeActivation, loadKeyValue: left.loadKeyValue + right.loadKeyValue,
                storeKeyValue: left.storeKeyValue + right.storeKeyValue)
        }

        static func * (left: Traffic, factor: Double) -> Traffic {
            Traffic(
                loadWeight: left.loadWeight * factor, loadActivation: left.loadActivation * factor,
                storeActivation: left.storeActivation * factor, loadKeyValue: left.loadKeyValue * factor,
                storeKeyValue: left.storeKeyValue * factor)
        }
    }

    /// Operations for each byte.
    package var arithmeticIntensity: Double { traffic.total > 0 ? operations / traffic.total : 0 }

    package var bound: Bound { arithmeticIntensity < peak / bandwidth ? .memory : .compute }

    /// Operations a second that the roofline allows.
    package var performance: Double { bound == .memory ? arithmeticIntensity * bandwidth : peak }

    /// Seconds. An operation that only moves bytes (an embedding lookup) takes its traffic's time.
    package var time: Double { bound == .memory ? traffic.total / bandwidth : operations / peak }
}

/// Sums over operations.
package struct CostTotals: Sendable, Equatable {
    package var operations = 0.0
    package var traffic = RooflineOperation.Traffic()
    /// Seconds.
    package var time = 0.0

    package init(operations: Double = 0, traffic: RooflineOperation.Traffic = .init(), time: Double = 0) {
        (self.operations, self.traffic, self.time) = (operations, traffic, time)
    }

    package mutating func add(_ operation: RooflineOperation, times count: Int = 1) {
        operations += operation.operations * Double(count)
        traffic = traffic + operation.traffic * Double(count)
        time += operation.time * Double(count)
    }

    package static func + (left: CostTotals, right: CostTotals) -> CostTotals {
        CostTotals(operations: left.operations + right.operations, traffic: left.traffic + right.traffic, time: left.time + right.time)
    }
}

/// Operations that belong together and occur `count` times: the decoder layers of which the same share runs, or the parts outside the
/// layers.
package struct CostPart: Sendable, Equatable {
    /// `layer`, `vision layer`, `lm_head`, ….
    package let name: String
    /// Indices of the layers; empty outside layers.
    package let layers: [Int]
    package let operations: [RooflineOperation]

    package init(name: String, layers: [Int], operations: [RooflineOperation]) { (self.name, self.layers, self.operations) = (name, layers, operations) }

    package var count: Int { max(layers.count, 1) }
}

/// Bytes of memory that a stage needs.
package struct MemoryFootprint: Sendable, Equatable {
    package var temporaryActivations = 0.0
    package var weights = 0.0
    package var keyValueCache = 0.0

    package init(temporaryActivations: Double = 0, weights: Double = 0, keyValueCache: Double = 0) {
        (self.temporaryActivations, self.weights, self.keyValueCache) = (temporaryActivations, weights, keyValueCache)
    }

    package var total: Double { temporaryActivations + weights + keyValueCache }
}

/// The cost of one stage: encoding images, reading the prompt, or generating one token.
package struct StageCost: Sendable, Equatable {
    package let parts: [CostPart]
    package let memory: MemoryFootprint

    package init(parts: [CostPart], memory: MemoryFootprint) { (self.parts, self.memory) = (parts, memory) }

    package var totals: CostTotals {
        parts.reduce(into: CostTotals()) { totals, part in
            for operation in part.operations { totals.add(operation, times: part.count) }
        }
    }
}
