import AdaLLaVA
import Foundation

/// State of a run after a step.
package struct TrainingProgress: Sendable, Codable, Equatable {
    package var step = 0
    package var totalSteps = 0
    package var epoch = 0.0
    /// Mean over the step's scored tokens.
    package var loss = 0.0
    /// The distillation term, before its weight.
    package var distillation: Double?
    /// The loss of `region_naming_weight`, before its weight: mean over the tokens that name rows of features.
    package var naming: Double?
    /// Shares of the regions' labels that were recognized, with the objective `region_labels`: by kind, and `name` for their words.
    package var recognized: [String: Double]?
    package var learningRate = 0.0
    /// Before clipping.
    package var gradNorm = 0.0
    package var samplesPerSecond = 0.0
    /// Positions, images' features among them.
    package var tokensPerSecond = 0.0
    package var secondsLeft = 0.0
    /// Of the process at most so far; on CUDA the device's.
    package var memoryBytes = 0
    package var skippedSamples = 0
}

/// `output_dir/training_log.jsonl`: one ``TrainingProgress`` a line.
struct TrainingLog {
    let url: URL

    /// Keeps the lines up to a step; a resumed run writes the later ones again.
    func truncate(after step: Int) throws {
        let kept = read().filter { $0.step <= step }
        try Files.write(Data(try kept.map { try TrainingLog.line($0) }.joined().utf8), to: url)
    }

    func append(_ progress: TrainingProgress) throws {
        do {
            let descriptor = Files.open(url.path, O_WRONLY | O_CREAT | O_APPEND)
            guard descriptor >= 0 else { throw SystemError() }
            let file = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
            try file.write(contentsOf: Data(TrainingLog.line(progress).utf8))
        } catch {
            throw TrainingError.unwritable(path: url.path, reason: error.localizedDescription)
        }
    }

    /// The whole lines; a last one that a kill cut off is left out.
    func read() -> [TrainingProgress] {
        guard let text = (try? Files.data(url)).map({ String(decoding: $0, as: UTF8.self) }) else { return [] }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return text.split(separator: "\n").compactMap { try? decoder.decode(TrainingProgress.self, from: Data($0.utf8)) }
    }

    private static func line(_ progress: TrainingProgress) throws -> String {
        String(decoding: try JSONText.data(progress, isSnakeCase: true), as: UTF8.self) + "\n"
    }
}

/// A chart of losses over steps, as SVG.
enum LossChart {
    static func svg(_ points: [TrainingProgress]) -> String {
        let (width, height, margin) = (900.0, 480.0, 56.0)
        let losses = points.map(\.loss).filter(\.isFinite)
        let (low, high) = (min(0, losses.min() ?? 0), max(losses.max() ?? 1, 1e-9))
        let lastStep = Double(max(points.last?.step ?? 1, 1))
        func x(_ step: Double) -> Double { margin + step / lastStep * (width - 2 * margin) }
        func y(_ loss: Double) -> Double { height - margin - (loss - low) / (high - low) * (height - 2 * margin) }
        func line(_ values: [(Int, Double)], _ style: String) -> String {
            let path = values.map { String(format: "%.1f,%.1f", x(Double($0.0)), y($0.1)) }.joined(separator: " ")
            return "<polyline fill=\"none\" \(style) points=\"\(path)\"/>\n"
        }
        func text(_ x: Double, _ y: Double, _ content: String, _ anchor: String = "middle") -> String {
            String(format: "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%@\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#444\">%@</text>\n", x, y, anchor, content)
        }
        var svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 \(Int(width)) \(Int(height))\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        for tick in 0 ... 4 {
            let share = Double(tick) / 4
            let loss = low + share * (high - low)
            svg += String(format: "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", margin, width - margin, y(loss), y(loss))
            svg += text(margin - 8, y(loss) + 4, String(format: "%.3g", loss), "end")
            svg += text(x(share * lastStep), height - margin + 20, "\(Int(share * lastStep))")
        }
        svg += text(width / 2, height - 12, "step") + text(width / 2, margin / 2 + 4, "training loss (thin: each step, thick: moving average)")
        svg += line(points.filter { $0.loss.isFinite }.map { ($0.step, $0.loss) }, "stroke=\"#9ecae1\" stroke-width=\"1\"")
        var average: Double?
        let smooth = points.filter { $0.loss.isFinite }.map { point -> (Int, Double) in
            let next = average.map { 0.95 * $0 + 0.05 * point.loss } ?? point.loss
            average = next
            return (point.step, next)
        }
        return svg + line(smooth, "stroke=\"#08519c\" stroke-width=\"2\"") + "</svg>\n"
    }
}
