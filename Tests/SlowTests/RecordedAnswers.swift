import Foundation

@testable import AdaLLaVA

/// What llama.cpp answered, recorded in `Tests/Fixtures/smollm2` and `gemma3` (their READMEs say how).
struct RecordedAnswers: Decodable {
    struct Case: Decodable {
        let promptIds: [Int]
        let generatedIds: [Int]
        let generatedText: String
        /// For each generated token the two best ids with their logits.
        let top2PerStep: [[[Double]]]

        /// By how much llama.cpp preferred its token at `step` to the second best.
        func gap(_ step: Int) -> Double { top2PerStep[step][0][1] - top2PerStep[step][1][1] }
    }

    let model: String
    let cases: [Case]

    static let repository = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    /// Where `scripts/fetch-gemma3.sh` puts the model; `nil` if it has not.
    static let gemma3: URL? = {
        let url = repository.appendingPathComponent("build/models/gemma-3-270m-q4_k_m.gguf")
        return FileManager.default.fileExists(atPath: url.path) ? url : nil
    }()
    static let fixtures = repository.appendingPathComponent("Tests/Fixtures")

    init(type: String) throws { try self.init(file: "smollm2/\(type).json") }

    /// - Parameter file: in the fixtures' folder.
    init(file: String) throws {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        self = try decoder.decode(Self.self, from: Data(contentsOf: Self.fixtures.appendingPathComponent(file)))
    }

    /// The folder with the GGUF files that the answers are of; without it these tests do not run.
    static var models: URL? {
        ProcessInfo.processInfo.environment["ADALLAVA_SLOW_MODELS"].map { URL(fileURLWithPath: $0) }
    }
}

/// One loaded model, asked in the engine's own terms.
final class GreedyModel {
    private let engine: Engine
    /// Whether prompts are multiplied by tiles of BF16 (AMX).
    let hasTiles: Bool

    init(_ url: URL, precision: Precision = .automatic, kernels: String? = nil) throws {
        let workspace = try Workspace(precision: precision, kernels: kernels)
        hasTiles = workspace.kernels.tuning.bf16_tiles != 0
        let loaded = try LoadedModel(
            Checkpoint.open(at: url), packer: WeightPacker(kernels: workspace.kernels, pool: workspace.pool), template: nil, cancellation: Cancellation()
        ) { _ in }
        engine = Engine(loaded.parts, workspace: workspace)
    }

    /// The greedy answer, token for token, whatever ends it.
    func answer(_ prompt: [Int], count: Int) throws -> [Int] {
        var request = EngineRequest(tokens: prompt, images: [], budget: .full, maxTokens: count)
        request.reuses = false
        return try engine.generate(request, cancellation: Cancellation()) { _ in true }.tokens
    }

    /// The logits before each of `answer`'s tokens when these are what is decoded: the prompt in one pass, then token by token.
    /// - Parameter body: called with the step and its logits.
    func force(_ prompt: [Int], answer: [Int], _ body: (Int, [Float]) -> Void) throws {
        let decoder = engine.parts.decoder, layers = 0 ..< decoder.layers.count
        let sequence = TokenSequence(decoder)
        sequence.promptLength = prompt.count
        func pass(_ input: BatchSegment.Input, _ role: RowRole, at position: Int) throws -> [Float] {
            let segment = BatchSegment(
                sequence: sequence, role: role, position: position, slot: position, layers: layers, input: input, logitRows: 1)
            return try engine.runner.step([segment]).last(0)?.row(0) ?? []
        }
        let hidden = Tensor(rows: prompt.count, columns: decoder.configuration.hiddenSize)
        for (row, token) in prompt.enumerated() { try decoder.embed(token, into: hidden, row: row) }
        body(0, try pass(.hidden(hidden), .chunk, at: 0))
        for (index, token) in answer.dropLast().enumerated() {
            body(index + 1, try pass(.token(token), .single, at: prompt.count + index))
        }
    }
}

/// How far our logits are from llama.cpp's when both read the same tokens.
struct LogitComparison {
    /// Absolute differences of the two best logits, and of the distance between these two.
    private(set) var logits: [Double] = []
    private(set) var distances: [Double] = []
    /// llama.cpp's distance between its two best, where our best token is another one than its.
    private(set) var otherChoices: [Double] = []

    init(_ model: GreedyModel, _ answers: [RecordedAnswers.Case]) throws {
        for answer in answers {
            try model.force(answer.promptIds, answer: answer.generatedIds) { step, found in
                let (first, second) = (answer.top2PerStep[step][0], answer.top2PerStep[step][1])
                let ours = (Double(found[Int(first[0])]), Double(found[Int(second[0])]))
                logits += [abs(ours.0 - first[1]), abs(ours.1 - second[1])]
                distances.append(abs(ours.0 - ours.1 - (first[1] - second[1])))
                let best = found.indices.reduce(0) { found[$1] > found[$0] ? $1 : $0 }
                if best != Int(first[0]) { otherChoices.append(answer.gap(step)) }
            }
        }
    }

    var meanLogit: Double { logits.reduce(0, +) / Double(logits.count) }
    var largestLogit: Double { logits.max() ?? .infinity }

    var summary: String {
        String(
            format: "logits differ by %.4f on average, %.4f at most; distances of the two best by %.4f on average, %.4f at most; %d of %d choices differ%@",
            meanLogit, largestLogit, distances.reduce(0, +) / Double(distances.count), distances.max() ?? .infinity, otherChoices.count,
            distances.count, otherChoices.isEmpty ? "" : String(format: ", where llama.cpp's two best are %.3f apart or less", otherChoices.max() ?? 0))
    }
}
