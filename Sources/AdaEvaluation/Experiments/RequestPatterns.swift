import AdaImages
import AdaLLaVA
import Foundation

/// How long requests take one after another: the first one after loading, more questions about its image, questions about other images.
///
/// Requests follow each other without a pause, as from one caller who waits for each answer. A round loads the model anew, so that each has one
/// cold request and sees every other image for the first time.
package struct RequestPatterns: Sendable {
    package enum Pattern: String, Sendable, CaseIterable {
        /// The first request after loading: no features, no warm caches.
        case cold
        /// Another question about the image of an earlier one, whose features are cached.
        case sameImage = "same_image"
        /// Another question about an image that the model has not seen.
        case otherImages = "other_images"

        var title: String {
            switch self {
            case .cold: "cold first request"
            case .sameImage: "same image, other questions"
            case .otherImages: "other images, other questions"
            }
        }
    }

    /// An image, and the question that belongs to it if there is one.
    package typealias Item = (image: BenchmarkImage, question: String?)

    /// At least two, all different.
    package let items: [Item]
    /// At least two.
    package let questions: [String]
    /// Requests of each of the two warm patterns in a round; at most the number of other images.
    package var requests = 8
    package var repeats = 5
    package var budget = 1.0
    package var maxTokens = 32

    /// Questions if none are given.
    package static let usualQuestions = [
        "What is in the image?", "Describe the image.", "How many things are in the image?", "What colors can be seen?",
        "Is there a person in the image?", "What does the text say?", "What is on the left?", "What is the largest thing?",
    ]

    /// Image files, each asked about with one of the questions.
    /// - Parameter questions: empty takes the usual ones.
    /// - Throws: ``EvaluationError/argument(name:expected:found:)``
    package init(images: [URL], questions: [String] = []) throws {
        try self.init(items: images.map { (.file($0), nil) }, questions: questions, flag: "--image")
    }

    /// Images and questions of a benchmark.
    /// - Parameter questions: in place of the benchmark's own; empty takes those.
    /// - Throws: ``EvaluationError/argument(name:expected:found:)``
    package init(samples: [BenchmarkSample], questions: [String] = []) throws {
        var own: [String] = []
        var seen = Set<String>()
        for sample in samples where seen.insert(sample.question).inserted { own.append(sample.question) }
        try self.init(
            items: samples.compactMap { sample in sample.image.map { ($0, questions.isEmpty ? sample.question : nil) } },
            questions: questions.isEmpty ? own : questions, flag: "--data")
    }

    private init(items: [Item], questions: [String], flag: String) throws {
        var distinct: [Item] = []
        // More than anyone waits for.
        for item in items where distinct.count <= 4096 && !distinct.contains(where: { $0.image == item.image }) { distinct.append(item) }
        guard distinct.count > 1 else {
            throw EvaluationError.argument(name: flag, expected: "at least two different images", found: "\(distinct.count)")
        }
        self.items = distinct
        self.questions = questions.isEmpty ? RequestPatterns.usualQuestions : questions
        guard self.questions.count > 1 else {
            throw EvaluationError.argument(name: flag, expected: "at least two different questions", found: "\(self.questions.count)")
        }
    }

    /// Checks the settings without running anything.
    /// - Throws: ``EvaluationError/argument(name:expected:found:)``, `BudgetError`
    package func validate() throws {
        try ExperimentLimits.require(requests, in: 1 ... 4096, "--requests")
        try ExperimentLimits.require(repeats, in: ExperimentLimits.repeats, "--repeat")
        try ExperimentLimits.require(maxTokens, in: ExperimentLimits.tokens, "--max-tokens")
        _ = try Budget.fraction(budget).validFraction()
    }

    /// A request of a round.
    struct Request: Equatable {
        let pattern: Pattern
        let item: Int
        let question: String
    }

    /// The requests of one round in their order.
    var round: [Request] {
        func question(_ index: Int) -> String { questions[index % questions.count] }
        let first = items[0].question ?? question(0)
        // Starts after the first image's own question.
        let start = (questions.firstIndex(of: first) ?? -1) + 1
        let others = min(requests, items.count - 1)
        return [Request(pattern: .cold, item: 0, question: first)]
            + (0 ..< requests).map { Request(pattern: .sameImage, item: 0, question: question(start + $0)) }
            + (0 ..< others).map { Request(pattern: .otherImages, item: $0 + 1, question: items[$0 + 1].question ?? question(start + $0)) }
    }

    /// - Parameters:
    ///   - load: loads the model as from nothing; called once a round.
    ///   - damaged: collects damaged images that were read anyway.
    /// - Throws: errors of the model and of `load`, `ImageError`, ``EvaluationError``; `CancellationError` before the first round is
    ///   complete.
    package func run<Model: MeasurableModel>(
        environment: ExperimentEnvironment, load: () async throws -> (model: Model, description: ExperimentModel),
        damaged: DamagedImages = DamagedImages(), onProgress: (ExperimentProgress) -> Void = { _ in }
    ) async throws -> RequestsReport {
        try validate()
        let requests = round
        var measured: [Pattern: [RequestsReport.Times]] = [:]
        var loading: [Double] = []
        var description: ExperimentModel?
        var done = 0
        do {
            for turn in 0 ..< repeats {
                try Task.checkCancellation()
                let begin = ContinuousClock.now
                let (model, loaded) = try await load()
                let loadTime = (ContinuousClock.now - begin) / .milliseconds(1)
                if description == nil { try loaded.require(budget: budget) }
                description = loaded
                var first: RGBImage?
                var times: [(Pattern, RequestsReport.Times)] = []
                for (index, request) in requests.enumerated() {
                    try Task.checkCancellation()
                    onProgress(
                        ExperimentProgress(
                            done: turn * requests.count + index, total: repeats * requests.count, detail: request.pattern.title))
                    let start = ContinuousClock.now
                    let image: RGBImage
                    if request.item == 0, let first {
                        image = first
                    } else {
                        let read = try items[request.item].image.load()
                        damaged.note(read.damage)
                        image = read.image
                    }
                    if request.item == 0 { first = image }
                    let response = try await model.respond(to: request.question, image: image, budget: .fraction(budget), maxTokens: maxTokens)
                    times.append((request.pattern, RequestsReport.Times(response, interval: (ContinuousClock.now - start) / .milliseconds(1))))
                }
                // Only whole rounds count, so that all patterns are measured equally often.
                for (pattern, value) in times { measured[pattern, default: []].append(value) }
                loading.append(loadTime)
                done = turn + 1
            }
        } catch is CancellationError where done > 0 {}
        guard let description else { throw CancellationError() }
        let rows = Pattern.allCases.compactMap { pattern in
            RequestsReport.Row(pattern: pattern, times: measured[pattern] ?? [], loading: pattern == .cold ? loading : [])
        }
        return RequestsReport(
            repeats: ExperimentRepeats(done: done, asked: repeats), environment: environment, model: description, budget: budget,
            maxTokens: maxTokens, damagedImages: damaged.count, rows: rows)
    }
}

/// Result of ``RequestPatterns``.
package struct RequestsReport: ExperimentReport {
    /// Milliseconds of one request.
    struct Times {
        let encode, firstToken, prefill, decode, whole: Double
        /// From this request's start to the next one's.
        let interval: Double

        init(_ response: ModelResponse, interval: Double) {
            encode = response.encodeMilliseconds
            firstToken = response.firstTokenMilliseconds
            prefill = response.prefillMilliseconds
            decode = response.decodeMilliseconds
            whole = response.wholeMilliseconds
            self.interval = interval
        }
    }

    /// One pattern's requests, all rounds together. Milliseconds.
    package struct Row: Sendable {
        package let pattern: RequestPatterns.Pattern
        package let encode: SampleStatistics
        /// To the first token.
        package let firstToken: SampleStatistics
        package let prefill: SampleStatistics
        package let decode: SampleStatistics
        /// From the request to its last token.
        package let whole: SampleStatistics
        /// From one request's start to the next one's: the whole answer, and reading the image file, resizing, tokenizing and streaming.
        package let interRequest: SampleStatistics
        /// Opening the model; for the cold pattern only.
        package let loading: SampleStatistics?

        init?(pattern: RequestPatterns.Pattern, times: [Times], loading: [Double]) {
            guard let encode = SampleStatistics(times.map(\.encode)), let firstToken = SampleStatistics(times.map(\.firstToken)),
                let prefill = SampleStatistics(times.map(\.prefill)), let decode = SampleStatistics(times.map(\.decode)),
                let whole = SampleStatistics(times.map(\.whole)), let interRequest = SampleStatistics(times.map(\.interval))
            else { return nil }
            (self.pattern, self.encode, self.firstToken, self.prefill) = (pattern, encode, firstToken, prefill)
            (self.decode, self.whole, self.interRequest) = (decode, whole, interRequest)
            self.loading = SampleStatistics(loading)
        }

        /// Name for people, key for programs, values.
        var measurements: [(name: String, key: String, statistics: SampleStatistics)] {
            [
                ("encode", "encode_ms", encode), ("TTFT", "ttft_ms", firstToken), ("decode", "decode_ms", decode), ("whole", "whole_ms", whole),
                ("inter-request", "inter_request_ms", interRequest),
            ] + (loading.map { [("load", "load_ms", $0)] } ?? [])
        }
    }

    package static let name = "requests"
    package let repeats: ExperimentRepeats
    package let environment: ExperimentEnvironment
    package let model: ExperimentModel
    package let budget: Double
    package let maxTokens: Int
    /// Images that were read although they are damaged.
    package let damagedImages: Int
    package let rows: [Row]

    package var models: [ExperimentModel] { [model] }

    package struct Details: Codable, Sendable {
        package var budget: Double
        package var maxTokens: Int
        package var damagedImages: Int
        package var results: [Entry]

        enum CodingKeys: String, CodingKey {
            case budget, results
            case maxTokens = "max_tokens"
            case damagedImages = "damaged_images"
        }

        /// All requests of one pattern. Milliseconds.
        package struct Entry: Codable, Sendable {
            package var pattern: String
            package var n: Int
            package var encodeMs: SampleStatistics.JSON
            package var ttftMs: SampleStatistics.JSON
            package var prefillMs: SampleStatistics.JSON
            package var decodeMs: SampleStatistics.JSON
            package var wholeMs: SampleStatistics.JSON
            package var interRequestMs: SampleStatistics.JSON
            /// Present for the pattern `cold`.
            package var loadMs: SampleStatistics.JSON?

            enum CodingKeys: String, CodingKey {
                case pattern, n
                case encodeMs = "encode_ms"
                case ttftMs = "ttft_ms"
                case prefillMs = "prefill_ms"
                case decodeMs = "decode_ms"
                case wholeMs = "whole_ms"
                case interRequestMs = "inter_request_ms"
                case loadMs = "load_ms"
            }
        }
    }

    package var details: Details {
        Details(
            budget: budget, maxTokens: maxTokens, damagedImages: damagedImages,
            results: rows.map { row in
                Details.Entry(
                    pattern: row.pattern.rawValue, n: row.whole.count, encodeMs: row.encode.json, ttftMs: row.firstToken.json,
                    prefillMs: row.prefill.json, decodeMs: row.decode.json, wholeMs: row.whole.json, interRequestMs: row.interRequest.json,
                    loadMs: row.loading?.json)
            })
    }

    package var csv: String {
        let lines = rows.flatMap { row in
            row.measurements.map { measurement in
                let statistics = measurement.statistics
                return [
                    row.pattern.rawValue, measurement.key, "\(statistics.count)", "\(statistics.mean)", statistics.meanMargin.map { "\($0)" } ?? "",
                    "\(statistics.median)", "\(statistics.deviation)", "\(statistics.minimum)", "\(statistics.maximum)",
                ]
            }
        }
        return ExperimentText.csv([["pattern", "measured", "n", "mean", "ci95", "median", "deviation", "min", "max"]] + lines)
    }

    package var lines: [String] {
        let header = ["requests", "ms", "mean", "median", "deviation", "min", "max", "n"]
        let table = [header] + rows.flatMap { row in
            row.measurements.enumerated().map { index, measurement in
                let statistics = measurement.statistics
                return [index == 0 ? row.pattern.title : "", measurement.name, ExperimentText.mean(statistics)]
                    + [statistics.median, statistics.deviation, statistics.minimum, statistics.maximum].map(ExperimentText.number)
                    + ["\(statistics.count)"]
            }
        }
        return [String(format: "budget   %g, at most %d tokens an answer; the model was loaded %d times", budget, maxTokens, repeats.done), ""]
            + CostReport.aligned(table, textColumns: [0, 1]) + [
                "", "inter-request: from one request's start to the next one's, image file, resizing, tokenizing and streaming included",
                ExperimentText.meanNote,
            ] + (DamagedImages.note(damagedImages).map { [$0] } ?? [])
    }

    package func chartScript(to path: String, format: ChartFormat) -> String { ExperimentCharts.requests(self, to: path, format: format) }
}
