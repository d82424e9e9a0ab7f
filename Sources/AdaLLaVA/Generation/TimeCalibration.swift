import Foundation

/// Result of measuring a model on this machine.
package struct CalibrationReport: Sendable, Codable {
    /// How well the fitted times explain the measurements of one kind.
    package struct Phase: Sendable, Codable {
        /// `prefill_layers`, `decode_tokens`.
        package let name: String
        /// Number of measurements.
        package let measurements: Int
        /// Of |predicted - measured| / measured.
        package let medianError: Double
        /// The largest of them.
        package let largestError: Double
    }

    /// One measurement beside its prediction.
    package struct Measurement: Sendable, Codable {
        /// `layer` of a prompt, `step` beside its layers, or `token`.
        package let kind: String
        /// Rows of the prompt.
        package let rows: Int
        /// Optional units that ran; `nil` without a scheduler.
        package let units: Int?
        /// The measured time.
        package let measuredMicroseconds: Double
        /// The fitted time.
        package let predictedMicroseconds: Double
        /// How often it was measured.
        package let count: Int
    }

    /// Nanoseconds of each counted term.
    package let nanoseconds: [String: Double]
    /// Milliseconds of encoding one image; 0 without a vision tower.
    package let imageMilliseconds: Double
    /// Errors of the fit by kind of measurement.
    package let phases: [Phase]
    /// All measurements.
    package let measurements: [Measurement]
    /// Seconds that measuring took.
    package let seconds: Double
    /// Whether equal measurements differed by more than a third: other programs ran, and predictions will be too long on an idle machine.
    package let isDisturbed: Bool
    /// The file of the measurements.
    package let file: String
    /// The model and machine that the measurements belong to.
    package let identity: String
}

/// Measures the times of a model's layers and tokens by answering synthetic requests in the engine.
final class TimeCalibration {
    /// A request that is measured: prompt rows, and optional units.
    private struct Shape {
        let rows: Int
        let units: Int?
    }

    /// A repeated measurement.
    private enum Key: Hashable {
        case layers(StepCounts)
        /// The tokens of a shape's decode.
        case tokens(shape: Int)
    }

    private static let tokens = 9
    private let engine: Engine
    private let planner: TimePlanner
    private let shapes: [Shape]
    private var samples: [Key: [TimeModel.Sample]] = [:]
    /// The shape in which some counts were first seen.
    private var shapeOf: [Key: Int] = [:]
    private var images: [Double] = []
    private(set) var done = 0
    private var spent = 0.0
    /// The longest request that is measured, in seconds; longer prompts are left out.
    private let longest: Double
    private var secondsPerRow = 0.0

    init(_ engine: Engine, _ planner: TimePlanner, longest: Double) {
        (self.engine, self.planner, self.longest) = (engine, planner, longest)
        let context = engine.parts.decoder.configuration.contextLength
        let lengths = [96, 16, 384, 48, 200, 640].map { min($0, context - TimeCalibration.tokens - 2) }.filter { $0 > 0 }
        let most = engine.parts.adaptive.map { $0.units.total - $0.units.prefix }
        // The whole plan at each length; the smallest one and two between at two lengths, for terms that differ with the plan.
        var shapes = lengths.map { Shape(rows: $0, units: most) }
        if let most {
            for length in lengths.prefix(3) { for units in [0, most / 3, most * 2 / 3] { shapes.append(Shape(rows: length, units: units)) } }
        }
        self.shapes = shapes
    }

    /// Whether every shape was measured once.
    var isEnough: Bool { done >= shapes.count }
    var isFull: Bool { done >= 5 * shapes.count }
    var total: Int { 5 * shapes.count }

    /// Measures one request.
    /// - Throws: ``GenerationError``, ``ComputeError``, `CancellationError`
    func measureNext(_ cancellation: Cancellation) throws {
        let started = ContinuousClock.now
        let index = done % shapes.count, shape = shapes[index]
        defer { done += 1 }
        if Double(shape.rows) * secondsPerRow > longest { return }
        let vocabulary = engine.parts.decoder.configuration.vocabularySize
        var generator = SplitMix64(seed: UInt64(done))
        var request = EngineRequest(
            tokens: (0 ..< shape.rows).map { _ in Int(generator.next() % UInt64(vocabulary)) }, images: [],
            budget: .fraction(shape.units.flatMap { units in engine.parts.adaptive.map { $0.units.fraction(buying: units) } } ?? 1),
            maxTokens: TimeCalibration.tokens)
        request.reuses = false
        var decode: [TimeModel.Sample] = []
        planner.onSample = { [self] counts, nanoseconds in
            let sample = TimeModel.Sample(counts: counts, nanoseconds: nanoseconds)
            if counts.isToken {
                decode.append(sample)
            } else {
                samples[.layers(counts), default: []].append(sample)
                if shapeOf[.layers(counts)] == nil { shapeOf[.layers(counts)] = index }
            }
        }
        defer { planner.onSample = nil }
        _ = try engine.generate(request, cancellation: cancellation) { _ in true }
        // The first tokens find caches as prefill left them.
        samples[.tokens(shape: index), default: []] += decode.dropFirst(2)
        shapeOf[.tokens(shape: index)] = index
        if let vision = engine.parts.vision, images.count < 8 {
            let pixels = [Float](repeating: 0.1, count: vision.pixels)
            let start = ContinuousClock.now
            _ = try engine.encode(EngineImage(pixels: pixels), cancellation: cancellation)
            images.append((ContinuousClock.now - start).nanoseconds)
        }
        let seconds = (ContinuousClock.now - started) / .seconds(1)
        secondsPerRow = max(secondsPerRow, shape.rows >= 96 ? seconds / Double(shape.rows) : 0)
        spent += seconds
    }

    /// Fits the predictor.
    func finish() -> CalibrationReport {
        var used: [(key: Key, sample: TimeModel.Sample, count: Int)] = [], spread: [Double] = []
        for (key, all) in samples {
            // Other programs only add time: of equal measurements a low one is the machine's own.
            let sorted = all.sorted { $0.nanoseconds < $1.nanoseconds }
            used.append((key, sorted[sorted.count * 3 / 10], sorted.count))
            if sorted.count >= 4 { spread.append(sorted[sorted.count * 3 / 4].nanoseconds / max(sorted[sorted.count / 4].nanoseconds, 1)) }
        }
        let fitted = TimeModel(fitting: used.map(\.sample))
        images.sort()
        planner.use(fitted, imageNanoseconds: images.isEmpty ? planner.imageNanoseconds : images[images.count * 3 / 10])
        planner.load = LoadFactor()
        func isToken(_ key: Key) -> Bool { if case .tokens = key { true } else { false } }
        func phase(_ name: String, _ samples: [TimeModel.Sample]) -> CalibrationReport.Phase {
            let errors = samples.map { abs(fitted.nanoseconds($0.counts) - $0.nanoseconds) / max($0.nanoseconds, 1) }.sorted()
            return CalibrationReport.Phase(
                name: name, measurements: samples.count, medianError: errors.isEmpty ? 0 : errors[errors.count / 2], largestError: errors.last ?? 0)
        }
        let layers = used.filter { $0.sample.counts[.steps] == 0 }.map(\.sample), decode = used.filter { isToken($0.key) }.map(\.sample)
        let measurements = used.map { (shape: shapeOf[$0.key] ?? 0, key: $0.key, sample: $0.sample, count: $0.count) }
            .sorted { ($0.shape, $0.sample.nanoseconds) < ($1.shape, $1.sample.nanoseconds) }.map { item in
            CalibrationReport.Measurement(
                kind: isToken(item.key) ? "token" : item.sample.counts[.steps] > 0 ? "step" : "layer", rows: shapes[item.shape].rows,
                units: shapes[item.shape].units, measuredMicroseconds: item.sample.nanoseconds / 1000,
                predictedMicroseconds: fitted.nanoseconds(item.sample.counts) / 1000, count: item.count)
        }
        let terms = StepCounts.Term.allCases.map { ("\($0)", fitted.coefficients[$0]) }
        spread.sort()
        return CalibrationReport(
            nanoseconds: Dictionary(uniqueKeysWithValues: terms), imageMilliseconds: planner.imageNanoseconds / 1e6,
            phases: [phase("prefill_layers", layers), phase("decode_tokens", decode)],
            measurements: measurements, seconds: spent,
            isDisturbed: !spread.isEmpty && spread[spread.count / 2] > 4.0 / 3, file: engine.timings?.file.path ?? "", identity: engine.timings?.identity ?? "")
    }
}

extension Engine {
    func warmUp(_ cancellation: Cancellation) throws {
        if let vision = parts.vision {
            _ = try encode(EngineImage(pixels: Array(repeating: 0.1, count: vision.pixels)), cancellation: cancellation)
        }
        // As many rows as an image and a question have, where that is quick.
        let rows = min(parts.vision == nil ? 16 : 96, parts.decoder.configuration.contextLength - 4)
        var request = EngineRequest(tokens: Array(repeating: 0, count: max(rows, 1)), images: [], budget: .full, maxTokens: 2)
        request.reuses = false
        _ = try generate(request, cancellation: cancellation) { _ in true }
    }

    /// Whether times are predicted from guesses.
    var wantsCalibration: Bool { planner.map { !$0.isFitted } ?? false }

    /// Measures the model on this machine and keeps the result.
    /// - Parameters:
    ///   - limit: the most time that this takes, beside the end of a request that has begun.
    ///   - onProgress: called with the requests that are measured and all of them.
    func calibrate(limit: Duration, cancellation: Cancellation, onProgress: (Int, Int) -> Void = { _, _ in }) throws -> CalibrationReport {
        guard let planner = planner ?? timings?.makePlanner() else { throw GenerationError.noTimes(model: parts.name) }
        self.planner = planner
        let calibration = TimeCalibration(self, planner, longest: limit / .seconds(1) / 5), start = ContinuousClock.now
        while !calibration.isFull, !calibration.isEnough || ContinuousClock.now - start < limit {
            try calibration.measureNext(cancellation)
            onProgress(calibration.done, calibration.total)
        }
        let report = calibration.finish()
        timings?.keep(planner)
        return report
    }
}

extension AnswerQueue {
    /// Measures the model after the first answers with time budgets, one made-up request at a time, while no request waits.
    func measureWhenIdle(_ engine: Engine) {
        guard engine.wantsCalibration, let planner = engine.planner else { return idleCalibration = nil }
        let calibration = idleCalibration ?? TimeCalibration(engine, planner, longest: 0.25)
        idleCalibration = calibration
        // Without a fit predictions stay guesses, which the load factor corrects.
        guard (try? calibration.measureNext(Cancellation())) != nil else { return engine.timings = nil }
        if calibration.done < 2 * calibration.total / 5 { return }
        _ = calibration.finish()
        engine.timings?.keep(planner)
        idleCalibration = nil
    }
}
