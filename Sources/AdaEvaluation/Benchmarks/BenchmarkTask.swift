import Foundation

/// The benchmarks that can be read, under the names of `eval --task`.
package enum BenchmarkTask: String, CaseIterable, Sendable {
    case scenes, vqav2, gqa, scienceqa, textvqa, pope, mme, mmbench

    /// Reads a benchmark's official files.
    /// - Parameters:
    ///   - url: its folder; for Scenes its JSON file, or a folder with one.
    ///   - split: `nil` takes the one that is usually reported.
    ///   - usesOCR: TextVQA's OCR tokens are part of the prompt.
    /// - Throws: ``EvaluationError``, `CheckpointError` for damaged JSON.
    package func open(_ url: URL, split: String? = nil, usesOCR: Bool = false) throws -> any Benchmark {
        if usesOCR && self != .textvqa {
            throw EvaluationError.argument(name: "--ocr", expected: "--task textvqa", found: "--task \(rawValue)")
        }
        if let split, [.scenes, .pope, .mme].contains(self) {
            throw EvaluationError.argument(name: "--split", expected: "none for \(rawValue), which has one", found: split)
        }
        switch self {
        case .scenes: return try ScenesBenchmark(contentsOf: url)
        case .vqav2: return try VQAv2Benchmark(folder: url, split: split ?? "val2014")
        case .gqa: return try GQABenchmark(folder: url, split: split ?? "testdev_balanced")
        case .scienceqa: return try ScienceQABenchmark(folder: url, split: split ?? "test")
        case .textvqa: return try TextVQABenchmark(folder: url, split: split ?? "val", usesOCR: usesOCR)
        case .pope: return try POPEBenchmark(folder: url)
        case .mme: return try MMEBenchmark(folder: url)
        case .mmbench: return try MMBenchBenchmark(contentsOf: url, split: split)
        }
    }
}
