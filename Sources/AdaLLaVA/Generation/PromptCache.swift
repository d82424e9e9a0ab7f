/// Cache of prompts' results, by content.
///
/// Pages of the prefix layers do not depend on the budget, and hidden states after the prefix are kept with them; pages of the later layers depend on
/// the plan and are reused only under an equal one. The least recently used entry goes first when there are too many bytes.
final class PromptCache {
    /// One prompt, with the results for its positions.
    final class Entry {
        let elements: [PromptElement]
        let keys: PromptKeys
        /// Results of all layers.
        let state: PromptState
        /// Hidden states after the prefix, `[positions, hidden]`; `nil` where all layers are prefix layers.
        let hidden: Tensor?
        /// The plan that pages after the prefix belong to.
        let plan: ExecutionPlan?
        /// Which rows later layers have; `nil`: all.
        let dropping: TokenDropping?
        let byteCount: Int

        init(elements: [PromptElement], keys: PromptKeys, state: PromptState, hidden: Tensor?, plan: ExecutionPlan?, dropping: TokenDropping? = nil) {
            (self.elements, self.keys, self.state, self.hidden, self.plan) = (elements, keys, state, hidden, plan)
            self.dropping = dropping
            byteCount = state.byteCount + [hidden, dropping?.hidden].compactMap(\.self).reduce(0) { $0 + $1.rows * $1.stride * MemoryLayout<Float>.stride }
                + elements.count * MemoryLayout<PromptElement>.stride
        }
    }

    /// The most bytes that are kept.
    let limit: Int
    private(set) var byteCount = 0
    /// The least recently used first.
    private var entries: [Entry] = []
    private var byKey: [ContentKey: [Entry]] = [:]

    init(limit: Int) { self.limit = limit }

    var count: Int { entries.count }

    /// The entry that shares the longest beginning with a prompt, and how long that is. Equal keys are not believed: elements are compared.
    /// - Parameter plan: that of the entry; `nil` takes any.
    func find(_ elements: [PromptElement], _ keys: PromptKeys, plan: ExecutionPlan? = nil) -> (entry: Entry, length: Int)? {
        var best: (entry: Entry, length: Int)?
        for key in keys.keys.reversed() {
            guard let known = byKey[key] else { continue }
            for entry in known where plan == nil || entry.plan == plan {
                let length = zip(entry.elements, elements).prefix { $0 == $1 }.count
                if length > best?.length ?? 0 { best = (entry, length) }
            }
            if best != nil { break }
        }
        guard let best, best.length >= PromptKeys.length else { return nil }
        touch(best.entry)
        return best
    }

    private func touch(_ entry: Entry) {
        guard let index = entries.firstIndex(where: { $0 === entry }) else { return }
        entries.append(entries.remove(at: index))
    }

    /// Keeps an entry, in place of those that it contains.
    func insert(_ entry: Entry) {
        if entry.byteCount > limit || entry.keys.keys.isEmpty { return }
        for known in entries where known.plan == entry.plan && known.elements.count <= entry.elements.count
            && known.elements.elementsEqual(entry.elements.prefix(known.elements.count))
        {
            remove(known)
        }
        while byteCount + entry.byteCount > limit, evict() {}
        entries.append(entry)
        byteCount += entry.byteCount
        for key in entry.keys.keys { byKey[key, default: []].append(entry) }
    }

    /// Drops the least recently used entry.
    /// - Returns: whether there was one.
    @discardableResult
    func evict() -> Bool {
        guard let oldest = entries.first else { return false }
        remove(oldest)
        return true
    }

    private func remove(_ entry: Entry) {
        entries.removeAll { $0 === entry }
        byteCount -= entry.byteCount
        for key in entry.keys.keys {
            byKey[key]?.removeAll { $0 === entry }
            if byKey[key]?.isEmpty == true { byKey[key] = nil }
        }
    }
}

/// Features of images that were encoded, by content. The least recently used go first when there are too many bytes.
struct FeatureCache {
    private var entries: [ContentKey: (features: Tensor, use: Int)] = [:]
    private var clock = 0
    private(set) var byteCount = 0
    let limit: Int

    init(limit: Int) { self.limit = limit }

    mutating func find(_ key: ContentKey) -> Tensor? {
        guard let known = entries[key] else { return nil }
        clock += 1
        entries[key]?.use = clock
        return known.features
    }

    mutating func insert(_ key: ContentKey, _ features: Tensor) {
        let bytes = { (tensor: Tensor) in tensor.rows * tensor.stride * MemoryLayout<Float>.stride }
        if bytes(features) > limit { return }
        clock += 1
        if let known = entries.updateValue((features, clock), forKey: key) { byteCount -= bytes(known.features) }
        byteCount += bytes(features)
        while byteCount > limit, let oldest = entries.min(by: { $0.value.use < $1.value.use }) {
            byteCount -= bytes(oldest.value.features)
            entries[oldest.key] = nil
        }
    }
}
