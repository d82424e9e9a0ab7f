/// Features of the images that were encoded last, so that a conversation about a picture encodes it once.
struct FeatureCache {
    private var entries: [(pixels: [Float], features: Tensor)] = []
    /// Images that are remembered.
    static let capacity = 8

    /// The features of an image that was encoded before; it moves to the front.
    /// - Parameter pixels: `[3, S, S]` normalized values; equal pixels are the same image.
    mutating func find(_ pixels: [Float]) -> Tensor? {
        guard let index = entries.firstIndex(where: { $0.pixels == pixels }) else { return nil }
        let entry = entries.remove(at: index)
        entries.insert(entry, at: 0)
        return entry.features
    }

    mutating func insert(_ pixels: [Float], _ features: Tensor) {
        entries.insert((pixels, features), at: 0)
        if entries.count > FeatureCache.capacity { entries.removeLast() }
    }
}
