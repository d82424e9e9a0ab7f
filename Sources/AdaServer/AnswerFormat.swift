import AdaLLaVA
import Foundation

/// One finished answer to a request.
struct FinishedAnswer: Sendable {
    let choice: Int
    let text: String
    let summary: AnswerSummary
    var logProbabilities: [TokenLogProbability] = []
}

/// How one API writes answers: as one body, or as events while they grow.
protocol AnswerFormat: Sendable {
    /// All answers in one body.
    func whole(_ answers: [FinishedAnswer]) -> any Encodable & Sendable
    /// Before the first text.
    func opening(choices: Int) -> [StreamEvent]
    /// New text of one answer.
    func text(_ delta: AnswerDelta, choice: Int) -> [StreamEvent]
    /// One answer is complete.
    func ended(_ answer: FinishedAnswer) -> [StreamEvent]
    /// All are.
    func closing(_ answers: [FinishedAnswer]) -> [StreamEvent]
    func progress(_ progress: ProgressReport) -> [StreamEvent]
    /// An error after the first event.
    func failure(_ error: APIError) -> [StreamEvent]
    /// Whether `[DONE]` ends the stream.
    var endsWithMark: Bool { get }
}

extension AnswerFormat {
    func opening(choices: Int) -> [StreamEvent] { [] }
    func progress(_ progress: ProgressReport) -> [StreamEvent] { [] }
    func failure(_ error: APIError) -> [StreamEvent] { [StreamEvent(data: ErrorBody(error))] }
    var endsWithMark: Bool { true }
}

/// How far encode and prefill are: `progress` in events.
struct ProgressReport: Encodable, Sendable {
    let phase: String
    var image: Int?
    var images: Int?
    let done: Int
    let total: Int
    /// Predicted times since the call, and when the answer will be complete; present if times are predicted.
    var predictedTtftMs: Double?, predictedWholeMs: Double?, predictedFinishUnixMs: Int?

    /// - Parameters:
    ///   - predicted: counts from `asked`.
    init(_ progress: GenerationProgress, _ predicted: PhaseTimes? = nil, asked: Date = Date()) {
        if let predicted {
            (predictedTtftMs, predictedWholeMs) = (predicted.timeToFirstToken / .milliseconds(1), predicted.whole / .milliseconds(1))
            predictedFinishUnixMs = Int(asked.timeIntervalSince1970 * 1000 + min(predicted.whole / .milliseconds(1), 1e12))
        }
        switch progress {
        case .encoding(let image, let images, let layer, let layers):
            (phase, self.image, self.images, done, total) = ("encode", image, images, layer, layers)
        case .selecting(let image, let images, let done, let total):
            (phase, self.image, self.images, self.done, self.total) = ("select", image, images, done, total)
        case .reading(let done, let total): (phase, self.done, self.total) = ("prefill", done, total)
        case .answering(let done, let total): (phase, self.done, self.total) = ("decode", done, total)
        }
    }
}
