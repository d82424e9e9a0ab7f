import AdaLLaVA
import CAdaTorch

/// One sample, ready for the model: images replaced by as many marks as they have features, the latency token put in.
package struct TrainingSample: Sendable, Equatable {
    /// Stands where a row of image features goes.
    package static let imageRow = Int64(AT_IMAGE_ROW)
    /// Stands where the latency token goes.
    package static let latencyToken = Int64(AT_LATENCY_TOKEN)

    package var tokens: [Int64]
    /// As many as tokens; ``TrainingConversation/ignoredLabel`` where nothing is scored.
    package var labels: [Int64]
    /// The question that each token belongs to, from 1, and 0 for the common prefix; empty if there is one question. See
    /// ``SampleAssembly/sample(of:)``.
    package var branches: [Int32] = []
    /// The vision tower's input for all images one after another, `[images, 3, S, S]`; of a frozen tower its features, `[images, rows, width]`.
    package var pixels: [Float]
    package var images: Int
    /// Labels of each row of features, for ``RegionVocabulary``'s slots, `[rows, slots]`; the sample then has no tokens.
    package var regionLabels: [Int32] = []
    /// Tokens that name the content of each row, `[rows, names]`, padded with ``TrainingConversation/ignoredLabel``; empty for none.
    package var regionTokens: [Int32] = []
    /// Optional units that the sample's budget grants, and the latency embedding's value for them.
    package var units = 0
    package var latency: Float = 0
    /// For the Gumbel noise.
    package var seed: UInt64 = 0
    /// The name in messages.
    package var name = ""

    package init(tokens: [Int64], labels: [Int64], pixels: [Float], images: Int) {
        (self.tokens, self.labels, self.pixels, self.images) = (tokens, labels, pixels, images)
    }

    /// Tokens that name the content of rows.
    package var named: Int { regionTokens.count { $0 >= 0 } }

    /// Positions whose next token is scored, or labels of regions.
    package var scored: Int {
        regionLabels.isEmpty
            ? labels.dropFirst().count { $0 != Int64(TrainingConversation.ignoredLabel) } : regionLabels.count { $0 >= 0 } + named
    }
}

/// Samples padded to one length, in the layout of `at_batch`.
package struct TorchBatch: Sendable {
    package let samples: Int
    package let length: Int
    package let scored: Int
    /// Tokens that name the content of rows of features.
    package let named: Int
    let tokens, labels: [Int64]
    let units: [Int32]
    let latency: [Float]
    let seeds: [UInt64]
    let images: Int
    let pixels: [Float]
    let regionLabels, regionTokens: [Int32]
    /// Padding is a branch of its own, so that the common prefix stays first; empty if no sample has branches.
    let branches: [Int32]
    /// Gumbel noise instead of the seeds: for each sample and unit `[switches]`, for heads also `[heads]` and `[heads]`.
    package var noise: [Float]?

    package init(_ samples: [TrainingSample]) {
        self.samples = samples.count
        let length = samples.map(\.tokens.count).max() ?? 0
        self.length = length
        func padded(_ values: [Int64], _ filler: Int32) -> [Int64] {
            values + [Int64](repeating: Int64(filler), count: length - values.count)
        }
        tokens = samples.flatMap { padded($0.tokens, AT_PADDING) }
        labels = samples.flatMap { padded($0.labels, AT_IGNORED_LABEL) }
        scored = samples.reduce(0) { $0 + $1.scored }
        named = samples.reduce(0) { $0 + $1.named }
        units = samples.map { Int32($0.units) }
        latency = samples.map(\.latency)
        seeds = samples.map(\.seed)
        images = samples.reduce(0) { $0 + $1.images }
        pixels = samples.flatMap(\.pixels)
        branches = samples.contains { !$0.branches.isEmpty } ? samples.flatMap { sample in
            let own = sample.branches.isEmpty ? [Int32](repeating: 0, count: sample.tokens.count) : sample.branches
            return own + [Int32](repeating: (own.max() ?? 0) + 1, count: length - own.count)
        } : []
        regionLabels = samples.flatMap(\.regionLabels)
        regionTokens = samples.flatMap(\.regionTokens)
    }
}

/// Results of a batch's forward pass.
package struct BatchResult: Sendable, Equatable {
    /// Negative log-likelihoods, summed over scored positions.
    package var lossSum = 0.0
    /// The distillation term before its weight, summed.
    package var distillSum = 0.0
    /// The naming term before its weight, summed.
    package var namingSum = 0.0
    /// The balance and the ranking term before their weights, each times the scored positions.
    package var balanceSum = 0.0, rankingSum = 0.0
    package var scored = 0
}

extension TorchModel {
    /// How the loss of a step is made.
    package struct StepOptions: Sendable {
        /// Scored positions of the whole step, of all batches and processes: the loss is the mean over them.
        package var scored: Int
        /// Weight of the KL divergence from the full model's predictions to those under the sampled plan; 0 leaves it out.
        package var distillWeight: Float = 0
        package var distillTemperature: Float = 1
        /// Naming tokens of the whole step; their loss is the mean over them.
        package var named = 0
        /// Weight of that loss relative to the language loss; 0: not computed.
        package var namingWeight: Float = 0
        /// Factor of the Gumbel noise on the scheduler's scores: 1 as published; 0 selects the highest scores.
        package var gumbelNoise: Float = 1
        /// Weight of the term that makes plans differ between samples and each of them sure; 0 leaves it out.
        package var balanceWeight: Float = 0
        /// Weight of the term that ranks two plans of each sample by their losses; 0 leaves it out.
        package var rankingWeight: Float = 0

        package init(scored: Int) { self.scored = scored }
    }

    /// Forward and backward of some batches; adds to the gradients.
    /// - Parameters:
    ///   - regionCounts: for each slot of region labels, then for names: labels that something is there, and how many of them were
    ///     recognized; added to.
    ///   - visitor: called with each intermediate tensor and its gradient, in the reference's names; then there is one batch.
    package func accumulate(
        _ batches: [TorchBatch], _ options: StepOptions, regionCounts: UnsafeMutablePointer<Int64>? = nil, visitor: ((String, [Float]) -> Void)? = nil
    ) throws -> [BatchResult] {
        if let vision = configuration.vision {
            let values = vision.architecture == .clip ? 3 * vision.imageSize * vision.imageSize : vision.patches * vision.hiddenSize
            for batch in batches where batch.pixels.count != batch.images * values {
                throw TrainingError.torch(
                    operation: "a batch", reason: "\(batch.images) images of \(values) values each have \(batch.pixels.count)")
            }
        }
        var results = [at_result](repeating: at_result(), count: batches.count)
        let box = visitor.map { Visitor(visit: $0) }
        var settings = at_step_options(
            scored: Double(options.scored), named: Double(max(1, options.named)), naming_weight: options.namingWeight,
            distill_weight: options.distillWeight, distill_temperature: options.distillTemperature,
            gumbel_noise: options.gumbelNoise, balance_weight: options.balanceWeight, ranking_weight: options.rankingWeight, visitor: nil, context: nil, region_counts: regionCounts)
        if let box {
            settings.context = Unmanaged.passUnretained(box).toOpaque()
            settings.visitor = { context, name, values, count in
                guard let context, let name else { return }
                let visitor = Unmanaged<Visitor>.fromOpaque(context).takeUnretainedValue()
                visitor.visit(String(cString: name), Array(UnsafeBufferPointer(start: values, count: Int(count))))
            }
        }
        var raw: [at_batch] = []
        let status = withExtendedLifetime(box) {
            TorchModel.collect(batches[...], into: &raw) { raw in
                library.functions.accumulate(handle, raw, Int32(raw.count), &settings, &results)
            }
        }
        try library.check(status, "the training step")
        return results.map {
            BatchResult(
                lossSum: $0.loss_sum, distillSum: $0.distill_sum, namingSum: $0.naming_sum, balanceSum: $0.balance_sum, rankingSum: $0.ranking_sum,
                scored: Int($0.scored))
        }
    }

    private final class Visitor {
        let visit: (String, [Float]) -> Void
        init(visit: @escaping (String, [Float]) -> Void) { self.visit = visit }
    }

    /// Calls `body` with all batches in C's layout while their arrays are held in place, one nesting level for each batch.
    private static func collect<Result>(
        _ batches: ArraySlice<TorchBatch>, into raw: inout [at_batch], _ body: ([at_batch]) -> Result
    ) -> Result {
        guard let batch = batches.first else { return body(raw) }
        return batch.tokens.withUnsafeBufferPointer { tokens in
            batch.labels.withUnsafeBufferPointer { labels in
                batch.units.withUnsafeBufferPointer { units in
                    batch.latency.withUnsafeBufferPointer { latency in
                        batch.seeds.withUnsafeBufferPointer { seeds in
                            batch.pixels.withUnsafeBufferPointer { pixels in
                                (batch.noise ?? []).withUnsafeBufferPointer { noise in
                                    batch.regionLabels.withUnsafeBufferPointer { regions in
                                        batch.regionTokens.withUnsafeBufferPointer { names in
                                            batch.branches.withUnsafeBufferPointer { branches in
                                            raw.append(
                                                at_batch(
                                                    samples: Int32(batch.samples), length: Int32(batch.length), tokens: tokens.baseAddress,
                                                    labels: labels.baseAddress, units: units.baseAddress, latency: latency.baseAddress,
                                                    seeds: seeds.baseAddress, branches: batch.branches.isEmpty ? nil : branches.baseAddress, noise: batch.noise == nil ? nil : noise.baseAddress,
                                                    noise_count: Int64(noise.count), images: Int32(batch.images), pixels: pixels.baseAddress,
                                                    region_labels: batch.regionLabels.isEmpty ? nil : regions.baseAddress,
                                                    region_tokens: batch.regionTokens.isEmpty ? nil : names.baseAddress,
                                                    region_names: Int32(RegionVocabulary.namesPerRow)))
                                            return collect(batches.dropFirst(), into: &raw, body)
                                            }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
