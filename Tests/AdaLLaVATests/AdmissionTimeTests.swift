import Foundation
import Synchronization
import Testing

@testable import AdaLLaVA

/// Requests that are refused because they could not be in time. Times are made up: a prompt takes hours, whatever the test takes.
@Suite struct AdmissionTimeTests {
    /// A predictor for which a prompt's layer takes an hour.
    private static func outlook(_ prompts: [(order: WorkOrder, nanoseconds: Double)] = []) throws -> (outlook: WorkOutlook, prompt: Duration) {
        let configuration = try Checkpoint.open(at: Fixtures.url("ada-L")).configuration
        let planner = TimePlanner(configuration, weightBytes: 4)
        var coefficients = StepCounts()
        coefficients[.chunkLayers] = 3600e9
        planner.use(TimeModel(coefficients: coefficients), imageNanoseconds: 0)
        let outlook = WorkOutlook(planner, isAdaptive: true, prompts: prompts)
        return (outlook, Duration(nanoseconds: outlook.floor(work(nil)).prompt))
    }

    private static func work(_ deadline: ContinuousClock.Instant?) -> QueuedWork {
        var work = QueuedWork(positions: 20, images: 0, maxTokens: 2)
        work.deadline = deadline
        return work
    }

    private static func order(within limit: Duration?, client: String = "") -> Admission.Order {
        let deadline = limit.map { ContinuousClock.now + $0 }
        return Admission.Order(deadline: deadline, client: client, work: work(deadline))
    }

    private static func isLate(_ error: any Error) -> Bool { if case .late(let wait, let seconds)? = error as? AdmissionError { wait > .zero && seconds >= 1 } else { false } }

    @Test("a request is refused once others leave it no time even at the floor, not before") func refuses() async throws {
        let (outlook, prompt) = try Self.outlook()
        let admission = Admission(limit: 1, waitingLimit: 100, longestWait: prompt * 3.5, outlook: { outlook })
        let running = try await admission.lease(Self.order(within: nil), slots: 1)
        // Two that wait fit before a deadline of three and a half prompts; a third one does not.
        let waiting = (0 ..< 3).map { _ in Task { try await admission.lease(Self.order(within: prompt * 3.5), slots: 1) } }
        while admission.counts.waiting < 3 { await Task.yield() }
        await #expect(performing: { try await admission.lease(Self.order(within: prompt * 3.5), slots: 1) }, throws: Self.isLate)
        // One with an earlier deadline comes before them.
        let urgent = Task { try await admission.lease(Self.order(within: prompt * 1.5), slots: 1) }
        while admission.counts.waiting < 4 { await Task.yield() }
        // One without a deadline would wait for them all.
        await #expect(performing: { try await admission.lease(Self.order(within: nil), slots: 1) }, throws: Self.isLate)
        // One that is late by itself is told so in its answer, as without a server.
        let hopeless = Task { try await admission.lease(Self.order(within: prompt * 0.5), slots: 1) }
        while admission.counts.waiting < 5 { await Task.yield() }
        #expect(admission.backlog.count == 5)
        for task in waiting + [urgent, hopeless] { task.cancel() }
        for task in waiting + [urgent, hopeless] { await #expect(throws: CancellationError.self) { try await task.value } }
        running.end()
        #expect(admission.counts == (0, 0))
    }

    @Test("prompts that admitted requests still read count") func admitted() async throws {
        let (_, prompt) = try Self.outlook()
        let before = WorkOrder(priority: 0, deadline: .now, called: .now), (outlook, _) = try Self.outlook([(before, (prompt * 2).nanoseconds)])
        let admission = Admission(limit: 8, waitingLimit: 8, longestWait: prompt * 2.5, outlook: { outlook })
        await #expect(performing: { try await admission.lease(Self.order(within: nil), slots: 1) }, throws: Self.isLate)
        await #expect(performing: { try await admission.lease(Self.order(within: prompt * 2.5), slots: 1) }, throws: Self.isLate)
        try await admission.lease(Self.order(within: prompt * 3.5), slots: 1).end()
    }

    @Test("a waiting request whose time is over is let go when a turn ends") func drops() async throws {
        let (outlook, prompt) = try Self.outlook()
        let admission = Admission(limit: 1, waitingLimit: 8, outlook: { outlook })
        let running = try await admission.lease(Self.order(within: nil), slots: 1)
        // In time for a moment.
        let waiting = Task { try await admission.lease(Self.order(within: prompt + .milliseconds(300)), slots: 1) }
        while admission.counts.waiting < 1 { await Task.yield() }
        try await Task.sleep(for: .milliseconds(400))
        running.end()
        await #expect(performing: { try await waiting.value }, throws: Self.isLate)
        #expect(admission.counts == (0, 0))
    }

    private final class Names: Sendable {
        private let all = Mutex<[String]>([])
        var values: [String] { all.withLock { $0 } }

        func add(_ name: String) { all.withLock { $0.append(name) } }
    }

    @Test("experiments' policies take requests as they arrive or by deadline, and refuse none") func policies() async throws {
        let (outlook, prompt) = try Self.outlook()
        for (policy, expected) in [(Admission.Policy.arrival, ["late", "soon"]), (.deadline, ["soon", "late"])] {
            let admission = Admission(limit: 1, waitingLimit: 8, longestWait: .zero, policy: policy, outlook: { outlook })
            let running = try await admission.lease(Self.order(within: nil), slots: 1)
            let names = Names()
            try await withThrowingTaskGroup(of: Void.self) { group in
                for (index, item) in [("late", prompt * 0.9), ("soon", prompt * 0.1)].enumerated() {
                    group.addTask { try await admission.admit(Self.order(within: item.1), slots: 1) { names.add(item.0) } }
                    while admission.counts.waiting <= index { await Task.yield() }
                }
                running.end()
                try await group.waitForAll()
            }
            #expect(names.values == expected)
        }
    }
}
