import Testing

@testable import AdaLLaVA

/// What a step takes of prompts and images while answers grow. Times are given, not measured.
@Suite struct StepPacingTests {
    @Test("prompt rows fill what the running answers' gaps leave") func rows() {
        let pacing = StepPacing()
        // 3/4 of the step's own time, in rows of 10 nanoseconds, whole eights.
        #expect(pacing.promptRows(single: 4000, limits: [], row: 10, atMost: 640) == 296)
        #expect(pacing.promptRows(single: 1e6, limits: [], row: 10, atMost: 640) == 640)
        // A limit for each token counts if it is lower.
        #expect(pacing.promptRows(single: 4000, limits: [5000, 6000], row: 10, atMost: 640) == 96)
        #expect(pacing.promptRows(single: 4000, limits: [1e9], row: 10, atMost: 640) == 296)
        // Prompts go on, however little time there is.
        for limits in [[3000.0], [0], [-5]] { #expect(pacing.promptRows(single: 4000, limits: limits, row: 10, atMost: 640) == StepPacing.leastRows) }
        for row in [0, -1, Double.nan] { #expect((1 ... 640).contains(pacing.promptRows(single: 4000, limits: [], row: row, atMost: 640))) }
    }

    @Test("what predictions are wrong by is learned from steps") func learning() {
        var pacing = StepPacing()
        for _ in 0 ..< 40 { pacing.note(measured: 10_000, single: 4000, rows: 3000) }
        // Rows take twice as long as predicted, so half as many fit.
        #expect(pacing.promptRows(single: 4000, limits: [], row: 10, atMost: 640) == 144)
        let known = pacing.promptRows(single: 4000, limits: [], row: 10, atMost: 640)
        pacing.learns = false
        pacing.note(measured: 1e9, single: 4000, rows: 3000)
        #expect(pacing.promptRows(single: 4000, limits: [], row: 10, atMost: 640) == known)
        pacing.learns = true
        // A process that was stopped for a minute.
        pacing.note(measured: 60e9, single: 4000, rows: 3000)
        #expect(pacing.promptRows(single: 4000, limits: [], row: 10, atMost: 640) >= StepPacing.leastRows)
        for _ in 0 ..< 40 { pacing.note(measured: 4000 + 3000, single: 4000, rows: 3000) }
        #expect(pacing.promptRows(single: 4000, limits: [], row: 10, atMost: 640) == 296)
    }

    @Test("pieces of an image fit into their time once a phase is known") func images() {
        var pacing = StepPacing()
        #expect(pacing.imageRows(phase: 3, left: 100, least: 16, within: 1e9) == 0)
        pacing.note(phase: 3, rows: 16, measured: 1600)
        #expect(pacing.imageRows(phase: 3, left: 100, least: 16, within: 5000) == 48)
        #expect(pacing.imageRows(phase: 3, left: 100, least: 16, within: 1e9) == 100)
        #expect(pacing.imageRows(phase: 3, left: 100, least: 16, within: 1500) == 0)
        #expect(pacing.imageRows(phase: 4, left: 100, least: 16, within: 5000) == 0)
        pacing.note(single: 1000)
        #expect(pacing.single == 1000)
    }

    // A failure means that a long prompt makes a growing answer wait longer than it may, or that it is read more slowly than it could be.
    @Test("prompts ride along with answers in as many rows as their predicted times leave") func engine() throws {
        let model = try TestModel(Fixtures.url("ada-L"), threads: 2), engine = try TestModel(sharing: model).engine
        let layers = Double(model.decoder.layers.count), prefix = Double(model.loaded.parts.prefixLayers)
        var coefficients = StepCounts()
        // Times so long that the clock does not matter: 8 s for each layer of a token, 0.1 s for each row of a prompt's layer.
        coefficients[.singleLayers] = 8e9
        coefficients[.chunkValues] = 0.1e9 * 1e6 / Double(model.decoder.configuration.hiddenSize)
        let planner = TimePlanner(model.loaded.checkpoint.configuration, weightBytes: 4)
        planner.use(TimeModel(coefficients: coefficients), imageNanoseconds: 0)
        (engine.planner, engine.pacing.learns) = (planner, false)
        func task(_ count: Int, maxTokens: Int, _ budget: Budget = .full) -> GenerationTask {
            var request = EngineRequest(tokens: [1] + (1 ..< count).map { 3 + $0 % 40 }, images: [], budget: budget, maxTokens: maxTokens)
            (request.reuses, request.deadlines.followsLoad) = (false, false)
            return GenerationTask(request, cancellation: Cancellation(), onToken: { _ in true })
        }
        for (limit, allowed) in [(nil, 0.75), (Duration.seconds(3600), 0.75), (Duration(nanoseconds: layers * 8e9 * 1.2), 0.2)] as [(Duration?, Double)] {
            let growing = task(8, maxTokens: 300, limit.map { Budget.perToken($0) } ?? .full), reading = task(400, maxTokens: 2)
            while !growing.isDecoding { engine.step([growing]) }
            var rows: [Int] = []
            while case let before = reading.length, !reading.isDone {
                // The machine's load is that of an idle one.
                planner.load = LoadFactor()
                let isPrefix = if case .prefix = reading.stage { true } else { false }
                engine.step([growing, reading])
                #expect(!growing.isDone)
                if isPrefix, reading.length < 400 { rows.append(reading.length - before) }
            }
            let expected = max(Int(allowed * layers * 8 / (prefix * 0.1)) / StepPacing.leastRows * StepPacing.leastRows, StepPacing.leastRows)
            #expect(!rows.isEmpty || expected >= 200, "\(expected)")
            #expect(rows.allSatisfy { abs($0 - expected) <= StepPacing.leastRows }, "\(rows), expected \(expected)")
        }
    }
}
