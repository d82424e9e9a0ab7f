extension AdaptiveModel {
    /// An image's input of the decoder, `[tokens, hidden]`: the vision tower's features after token selection and the projector, tile after
    /// tile. Features that are known
    /// of an earlier request are not computed again.
    /// - Throws: ``GenerationError``, ``ComputeError``, `CancellationError` within one layer.
    package func features(of image: PreparedImage) async throws -> [[Float]] {
        let image = try loaded.image(image)
        let cancellation = Cancellation()
        return try await withTaskCancellationHandler {
            try await requests.exclusively { engine in
                try cancellation.check()
                let features: Tensor
                if let known = engine.featureCache.find(image.key) { features = known } else {
                    features = try engine.encode(image, cancellation: cancellation)
                    engine.featureCache.insert(image.key, features)
                }
                return (0 ..< features.rows).map(features.row)
            }
        } onCancel: {
            cancellation.cancel()
        }
    }
}
