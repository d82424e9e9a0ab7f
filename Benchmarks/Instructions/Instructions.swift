import AdaLLaVA
import AdaProbes
import Dispatch
import Foundation
import Synchronization

/// Runs the engine's hot paths once each, on one thread and with made-up input, so that valgrind can count their instructions.
///
/// Counts barely depend on what else the machine does, unlike times. `scripts/check-instructions.py` runs this and compares. It is a program of
/// its own, because valgrind 3.19 crashes in `dispatch_main`, where an asynchronous `main` waits.
@main
struct Instructions {
    static func main() {
        let done = DispatchSemaphore(value: 0)
        Task.detached {
            do {
                try await run(checkpoint: CommandLine.arguments.dropFirst().first ?? "Models/scenes/L")
                done.signal()
            } catch {
                FileHandle.standardError.write(Data("adallava-instructions: \(error)\n".utf8))
                exit(70)
            }
        }
        done.wait()
    }

    /// - Parameter checkpoint: an adaptive one with a vision tower.
    private static func run(checkpoint: String) async throws {
        let opened = try Checkpoint.open(at: URL(fileURLWithPath: checkpoint))
        var options = AdaptiveModel.Options()
        options.threads = 1
        let model = try await AdaptiveModel(opened, options: options)
        let tower = try VisionTower(opened, threads: 1)
        var random = SplitMix64(seed: 1)
        let side = tower.configuration.imageSize
        let pixels = (0 ..< 3 * side * side).map { _ in Float(random.unit() * 2 - 1) }
        let vocabulary = opened.configuration.language.vocabularySize
        let ids = (0 ..< 192).map { _ in random.index(below: vocabulary) }
        let plans = try [0.4, 0.6, 0.8].map { try model.plan(share: $0, &random) }
        // The first encoding also fills the workspace.
        _ = try tower.features(pixels)
        endPath("load")

        _ = try tower.features(pixels)
        endPath("encode")

        // The prompt and one token, which prepares the layers; then tokens that find them prepared.
        let tokens = Mutex(0)
        _ = try await model.measureDecoder(prompt: ids, tokens: Array(ids.prefix(5))) {
            endPath(tokens.withLock { count in
                count += 1
                return count == 1 ? "prefill" : "decode"
            })
        }

        _ = try await model.measureSteps([[nil] + plans], prompt: Array(ids.prefix(16)), steps: 4)
        endPath("batch")

        _ = try await model.measurePlanning(budget: .fraction(0.6), repeats: 10)
        endPath("plan")
    }
}

/// The script lets valgrind report its count at each call of this function, by its name.
@inline(never) private func endPath(_ name: String) { print(name) }

extension AdaptiveModel {
    /// A plan from random scores that keeps about this share of the optional units.
    fileprivate func plan(share: Double, _ random: inout SplitMix64) throws -> ExecutionPlan {
        let logits = (0 ..< switchCount).map { _ in Float(random.unit()) }
        let optional = budgetUnits.map { $0.total - $0.prefix } ?? 0
        return try plan(switchLogits: logits, units: Int(share * Double(optional)))
    }
}
