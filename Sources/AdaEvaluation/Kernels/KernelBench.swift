import AdaLLaVA
import AdaProbes
import Foundation

/// Times the engine's single operations on the shapes of a model's layers, and compares them with the machine's limits.
///
/// A decoded token reads every weight from memory once; so products of one token take copies of the weights in turn, more of them than the
/// last-level cache holds, and are held against the bandwidth. Products of a prompt are held against the multiply-adds.
package struct KernelBench: Sendable {
    /// The operations that can be measured besides the ceilings.
    package enum Part: String, CaseIterable, Sendable {
        case pool, products, attention, elementwise
    }

    /// The model whose layers are measured; see ``AnalyzedModel/shapes``.
    package var shape: AnalyzedModel
    /// Weight types of the products; `nil` takes those that the engine packs.
    package var types: [ElementType]?
    package var parts = Part.allCases
    package var threads: [Int?] = [nil]
    package var repeats = 15
    /// Tokens of a prefill.
    package var promptTokens = 512
    /// Batch sizes of the measured products; `nil` measures one row and a prompt's. Sizes up to ``OperationProbes/mostSingleRows`` are timed as decode:
    /// one row per sequence, weights read from memory.
    package var tokens: [Int]?
    /// Tokens that a decode's attention looks back on.
    package var depth = 600
    /// Bytes that a decode's operations read before they read the same again; `nil` takes four times the last-level cache, 128 MB at least.
    package var streamedBytes: Int?
    /// How long each ceiling is tried.
    package var ceilingTime = Duration.milliseconds(400)

    package init(shape: AnalyzedModel) { self.shape = shape }

    /// Short names that the command line accepts besides ``AnalyzedModel/shapes``.
    package static let shortNames = ["smollm2": "smollm2-135m", "1b": "tinyllama-1.1b", "7b": "llava-1.5-7b"]

    /// - Throws: ``EvaluationError/argument(name:expected:found:)``
    package static func shape(_ name: String) throws -> AnalyzedModel {
        if let found = try? AnalyzedModel.shape(shortNames[name.lowercased()] ?? name) { return found }
        let names = shortNames.keys.sorted() + AnalyzedModel.shapes.map(\.name)
        throw EvaluationError.argument(name: "--shape", expected: "one of \(names.joined(separator: ", "))", found: String(name.prefix(80)))
    }

    /// Weight types of which made-up matrices can be measured.
    package static var typeNames: [String] { RandomWeights.types.map(\.rawValue) }

    /// The types that the engine packs for its kernels.
    package static var packedTypes: [ElementType] { RandomWeights.types.filter(OperationProbes.packs) }

    /// Checks the settings without running anything.
    /// - Throws: ``EvaluationError/argument(name:expected:found:)``
    package func validate() throws {
        try ExperimentLimits.require(repeats, in: ExperimentLimits.repeats, "--repeat")
        try ExperimentLimits.require(promptTokens, in: 2 ... 1 << 14, "--prompt-tokens")
        for count in tokens ?? [] { try ExperimentLimits.require(count, in: 1 ... 1 << 14, "--tokens") }
        try ExperimentLimits.require(depth, in: 1 ... 1 << 16, "--depth")
        if let streamedBytes { try ExperimentLimits.require(streamedBytes >> 20, in: 1 ... 1 << 14, "--stream") }
        for type in types ?? [] where !RandomWeights.types.contains(type) {
            throw EvaluationError.argument(name: "--types", expected: Self.typeNames.joined(separator: ", "), found: type.rawValue)
        }
    }

    /// One operation to be measured, not yet made: its weights are there only while it runs.
    private struct Case {
        let part: Part
        let operation: String
        let shape: String
        var type: ElementType?
        /// Rows of activations.
        let tokens: Int
        let make: (OperationProbes) throws -> OperationProbe

        var description: String {
            let names: [String] = [operation, type?.rawValue ?? "", tokens > 0 ? "\(tokens) token" + (tokens == 1 ? "" : "s") : ""]
            return names.filter { !$0.isEmpty }.joined(separator: " ")
        }
    }

    /// Measures one operation after the other.
    /// - Throws: ``EvaluationError``, `ComputeError`; `CancellationError` before there is anything to report.
    package func run(environment: ExperimentEnvironment, onProgress: (ExperimentProgress) -> Void = { _ in }) throws -> KernelReport {
        try validate()
        let cases = self.cases
        let total = threads.count * (cases.count + 1)
        var ceilings: [CeilingMeasurement] = []
        var results: [KernelReport.Result] = []
        var kernels = ""
        var done = 0
        func progress(_ threads: Int?, _ what: String) {
            let count = threads ?? ThreadPool.availableProcessors
            let detail = "\(count) thread" + (count == 1 ? "" : "s") + ", " + what
            onProgress(ExperimentProgress(done: done, total: total, detail: detail))
        }
        let streamed = streamedBytes ?? max(128 << 20, 4 * CeilingMeasurement.lastLevelCache)
        do {
            for count in threads {
                try Task.checkCancellation()
                progress(count, "ceilings")
                let ceiling = try CeilingMeasurement.measure(threads: count, time: ceilingTime, bufferBytes: streamedBytes.map { 2 * $0 })
                ceilings.append(ceiling)
                done += 1
                let probes = try OperationProbes(threads: count, streamedBytes: streamed)
                kernels = probes.kernels
                for item in cases {
                    try Task.checkCancellation()
                    progress(count, item.description)
                    let probe = try item.make(probes)
                    if let result = measure(item, probe, ceiling) { results.append(result) }
                    done += 1
                }
            }
        } catch is CancellationError where !ceilings.isEmpty {}
        return KernelReport(
            repeats: ExperimentRepeats(done: done, asked: total), environment: environment, shape: shape.name, kernels: kernels,
            streamedBytes: streamed, measurements: repeats, ceilings: ceilings, results: results)
    }

    private func measure(_ item: Case, _ probe: OperationProbe, _ ceiling: CeilingMeasurement) -> KernelReport.Result? {
        let clock = ContinuousClock()
        // Warms caches and the clock of the processor, and says how many turns make a time that can be measured.
        probe.run()
        let once = clock.measure(probe.run)
        let turns = once > .microseconds(200) ? 1 : max(1, min(10000, Int(.microseconds(200) / max(once, .nanoseconds(20)))))
        let times = (0 ..< repeats).map { _ in
            clock.measure { for _ in 0 ..< turns { probe.run() } } / .microseconds(1) / Double(turns * probe.copies)
        }
        return SampleStatistics(times).map {
            KernelReport.Result(
                part: item.part, operation: item.operation, shape: item.shape, type: item.type?.rawValue, threads: ceiling.threads,
                tokens: item.tokens, microseconds: $0, operations: probe.operations, bytes: probe.bytes, arithmetic: probe.arithmetic,
                ceiling: ceiling)
        }
    }

    // MARK: - Measured operations

    private var cases: [Case] {
        var cases: [Case] = []
        if parts.contains(.pool) {
            cases.append(Case(part: .pool, operation: "empty run", shape: "", tokens: 0) { $0.emptyRun() })
        }
        let language = shape.configuration.language
        if parts.contains(.products) {
            for type in types ?? Self.packedTypes { cases += products(language, type) }
            if let vision = tower { for type in types ?? Self.packedTypes { cases += towerProducts(vision, type) } }
        }
        if parts.contains(.attention) {
            for tokens in [1, promptTokens] {
                let positions = tokens == 1 ? depth : tokens
                let (heads, keyValueHeads, headDim) = (language.numAttentionHeads, language.numKeyValueHeads, language.headDim)
                cases.append(
                    Case(
                        part: .attention, operation: "attention", shape: "\(heads)/\(keyValueHeads) x \(headDim), \(positions) keys", type: .f16,
                        tokens: tokens
                    ) { $0.attention(heads: heads, keyValueHeads: keyValueHeads, headDim: headDim, positions: positions, queries: tokens) })
                if tokens == 1 { continue }
                cases.append(
                    Case(
                        part: .attention, operation: "rounded attention", shape: "\(heads)/\(keyValueHeads) x \(headDim), \(positions) keys", type: .f16,
                        tokens: tokens
                    ) {
                        $0.attention(heads: heads, keyValueHeads: keyValueHeads, headDim: headDim, positions: positions, queries: tokens, rounds: true)
                    })
            }
            if let vision = tower {
                let (heads, tokens) = (vision.numAttentionHeads, vision.positions)
                let headDim = vision.hiddenSize / heads
                cases.append(
                    Case(
                        part: .attention, operation: "tower attention", shape: "\(heads) x \(headDim), \(tokens) keys", type: .f32, tokens: tokens
                    ) {
                        $0.attention(
                            heads: heads, keyValueHeads: heads, headDim: headDim, positions: tokens, queries: tokens, isCausal: false, type: .f32,
                            rounds: true)
                    })
            }
        }
        if parts.contains(.elementwise) { cases += elementwise(language) }
        return cases
    }

    private var tower: VisionConfiguration? {
        guard let vision = shape.configuration.vision, vision.isTransformer else { return nil }
        return vision
    }

    private func product(
        _ operation: String, _ rows: [Int], _ inputs: Int, _ type: ElementType, tokens: [Int], isGated: Bool = false
    ) -> [Case] {
        tokens.map { tokens in
            let outputs = rows.dropFirst().reduce("\(rows.first ?? 0)") { "\($0)+\($1)" }
            return Case(part: .products, operation: operation, shape: "\(outputs) x \(inputs)", type: type, tokens: tokens) {
                try $0.product(rows, inputs: inputs, type: type, tokens: tokens, isGated: isGated)
            }
        }
    }

    /// The products of a decoder layer as the engine groups them, and the output layer, which reads one position of a prompt only.
    private func products(_ c: DecoderConfiguration, _ type: ElementType) -> [Case] {
        let (queryWidth, keyWidth) = (c.numAttentionHeads * c.headDim, c.numKeyValueHeads * c.headDim)
        let both = tokens ?? [1, promptTokens]
        return product("q k v", [queryWidth, keyWidth, keyWidth], c.hiddenSize, type, tokens: both)
            + product("o", [c.hiddenSize], queryWidth, type, tokens: both)
            + product("gate up", [c.intermediateSize, c.intermediateSize], c.hiddenSize, type, tokens: both, isGated: true)
            + product("down", [c.hiddenSize], c.intermediateSize, type, tokens: both)
            + product(
                "output", [c.vocabularySize], c.hiddenSize, type, tokens: tokens?.filter { $0 <= OperationProbes.mostSingleRows } ?? [1])
    }

    private func towerProducts(_ c: VisionConfiguration, _ type: ElementType) -> [Case] {
        let tokens = [c.positions]
        return product("tower q k v", [c.hiddenSize, c.hiddenSize, c.hiddenSize], c.hiddenSize, type, tokens: tokens)
            + product("tower o", [c.hiddenSize], c.hiddenSize, type, tokens: tokens)
            + product("tower fc1", [c.intermediateSize], c.hiddenSize, type, tokens: tokens)
            + product("tower fc2", [c.hiddenSize], c.intermediateSize, type, tokens: tokens)
    }

    private func elementwise(_ c: DecoderConfiguration) -> [Case] {
        func item(_ operation: OperationProbes.Elementwise, _ columns: Int, _ tokens: Int, headDim: Int) -> Case {
            Case(part: .elementwise, operation: operation.rawValue, shape: "\(columns)", tokens: tokens) {
                $0.elementwise(operation, tokens: tokens, columns: columns, headDim: headDim)
            }
        }
        var cases = [1, promptTokens].flatMap { tokens in
            [
                item(.rmsNorm, c.hiddenSize, tokens, headDim: c.headDim), item(.quantize, c.hiddenSize, tokens, headDim: c.headDim),
                item(.rope, c.numAttentionHeads * c.headDim, tokens, headDim: c.headDim),
                item(.siluMul, c.intermediateSize, tokens, headDim: c.headDim), item(.add, c.hiddenSize, tokens, headDim: c.headDim),
            ]
        }
        cases.append(item(.argmax, c.vocabularySize, 1, headDim: c.headDim))
        if let vision = tower {
            cases.append(item(.layerNorm, vision.hiddenSize, vision.positions, headDim: c.headDim))
            cases.append(item(.geluQuick, vision.intermediateSize, vision.positions, headDim: c.headDim))
        }
        return cases
    }
}
