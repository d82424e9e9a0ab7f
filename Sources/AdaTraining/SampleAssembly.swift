import AdaLLaVA

/// Puts a conversation's ids together with its images' places and the latency token, as the reference's `prepare_inputs_labels_for_multimodal`
/// does in training.
package struct SampleAssembly: Sendable, Equatable {
    /// Rows of features that one image becomes.
    package var rowsPerImage: Int
    /// Whether there is a latency token.
    package var adaptive: Bool
    /// Maximum positions of a sample before the latency token; longer ones are truncated (`model_max_length`).
    package var maximumLength: Int

    package init(rowsPerImage: Int, adaptive: Bool, maximumLength: Int) {
        (self.rowsPerImage, self.adaptive, self.maximumLength) = (rowsPerImage, adaptive, maximumLength)
    }

    /// - Parameters:
    ///   - ids: token ids, ``PromptEncoder/imageToken`` where images go.
    ///   - labels: as many, ``TrainingConversation/ignoredLabel`` where nothing is scored.
    ///   - pixels: the tower's input of each image.
    package func sample(ids: [Int], labels: [Int], pixels: [[Float]]) -> TrainingSample {
        let ignored = Int64(TrainingConversation.ignoredLabel)
        var tokens: [Int64] = []
        var targets: [Int64] = []
        var images = 0
        for (id, label) in zip(ids, labels) {
            if id == PromptEncoder.imageToken {
                // An image that does not fit whole would leave rows of features without a place.
                guard tokens.count + rowsPerImage <= maximumLength else { break }
                tokens += [Int64](repeating: TrainingSample.imageRow, count: rowsPerImage)
                targets += [Int64](repeating: ignored, count: rowsPerImage)
                images += 1
            } else {
                guard tokens.count < maximumLength else { break }
                tokens.append(Int64(id))
                targets.append(Int64(label))
            }
        }
        if adaptive {
            // Right before the last scored answer: earlier answers are scored under the same plan.
            let place = targets.lastIndex(of: ignored).map { $0 + 1 } ?? 0
            tokens.insert(TrainingSample.latencyToken, at: place)
            targets.insert(ignored, at: place)
        }
        return TrainingSample(tokens: tokens, labels: targets, pixels: pixels.prefix(images).flatMap { $0 }, images: images)
    }

    /// Joins several samples with the same beginning, about the same image: the common prefix is stored once, followed by a branch for the
    /// rest of each. Under a mask that lets each branch attend to the prefix and itself, every question is answered as if it were alone, at a
    /// fraction of the cost, because the image is most of a sample. Valid only for budgets at which all layers run, because a plan would
    /// change the prefix.
    /// - Returns: `nil` if the samples have no common prefix, or there is only one.
    package static func sample(of samples: [TrainingSample]) -> TrainingSample? {
        guard samples.count > 1, let first = samples.first else { return nil }
        var shared = first.tokens.count
        for sample in samples {
            // Each branch has at least the scored tokens and the latency token before them.
            let scored = sample.labels.firstIndex { $0 != Int64(TrainingConversation.ignoredLabel) } ?? sample.labels.count
            let own = sample.tokens.firstIndex(of: TrainingSample.latencyToken) ?? sample.tokens.count
            shared = min(shared, scored, own, zip(first.tokens, sample.tokens).prefix { $0 == $1 }.count)
        }
        guard shared > 0, samples.allSatisfy({ $0.tokens.count > shared && $0.images == first.images }) else { return nil }
        var packed = first
        packed.tokens.removeSubrange(shared...)
        packed.labels.removeSubrange(shared...)
        packed.branches = [Int32](repeating: 0, count: shared)
        for (number, sample) in samples.enumerated() {
            packed.tokens += sample.tokens[shared...]
            packed.labels += sample.labels[shared...]
            packed.branches += [Int32](repeating: Int32(number + 1), count: sample.tokens.count - shared)
        }
        return packed
    }
}
