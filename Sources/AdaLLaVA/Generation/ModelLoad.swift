/// Load of a model.
package struct ModelLoad: Sendable, Equatable {
    /// Requests that are computed together now.
    package internal(set) var runningRequests = 0
    /// Requests that wait to be computed.
    package internal(set) var waitingRequests = 0
    /// Positions of prompts that are still to be read, of the requests that are computed.
    package internal(set) var unreadPositions = 0
    /// Bytes that keys and values take, those kept of earlier prompts included.
    package internal(set) var keyValueBytes = 0
    /// The most bytes that keys and values may take.
    package internal(set) var keyValueLimit = 0
    /// How they are stored.
    package internal(set) var keyValueType = KeyValueType.f16
    /// Bytes of keys and values for one position, with everything on.
    package internal(set) var keyValueBytesPerToken = 1
    /// Positions of one page of keys and values.
    package internal(set) var pageLength = 1
    /// Fraction of heads and MLP groups that any of the answers runs, whose weights a step reads.
    package internal(set) var planUnion = 0.0
    /// Bytes kept of earlier prompts and of images' features.
    package internal(set) var promptCacheBytes = 0, featureCacheBytes = 0

    /// Nothing to do.
    package init() {}
}

extension Engine {
    /// - Parameter tasks: requests that the next step takes further.
    func load(_ tasks: [GenerationTask]) -> ModelLoad {
        var load = ModelLoad()
        load.runningRequests = tasks.count
        load.unreadPositions = tasks.reduce(0) { $1.isDone || $1.isDecoding ? $0 : $0 + remaining($1).prefix.count }
        (load.keyValueBytes, load.keyValueLimit) = (runner.pages.usedBytes, runner.pages.limit)
        load.keyValueBytesPerToken = max(runner.keyValueBytes(positions: KeyValueLayout.slots) / KeyValueLayout.slots, 1)
        load.pageLength = KeyValueLayout.slots
        load.keyValueType = runner.keyValueType
        (load.promptCacheBytes, load.featureCacheBytes) = (promptCache.byteCount, featureCache.byteCount)
        return load
    }

    /// Predictions for requests that are not admitted yet; `nil` before this model was measured, so that no guess refuses a request.
    func outlook(_ tasks: [GenerationTask]) -> WorkOutlook? {
        guard let planner, planner.isFitted else { return nil }
        let floor = planner.times(units: 0), loads = planner.load.values
        let prompts = tasks.filter { !$0.isDone && !$0.isDecoding }.map { task in
            (order: task.order, nanoseconds: (planner.predict(remaining(task), floor) * loads).firstToken)
        }
        return WorkOutlook(planner, isAdaptive: parts.adaptive != nil, prompts: prompts)
    }

    /// Bytes of keys and values that so many positions take, with everything on.
    func keyValueBytes(positions: Int) -> Int {
        runner.keyValueBytes(positions: min(positions, parts.decoder.configuration.contextLength))
    }

    /// The share of heads and MLP groups that any of some answers runs.
    func planUnion(_ tasks: [GenerationTask]) -> Double {
        let plans = tasks.filter(\.isDecoding).map(\.result.plan)
        guard let first = plans.first, !first.rows.isEmpty, first.headCount > 0 else { return 0 }
        let kept = first.rows.indices.reduce(0) { sum, layer in
            sum + Set(plans.flatMap { $0.rows[layer].heads }).count + Set(plans.flatMap { $0.rows[layer].groups }).count
        }
        return Double(kept) / Double(2 * first.rows.count * first.headCount)
    }
}
