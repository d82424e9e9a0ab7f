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

    /// What a layer computed of all segments. Single rows of a step share one read of the weights.
    private func counts(_ layer: Int, _ counter: StepCounter) -> StepCounts {
        var counts = StepCounts(), single = StepCounts()
        for (task, segment) in zip(tasks, segments) where segment.layers.contains(layer) {
            guard let share = task.timing?.shares[layer] ?? wholeShare(layer), !segment.sequence.selections[layer].isSkipped else { continue }
            if segment.role == .single {
                single = single.joined(counter.single(share, keys: counter.keys(segment.slot, share.kind)))
                continue
            }
            let rows = segment.slot ..< segment.slot + segment.rows
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
        let first = segments[segment].slot + rows.lowerBound
        let length = tasks[segment].elements.count + (parts.adaptive == nil ? 0 : 1)
        trace.recordLayer(layer, rows: first ..< first + rows.count, of: length, hidden)
    }

    func attention(layer: Int, segment: Int, query: Tensor, key: Tensor) {
        guard let trace = tasks[segment].trace, trace.includesAttention, layer < parts.prefixLayers, parts.adaptive != nil else { return }
        switch tasks[segment].stage {
        case .prefix: trace.keep(keys: key, layer: layer)
        case .latency: trace.recordLatencyAttention(layer: layer, query: query, key: key, parts.decoder.configuration)
        default: break
        }
    }
}

extension Trace {
    /// Records what the latency token attends to in a layer, computed beside the attention kernels from the same query and keys, which do not
    /// keep their weights: `latency_attention.N`, `[heads, positions]`, each head's weights adding up to 1.
    fileprivate func recordLatencyAttention(layer: Int, query: Tensor, key: Tensor, _ c: DecoderConfiguration) {
        keep(keys: key, layer: layer)
        let seen = takeKeys(layer: layer)
        let (width, queries) = (key.columns, query.row(0)), count = seen.count / max(width, 1)
        let scale = c.attentionScale
        // A window leaves the first positions out: their weight is 0.
        let first = c.window(layer).map { max(count - $0, 0) } ?? 0
        var all: [Float] = []
        for head in 0 ..< c.numAttentionHeads {
            let offset = head / (c.numAttentionHeads / c.numKeyValueHeads) * c.headDim
            let scores = (first ..< count).map { place in
                (0 ..< c.headDim).reduce(Float(0)) { $0 + queries[head * c.headDim + $1] * seen[place * width + offset + $1] } * scale
            }
            let largest = scores.max() ?? 0
            let exponentials = scores.map { exp($0 - largest) }
            let sum = exponentials.reduce(0, +)
            all += Array(repeating: 0, count: first) + exponentials.map { $0 / sum }
        }
        record("latency_attention.\(layer)", all, shape: [c.numAttentionHeads, count])
    }
}
