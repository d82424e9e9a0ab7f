/// What a model computes with, for reports of measured times.
extension AdaptiveModel {
    /// Threads, the caller's included.
    public var threads: Int { loaded.engine.backend.pool.threads }

    /// The name of the kernels in use: `portable`, `avx2`, `avx512`, `neon`.
    public var kernels: String { loaded.engine.backend.kernels.name.map { String(cString: $0) } ?? "unknown" }
}
