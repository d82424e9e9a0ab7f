import AdaLLaVA
import ArgumentParser
import Foundation

/// How long vision towers take for an image, one against another.
///
/// One repeat encodes one image with every tower and thread count in turn, so that what else the machine does meanwhile hits all of them; the
/// median over the repeats is reported, and the fastest.
struct TowerCost: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tower-cost", abstract: "Compare the speed of vision towers.", discussion: "Each tower encodes one image at a time, the towers in turn.")

    @Argument(help: "Folders of towers, or checkpoints.")
    var towers: [String]

    @Option(parsing: .upToNextOption, help: "Thread counts.")
    var threads = [1, 2]

    @Option(help: "Repeats: encodings per tower.")
    var repeats = 30

    @Flag(help: "Compare features with the first tower's, computed in float32: for towers with the same weights in other types.")
    var compare = false

    @Flag(help: "Encode once with each tower for each line on standard input, and print the milliseconds as a line of JSON.")
    var resident = false

    @Option(help: "auto, q8 or f32.")
    var precision: Precision = .automatic

    @Option(parsing: .upToNextOption, help: "Folders of towers that are also measured with 8-bit weights.")
    var q8: [String] = []

    @Option(help: "Also write the results to this file, as one JSON object.")
    var json: String?

    func validate() throws {
        if towers.isEmpty || threads.contains(where: { $0 < 1 }) || repeats < 1 { throw ValidationError("expected towers, --threads and --repeats of 1 or more") }
    }

    private struct Contestant {
        let name: String
        let path: String
        let threads: Int
        let tower: VisionTower
        let pixels: [Float]
        var milliseconds: [Double] = []
        /// The least cosine similarity of a row of features to the first tower's in float32; `nil` for other shapes.
        var cosine: Double?
    }

    func run() async throws {
        var contestants: [Contestant] = []
        var random = SplitMix64(seed: 1)
        for (path, precision) in towers.map({ ($0, precision) }) + q8.map({ ($0, .q8) }) {
            for count in threads {
                let tower = try VisionTower(contentsOf: URL(fileURLWithPath: path), threads: count, precision: precision)
                let side = tower.configuration.imageSize
                let pixels = (0 ..< 3 * side * side).map { _ in Float(random.unit() * 2 - 1) }
                contestants.append(Contestant(name: precision == .q8 ? path + " in q8" : path, path: path, threads: count, tower: tower, pixels: pixels))
            }
        }
        if compare, let first = contestants.first {
            let reference = try VisionTower(contentsOf: URL(fileURLWithPath: first.path), precision: .f32).features(first.pixels)
            for index in contestants.indices where contestants[index].tower.width == first.tower.width {
                // The same picture for all, whatever was drawn for each.
                let features = try contestants[index].tower.features(first.pixels)
                contestants[index].cosine = leastCosine(features, reference, width: first.tower.width)
            }
        }
        if resident { return try serve(contestants) }
        let clock = ContinuousClock()
        // The first round warms caches and the processor's clock, and is not counted.
        for round in 0 ... repeats {
            for index in contestants.indices.map({ ($0 + round) % contestants.count }) {
                let contestant = contestants[index]
                let time = try clock.measure { _ = try contestant.tower.features(contestant.pixels) }
                if round > 0 { contestants[index].milliseconds.append(time / .milliseconds(1)) }
            }
        }
        print("\(repeats) repeats, load \(String(format: "%.2f", loadAverage()))")
        print("threads  image  tokens x width   median ms  fastest ms   cosine  tower")
        for item in contestants {
            print(
                String(
                    format: "%7d  %5d  %6d x %5d  %10.2f  %10.2f  %7@  %@", item.threads, item.tower.configuration.imageSize, item.tower.tokens,
                    item.tower.width, median(item.milliseconds), item.milliseconds.min() ?? 0, item.cosine.map { String(format: "%.5f", $0) } ?? "", item.name))
        }
        try writeJSON(
            [
                "repeats": repeats, "load": loadAverage(),
                "towers": contestants.map {
                    [
                        "tower": $0.name, "threads": $0.threads, "image_size": $0.tower.configuration.imageSize, "tokens": $0.tower.tokens,
                        "width": $0.tower.width, "median_ms": median($0.milliseconds), "fastest_ms": $0.milliseconds.min() ?? 0,
                        "cosine": $0.cosine ?? NSNull(),
                    ] as [String: Any]
                },
            ], to: json)
    }
}

extension TowerCost {
    /// Measures when it is told to, so that another program can measure others in between.
    private func serve(_ contestants: [Contestant]) throws {
        func answer(_ object: [String: Any]) throws {
            let data = try JSONSerialization.data(withJSONObject: object, options: [.sortedKeys])
            try FileHandle.standardOutput.write(contentsOf: data + Data("\n".utf8))
        }
        for contestant in contestants { _ = try contestant.tower.features(contestant.pixels) }
        try answer(["ready": true, "cosines": contestants.map { $0.cosine as Any? ?? NSNull() }])
        let clock = ContinuousClock()
        while readLine() != nil {
            let times = try contestants.map { contestant in
                try clock.measure { _ = try contestant.tower.features(contestant.pixels) } / .milliseconds(1)
            }
            try answer(["milliseconds": times])
        }
    }
}

/// The least cosine similarity of two features' rows; `nil` if their sizes differ.
private func leastCosine(_ a: [Float], _ b: [Float], width: Int) -> Double? {
    guard a.count == b.count, width > 0, !a.isEmpty else { return nil }
    return stride(from: 0, to: a.count, by: width).map { row in
        var (dot, squareA, squareB) = (0.0, 0.0, 0.0)
        for index in row ..< min(row + width, a.count) {
            dot += Double(a[index]) * Double(b[index])
            squareA += Double(a[index]) * Double(a[index])
            squareB += Double(b[index]) * Double(b[index])
        }
        return dot / (squareA * squareB).squareRoot()
    }.min()
}

extension Precision: ExpressibleByArgument {}
