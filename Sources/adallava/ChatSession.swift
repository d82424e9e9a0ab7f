import AdaImages
import AdaLLaVA
import Foundation

/// An image of a conversation, brought to the size of the model's tower.
struct ChatImage {
    let id = UUID()
    let name: String
    let prepared: PreparedImage
}

/// State of a conversation between messages.
struct ChatSession {
    struct Question {
        let id = UUID()
        let text: String
        let images: [ChatImage]

        var message: ChatMessage { ChatMessage.question(text, images: images.count) }
    }

    struct Turn {
        let question: Question
        let answer: String
        /// The settings that it was answered with.
        let settings: Settings
    }

    /// Settings of an answer besides the conversation.
    struct Settings: Equatable {
        let budget: Budget, system: String?, temperature: Double
    }

    let model: AdaptiveModel
    let checkpoint: Checkpoint
    let tolerance: ImageTolerance
    let json: Bool
    var budget: Budget
    var options: GenerationOptions
    var settings: Settings { Settings(budget: budget, system: options.system, temperature: options.sampling.temperature) }
    /// Images of the next message.
    var pending: [ChatImage] = []
    /// Answered turns, the oldest first.
    var turns: [Turn] = []
    /// The last message that was asked, answered or not.
    var asked: Question?
    /// Exit code of the first line that failed.
    private(set) var failure: ErrorCategory?

    init(
        model: AdaptiveModel, checkpoint: Checkpoint, budget: Budget, options: GenerationOptions, tolerance: ImageTolerance, json: Bool
    ) {
        (self.model, self.checkpoint, self.budget, self.options, self.tolerance, self.json) = (model, checkpoint, budget, options, tolerance, json)
    }

    /// Runs a message. Errors are printed, and the conversation continues.
    /// - Returns: `false` when the conversation ends.
    /// - Throws: `CancellationError` when the process is asked to end.
    mutating func handle(_ text: String) async throws -> Bool {
        do {
            guard text.hasPrefix("/") else {
                if ChatPath.isDragged(text) {
                    failOfFile(text)
                    return true
                }
                try await ask(text)
                return true
            }
            return try await command(text)
        } catch let error as any AdaLLaVAError {
            fail(error.category, error.description)
        } catch let error as CancellationError {
            if interruptionEndsProcess() { throw error }
            Console.shared.message("(stopped; this turn is not remembered)")
        }
        return true
    }

    mutating func fail(_ category: ErrorCategory, _ message: String) {
        failure = failure ?? category
        Console.shared.message("adallava: " + message)
    }

    /// A file that was dragged onto the terminal without `/image` before it.
    mutating func failOfFile(_ line: String) {
        fail(.usage, "expected a message or a command, found a file; /image \(line) adds the image to your next message")
    }

    // MARK: - Answers

    /// Answers a message about the images that wait for it.
    mutating func ask(_ text: String) async throws {
        do {
            try await answer(Question(text: SystemPath.prose(text), images: pending), after: turns)
        } catch let error as any AdaLLaVAError {
            // Images that cannot be asked about would make every later message fail too; a budget can be changed.
            if !pending.isEmpty, !(error is BudgetError) {
                Console.shared.message("(\(pending.count == 1 ? "the image" : "the \(pending.count) images") of this message \(pending.count == 1 ? "is" : "are") dropped)")
                pending = []
            }
            throw error
        }
    }

    /// Answers a question and remembers the turn once it is answered.
    /// - Parameter earlier: the turns before it.
    mutating func answer(_ question: Question, after earlier: [Turn]) async throws {
        asked = question
        let (earlier, forgotten) = try fitting(earlier, before: question)
        let conversation = earlier.flatMap { [$0.question.message, ChatMessage(.assistant, $0.answer)] } + [question.message]
        let images = (earlier.flatMap(\.question.images) + question.images).map(\.prepared)
        if let forgotten { Console.shared.message(forgotten) }
        let (model, budget, options, json) = (model, budget, options, json)
        let (answer, summary) = try await withInterruption {
            try await streamed(model, conversation, images, budget, options, isQuiet: json)
        }
        turns = earlier + [Turn(question: question, answer: answer, settings: settings)]
        pending.removeAll { image in question.images.contains { $0.id == image.id } }
        if let summary { try report(summary, answer) }
        try await measure()
    }

    private func report(_ summary: AnswerSummary, _ answer: String) throws {
        if json { printNow(try adallava.json(summary.json(answer: answer))) } else { Console.shared.note(summary.line) }
        summary.warn(maxTokens: options.maxTokens, contextLength: contextLength, isCutShown: !json)
    }

    /// Measures a model that answered with guessed times. Ctrl-C ends only that: the turn is answered.
    private func measure() async throws {
        let (model, budget) = (model, budget)
        do {
            try await withInterruption { try await calibrateAfterAnswer(model, budget) }
        } catch is CancellationError where !interruptionEndsProcess() {
            Console.shared.finishProgress()
        }
    }

    // MARK: - Context

    private var contextLength: Int { checkpoint.configuration.language.contextLength }

    /// The newest turns that leave enough positions for an answer in the model's context, and a message about those that do not fit.
    private func fitting(_ earlier: [Turn], before question: Question) throws -> (turns: [Turn], forgotten: String?) {
        // In a short context the answer reserves only a part.
        let room = min(options.maxTokens, max(1, contextLength / 4))
        var first = 0
        while first < earlier.count, try positions(of: earlier[first...], question) + room > contextLength { first += 1 }
        if first == 0 { return (earlier, nil) }
        let images = earlier[..<first].reduce(0) { $0 + $1.question.images.count }
        let lost = (first == 1 ? "the oldest turn" : "the oldest \(first) turns") + (images == 0 ? "" : " and \(images == 1 ? "its image" : "their \(images) images")")
        return (
            Array(earlier[first...]), "(the conversation is longer than the model's context of \(contextLength) positions: \(lost) \(first == 1 && images == 0 ? "is" : "are") forgotten)"
        )
    }

    /// Positions of a prompt; at least, where tokens are selected.
    private func positions(of turns: ArraySlice<Turn>, _ question: Question) throws -> Int {
        let conversation = turns.flatMap { [$0.question.message, ChatMessage(.assistant, $0.answer)] } + [question.message]
        let images = turns.flatMap(\.question.images) + question.images
        let imagePositions = try images.reduce(0) { try $0 + model.positions(of: $1.prepared) - 1 }
        return try model.tokenize(conversation, system: options.system).count + imagePositions + (model.isAdaptive ? 1 : 0)
    }
}
