/// What a model is busy with.
public struct ModelLoad: Sendable, Equatable {
    /// Requests that are computed together now.
    public internal(set) var runningRequests = 0
    /// Requests that wait to be computed.
    public internal(set) var waitingRequests = 0
    /// Bytes that keys and values take, those kept of earlier prompts included.
    public internal(set) var keyValueBytes = 0
    /// The most bytes that keys and values may take.
    public internal(set) var keyValueLimit = 0
    /// Bytes of keys and values for one position, with everything on.
    public internal(set) var keyValueBytesPerToken = 1
    /// Positions of one page of keys and values.
    public internal(set) var pageLength = 1
    /// Heads and MLP groups that any of the answers runs, of all: what a step reads of the weights.
    public internal(set) var planUnion = 0.0
    /// Bytes kept of earlier prompts and of images' features.
    public internal(set) var promptCacheBytes = 0, featureCacheBytes = 0
}

extension Engine {
    /// - Parameter tasks: requests that the next step takes further.
    func load(_ tasks: [GenerationTask]) -> ModelLoad {
        var load = ModelLoad()
        load.runningRequests = tasks.count
        (load.keyValueBytes, load.keyValueLimit) = (runner.pages.usedBytes, runner.pages.limit)
        load.keyValueBytesPerToken = max(runner.keyValueBytes(positions: KeyValueLayout.slots) / KeyValueLayout.slots, 1)
        load.pageLength = KeyValueLayout.slots
        (load.promptCacheBytes, load.featureCacheBytes) = (promptCache.byteCount, featureCache.byteCount)
        return load
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
