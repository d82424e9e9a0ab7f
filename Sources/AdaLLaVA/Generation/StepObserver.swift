import Foundation

/// Listens to one step: progress of prompts, and the intermediates of traced requests.
final class StepObserver: BatchObserver {
    private let tasks: [GenerationTask]
    private let segments: [BatchSegment]
    private let parts: ModelParts
    /// Learns the machine's load from the layers; `nil` where no time is predicted.
    private let planner: TimePlanner?

    init(_ tasks: [GenerationTask], _ segments: [BatchSegment], _ parts: ModelParts, planner: TimePlanner? = nil) {
        (self.tasks, self.segments, self.parts, self.planner) = (tasks, segments, parts, planner)
    }

    var wantsValues: Bool { tasks.contains { $0.trace != nil } }

    func layerEnded(_ event: LayerEvent) {
        if let planner {
            let counts = counts(event.layer, planner.counter)
            planner.load.add(measured: Double(event.nanoseconds), predicted: planner.model.nanoseconds(counts), .prefill)
            planner.onSample?(counts, Double(event.nanoseconds))
            planner.layerNanoseconds += Double(event.nanoseconds)
        }
        for (index, task) in tasks.enumerated() where !task.isDecoding && segments[index].layers.contains(event.layer) {
            if segments[index].sequence.selections[event.layer].isSkipped { continue }
            task.readRows += segments[index].rows
            report(task)
        }
    }

    /// Work of a layer for all segments. Single rows of a step share one read of the weights.
    private func counts(_ layer: Int, _ counter: StepCounter) -> StepCounts {
        var counts = StepCounts(), single = StepCounts()
        for (task, segment) in zip(tasks, segments) where segment.layers.contains(layer) {
            guard let share = task.timing?.shares[layer] ?? wholeShare(layer), !segment.sequence.selections[layer].isSkipped else { continue }
            if segment.role == .single {
                single = single.joined(counter.single(share, keys: counter.keys(segment.slot(in: layer), share.kind)))
                continue
            }
            let rows = segment.slot(in: layer) ..< segment.slot(in: layer) + segment.rows
            let last = segment.output != nil ? Int.max : segment.layers.last { segment.sequence.selections[$0].runsAttention } ?? segment.layers.lowerBound
            if layer < last {
                counts += counter.chunk(share, rows: Double(rows.count), outputs: Double(rows.count), pairs: counter.pairs(rows, share.kind))
            } else {
                let outputs = Double(segment.logitRows)
                counts += counter.chunk(
                    share, rows: layer == last ? Double(rows.count) : outputs, outputs: outputs, pairs: outputs * counter.keys(rows.upperBound - 1, share.kind))
            }
        }
        return counts + single
    }

    private func wholeShare(_ layer: Int) -> LayerShare? { tasks.lazy.compactMap(\.timing).first?.shares[layer] }

    private func report(_ task: GenerationTask) {
        let total = (task.elements.count + (parts.adaptive == nil ? 0 : 1)) * parts.decoder.layers.count
        task.report(.reading(done: min(task.readRows, total), total: total))
    }

    func hiddenStates(layer: Int, segment: Int, rows: Range<Int>, _ hidden: Tensor) {
        guard let trace = tasks[segment].trace, !tasks[segment].isDecoding else { return }
        let (task, segment) = (tasks[segment], segments[segment])
        let first = segment.slot(in: layer) + rows.lowerBound
        let length = segment.sequence.slots(task.elements.count, in: layer) + (parts.adaptive == nil ? 0 : 1)
        trace.recordLayer(layer, rows: first ..< first + rows.count, of: length, hidden)
    }

    func wantsAttention(layer: Int, segment: Int) -> Bool {
        guard tasks[segment].trace?.includesAttention == true, layer < parts.prefixLayers, parts.adaptive != nil else { return false }
        return if case .latency = tasks[segment].stage { true } else { false }
    }

    func attention(layer: Int, segment: Int, _ weights: AttentionWeights) {
        let task = tasks[segment]
        guard let kept = task.dropping?.kept, layer >= parts.fastV?.layer ?? .max else {
            task.trace?.record("latency_attention.\(layer)", weights.values, shape: [weights.heads, weights.keys])
            return
        }
        // Tokens that the layer does not have get weight 0.
        let positions = task.elements.count + 1
        var all = [Float](repeating: 0, count: weights.heads * positions)
        for head in 0 ..< weights.heads {
            for (slot, position) in (kept + [positions - 1]).enumerated() { all[head * positions + position] = weights.values[head * weights.keys + slot] }
        }
        task.trace?.record("latency_attention.\(layer)", all, shape: [weights.heads, positions])
    }
}
