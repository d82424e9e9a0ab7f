import AdaImages
import AdaLLaVA
import Foundation

/// One question of a benchmark.
package struct BenchmarkSample: Sendable, Equatable {
    /// Unique in the benchmark.
    package let id: String
    /// Samples of one group are scored together (MME's two questions of an image, MMBench's rotations), so they are never separated by a
    /// limit or a shard.
    package let group: String
    package let image: BenchmarkImage?
    /// The text after the image in the user's turn, including the benchmark's instruction.
    package let question: String
    /// The reference answers; empty if a server keeps them.
    package let references: [String]
    /// Keys by which scores are broken down, under the benchmark's own names: `task`, `category`, `split`.
    package let tags: [String: String]

    package init(
        id: String, group: String? = nil, image: BenchmarkImage?, question: String, references: [String], tags: [String: String] = [:]
    ) {
        (self.id, self.group, self.image, self.question) = (id, group ?? id, image, question)
        (self.references, self.tags) = (references, tags)
    }
}

/// Where a sample's picture is.
package enum BenchmarkImage: Sendable, Equatable {
    case file(URL)
    /// Base64 text, as MMBench's tables hold it.
    case base64(Data, name: String)

    /// Its location in messages: the file's path, or the table and the row.
    package var name: String {
        switch self {
        case .file(let url): url.path
        case .base64(_, let name): name
        }
    }

    /// A damaged image that Pillow reads is read as it reads it: the published scripts score it, so a set that holds one can be finished.
    /// - Throws: `ImageError`, ``EvaluationError``
    package func load() throws -> ReadImage {
        switch self {
        case .file(let url): return try ImageSource.file(url.path).image(tolerance: .asPillow)
        case .base64(let text, let name):
            guard let bytes = Data(base64Encoded: text, options: .ignoreUnknownCharacters), !bytes.isEmpty else {
                throw EvaluationError.data(file: name, at: "column image", expected: "base64", found: "\(text.count) bytes that are not")
            }
            return try ImageDecoder.decode([UInt8](bytes), name: name, tolerance: .asPillow)
        }
    }
}

/// A sample and the model's answer.
package struct AnsweredSample: Sendable {
    package let sample: BenchmarkSample
    package let answer: String

    package init(_ sample: BenchmarkSample, _ answer: String) { (self.sample, self.answer) = (sample, answer) }
}

/// One number of a benchmark's result.
package struct BenchmarkScore: Sendable, Equatable {
    package let name: String
    /// Fractions are in 0 ... 1; MME's points and counts are not.
    package let value: Double
    /// The number of samples of a mean or a fraction; `nil` for other numbers (F1, points, counts).
    package let count: Int?
    /// Standard error of a mean: the samples' deviation (n - 1) over the root of n; `nil` with the count, and for one sample.
    package let standardError: Double?

    package init(_ name: String, _ value: Double) { (self.name, self.value, count, standardError) = (name, value, nil, nil) }

    /// The mean of `values`, in their order; `nil` without values.
    package init?(_ name: String, meanOf values: [Double]) {
        guard let mean = values.mean, let statistics = SampleStatistics(values) else { return nil }
        (self.name, value, count) = (name, mean, statistics.count)
        standardError = statistics.standardError
    }

    /// A fraction; 0 if the whole is 0.
    package init(_ name: String, _ part: Int, of whole: Int) {
        (self.name, count) = (name, whole)
        value = whole == 0 ? 0 : Double(part) / Double(whole)
        standardError = whole > 1 ? (value * (1 - value) / Double(whole - 1)).squareRoot() : nil
    }
}

/// A benchmark read from its official files: prompts, and the scores of its official script.
package protocol Benchmark: Sendable {
    var samples: [BenchmarkSample] { get }

    /// The longest answer in tokens, as the reference's scripts limit it.
    var maxTokens: Int { get }

    /// The score that charts show; its name is one of ``scores(_:)``'s.
    var mainScore: String { get }

    /// How well one answer does on its own, 0 ... 1; `nil` where the answers are kept by a server.
    func score(_ answer: String, for sample: BenchmarkSample) -> Double?

    /// The benchmark's scores, the main one first; empty where the answers are kept by a server.
    /// - Parameter answers: in the benchmark's order, groups whole.
    func scores(_ answers: [AnsweredSample]) -> [BenchmarkScore]

    /// The file that the benchmark's server takes.
    func submission(_ answers: [AnsweredSample]) throws -> Data?
}

extension Benchmark {
    package var maxTokens: Int { 128 }

    package func submission(_ answers: [AnsweredSample]) throws -> Data? { nil }
}

/// How many answers none of a script's rules could read: they are wrong, where some scripts ask a judge or guess.
let unreadAnswers = "unread_answers"

/// Means over groups, in the order in which the groups first occur, each named by its tag after `prefix`.
func meansByTag(_ tag: String, _ scored: [(sample: BenchmarkSample, score: Double)], prefix: String = "") -> [BenchmarkScore] {
    var order: [String] = []
    var groups: [String: [Double]] = [:]
    for item in scored {
        guard let name = item.sample.tags[tag] else { continue }
        if groups[name] == nil { order.append(name) }
        groups[name, default: []].append(item.score)
    }
    return order.compactMap { BenchmarkScore(prefix + $0, meanOf: groups[$0] ?? []) }
}
