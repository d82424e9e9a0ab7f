import AdaLLaVA
import Foundation

/// Prepares the samples of coming steps on background threads, so that the device never waits for images.
final class SampleLoader: @unchecked Sendable {
    /// The record numbers of a step, of one epoch.
    struct Request: Sendable {
        let epoch: Int
        let numbers: [Int]
    }

    /// A step's samples, and the errors of those that could not be built.
    struct Loaded {
        var samples: [TrainingSample] = []
        var failures: [any Error] = []
    }

    private final class Pending: @unchecked Sendable {
        let done = DispatchGroup()
        let lock = NSLock()
        var results: [Result<TrainingSample, any Error>?]

        init(count: Int) { results = Array(repeating: nil, count: count) }
    }

    private let builder: SampleBuilder
    private let request: (Int) -> Request?
    private let queue = OperationQueue()
    private let depth: Int
    private var pending: [Int: Pending] = [:]

    /// - Parameters:
    ///   - depth: steps that are prepared ahead.
    ///   - request: the samples of a step; `nil` after the last one.
    init(_ builder: SampleBuilder, workers: Int, depth: Int = 3, request: @escaping (Int) -> Request?) {
        (self.builder, self.depth, self.request) = (builder, depth, request)
        queue.maxConcurrentOperationCount = workers
    }

    /// The samples of a step; waits for them if they are not ready.
    func load(_ step: Int) -> Loaded {
        for ahead in step ... step + depth where pending[ahead] == nil {
            if let request = request(ahead) { pending[ahead] = start(request) }
        }
        guard let mine = pending.removeValue(forKey: step) else { return Loaded() }
        mine.done.wait()
        var loaded = Loaded()
        for result in mine.lock.withLock({ mine.results }) {
            switch result {
            case .success(let sample): loaded.samples.append(sample)
            case .failure(let error): loaded.failures.append(error)
            case nil: break
            }
        }
        return loaded
    }

    func cancel() {
        queue.cancelAllOperations()
        queue.waitUntilAllOperationsAreFinished()
    }

    private func start(_ request: Request) -> Pending {
        let pending = Pending(count: request.numbers.count)
        let builder = builder
        let chunk = 4
        for first in stride(from: 0, to: request.numbers.count, by: chunk) {
            pending.done.enter()
            let operation = BlockOperation {
                for place in first ..< min(first + chunk, request.numbers.count) {
                    let result = Result { try builder.sample(request.numbers[place], epoch: request.epoch) }
                    pending.lock.withLock { pending.results[place] = result }
                }
            }
            // Also when it is cancelled before it has begun.
            operation.completionBlock = { pending.done.leave() }
            queue.addOperation(operation)
        }
        return pending
    }
}
