import Foundation

/// The immutable parts of a loaded model.
package struct ModelParts: Sendable {
    let name: String
    package let decoder: Decoder
    let vision: VisionPart?
    package let adaptive: AdaptivePart?
    /// The switches that plans turn.
    package let space: SwitchSpace
    /// How the decoder drops image tokens; `nil`: not at all.
    var fastV: FastV?

    /// Vision tower, token selection and projector.
    struct VisionPart: Sendable {
        let tower: any VisionNetwork
        let projector: Projector
        let selection: LlavaConfiguration.TokenSelection
        let keepsClassToken: Bool
        /// Embedding after each row of tiles' features, `[1, hidden]` (LLaVA-1.6).
        let newline: Tensor?
        /// Values of the tower's input, `3 * S * S`.
        let pixels: Int
        /// Rows of features of an input, at least.
        let leastRows: Int
    }

    /// Latency encoder, scheduler and budget head.
    package struct AdaptivePart: Sendable {
        package let encoder: LatencyEncoder
        package let scheduler: Scheduler
        package let units: BudgetUnits
        /// Predicts the need of an input for budgets of `auto`; `nil` in a checkpoint without one.
        let budgetHead: BudgetHead?
    }

    /// Layers that always run: all of them without a scheduler.
    package var prefixLayers: Int { adaptive?.scheduler.configuration.numPrefixLayers ?? decoder.layers.count }

    /// Whether layers keep states of convolutions, which no position can be taken back from.
    var hasConvolutions: Bool { decoder.layers.indices.contains { decoder.configuration.kind($0) == .convolution } }

    /// Everything runs.
    package var fullPlan: ExecutionPlan { .full(layers: space.layers.count, heads: space.switchesPerLayer) }

    /// The units that a fraction grants; `nil` for budgets whose units are chosen after the prefix layers, and without a scheduler.
    /// - Throws: ``BudgetError``
    package func grantedUnits(_ budget: Budget) throws -> Int? {
        guard let fraction = try budget.validFraction() else {
            if case .automatic = budget, adaptive?.budgetHead == nil { throw BudgetError.noBudgetHead(model: name) }
            return nil
        }
        guard let adaptive else {
            if fraction < 1 { throw BudgetError.notAdaptive(budget: Double(fraction), model: name) }
            return nil
        }
        return adaptive.units.granted(fraction: fraction)
    }

    /// - Throws: ``GenerationError`` for a request that cannot be answered.
    func check(_ request: EngineRequest) throws {
        let vocabulary = decoder.configuration.vocabularySize
        if request.tokens.isEmpty { throw GenerationError.emptyPrompt }
        for (index, token) in request.tokens.enumerated() where token != Engine.imageToken && !(0 ..< vocabulary).contains(token) {
            throw GenerationError.token(token, position: index, vocabulary: vocabulary)
        }
        let marks = request.tokens.count { $0 == Engine.imageToken }
        if marks != request.images.count { throw GenerationError.imageCount(marks: marks, images: request.images.count) }
        if let plan = request.plan { try check(plan) }
        if marks > 0, vision == nil { throw GenerationError.noVision(model: name) }
    }

    /// Positions of a checked request's prompt, at least: the number of selected image tokens is known only after encoding.
    func leastPositions(_ request: EngineRequest) -> Int {
        request.tokens.count + request.images.reduce(0) { $0 + $1.positions(leastRows: vision?.leastRows ?? 0) - 1 }
    }

    /// A plan from outside: of this model's shape, and with the prefix running whole.
    private func check(_ plan: ExecutionPlan) throws {
        guard let adaptive else { throw GenerationError.plan(reason: "\(name) is not adaptive, so everything runs") }
        let (layers, switches) = (space.layers.count, space.switchesPerLayer)
        guard plan.rows.count == layers, plan.headCount == switches else {
            throw GenerationError.plan(
                reason: "expected \(layers) layers of \(switches) heads, found \(plan.rows.count) of \(plan.headCount)")
        }
        for (layer, row) in plan.rows.enumerated() {
            for (what, indices) in [("heads", row.heads), ("groups", row.groups)] {
                let ascends = zip(indices, indices.dropFirst()).allSatisfy { $0 < $1 }
                guard ascends, indices.allSatisfy({ (0 ..< plan.headCount).contains($0) }) else {
                    throw GenerationError.plan(
                        reason: "layer \(layer): expected \(what) from 0 to \(plan.headCount - 1), ascending, found \(indices)")
                }
                if layer < adaptive.scheduler.configuration.numPrefixLayers, indices.count < plan.headCount {
                    throw GenerationError.plan(reason: "layer \(layer) is a prefix layer and always runs whole")
                }
            }
        }
    }
}

/// The most memory that an engine takes beside its weights, in bytes.
struct MemoryLimits: Sendable {
    /// Pages of keys and values in use.
    var keyValueBytes: Int
    /// What they are stored as.
    var keyValueType = KeyValueType.f16
    /// Free pages that are kept for the next sequences.
    var spareBytes = 512 << 20
    /// Bytes of cached prompts.
    var promptCacheBytes: Int
    /// Features of earlier images.
    var featureCacheBytes = 256 << 20

    /// Nine tenths of the machine's free memory for keys and values, a quarter of that for cached prompts.
    init() {
        let free = SystemMemory.availableBytes
        keyValueBytes = free / 10 * 9
        promptCacheBytes = min(free / 4, 4 << 30)
    }
}

/// The system's report of its memory.
enum SystemMemory {
    /// Bytes that programs can still take without swapping; a container's limit counts.
    static var availableBytes: Int {
        var available = Int(clamping: ProcessInfo.processInfo.physicalMemory)
        if let text = try? String(contentsOfFile: "/proc/meminfo", encoding: .utf8),
            let line = text.split(separator: "\n").first(where: { $0.hasPrefix("MemAvailable:") }),
            let kilobytes = line.split(separator: " ").dropFirst().first.flatMap({ Int($0) })
        {
            available = min(available, kilobytes << 10)
        }
        for (limit, used) in [
            ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
        ] {
            guard let limit = number(limit), let used = number(used) else { continue }
            available = min(available, max(limit - used, 0))
        }
        return available
    }

    private static func number(_ path: String) -> Int? {
        (try? String(contentsOfFile: path, encoding: .utf8)).flatMap { Int($0.trimmingCharacters(in: .whitespacesAndNewlines)) }
    }
}
