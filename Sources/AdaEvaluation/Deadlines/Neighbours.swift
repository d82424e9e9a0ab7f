import AdaLLaVA
import Foundation

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#endif

/// Other programs that come and go while answers are measured: busy processes, started and stopped by a script from a seed.
package struct NeighbourScript: Sendable, Equatable {
    /// The neighbour's load.
    package enum Kind: String, Sendable, CaseIterable {
        /// A loop in registers: takes a core's time.
        case compute
        /// Reads more memory than caches hold: takes the memory's bandwidth too.
        case memory
    }

    /// One process's busy times, in seconds.
    package struct Neighbour: Sendable, Equatable {
        package let kind: Kind
        package let busy: [Range<Double>]
    }

    package let neighbours: [Neighbour]

    /// - Parameters:
    ///   - count: processes, busy at most all at once.
    ///   - seconds: how long the script is; each process is busy for two fifths of it, a few times.
    package init(count: Int, seconds: Double, seed: UInt64) {
        var random = SplitMix64(seed: seed)
        func exponential(_ mean: Double) -> Double { -mean * log(max(random.unit(), 1e-9)) }
        let mean = max(seconds / 12, 0.2)
        neighbours = (0 ..< count).map { index in
            var busy: [Range<Double>] = [], time = exponential(1.5 * mean)
            while time < seconds {
                let end = min(time + exponential(mean), seconds)
                busy.append(time ..< end)
                time = end + exponential(1.5 * mean)
            }
            return Neighbour(kind: Kind.allCases[index % Kind.allCases.count], busy: busy)
        }
    }

    /// How many are busy at a time.
    package func busy(at time: Double) -> Int { neighbours.count { $0.busy.contains { $0.contains(time) } } }
}

/// The processes of a script.
package final class Neighbours: @unchecked Sendable {
    private let script: NeighbourScript
    private let processes: [Process]
    private var isBusy: [Bool]

    /// Starts the processes, all stopped.
    /// - Parameter command: the executable and the arguments before the kind that make a process busy; it ends when its parent does.
    /// - Throws: errors of starting a process.
    package init(_ script: NeighbourScript, command: (executable: URL, arguments: [String])) throws {
        self.script = script
        isBusy = Array(repeating: false, count: script.neighbours.count)
        processes = try script.neighbours.map { neighbour in
            let process = Process()
            process.executableURL = command.executable
            process.arguments = command.arguments + [neighbour.kind.rawValue]
            process.standardOutput = FileHandle.nullDevice
            process.standardError = FileHandle.nullDevice
            try process.run()
            kill(process.processIdentifier, SIGSTOP)
            return process
        }
    }

    /// Lets those run that are busy at a time of the script, and stops the others.
    package func set(time: Double) {
        for (index, neighbour) in script.neighbours.enumerated() {
            let busy = neighbour.busy.contains { $0.contains(time) }
            if busy == isBusy[index] { continue }
            kill(processes[index].processIdentifier, busy ? SIGCONT : SIGSTOP)
            isBusy[index] = busy
        }
    }

    /// Lets all run, independent of the script.
    package func setAllBusy() {
        for process in processes { kill(process.processIdentifier, SIGCONT) }
        isBusy = isBusy.map { _ in true }
    }

    package func stop() {
        for process in processes {
            kill(process.processIdentifier, SIGKILL)
            process.waitUntilExit()
        }
    }

    /// Keeps this process busy until its parent has ended.
    package static func keepBusy(_ kind: NeighbourScript.Kind) {
        let parent = getppid()
        var values = [UInt64](repeating: 1, count: kind == .memory ? 16 << 20 : 64), sum: UInt64 = 1
        while getppid() == parent {
            for round in 0 ..< (kind == .memory ? 1 : 1 << 20) {
                for index in stride(from: 0, to: values.count, by: 8) { sum = sum &* 6_364_136_223_846_793_005 &+ values[index] &+ UInt64(round) }
                values[Int(sum % UInt64(values.count))] = sum
            }
        }
    }
}
