import AdaLLaVA
import Foundation

/// The system's limits of the process. Below some of them the process would hang or crash without an explanation, so they are checked first.
enum SystemLimits {
    struct Shortage: AdaLLaVAError {
        let description: String
        var category: ErrorCategory { .inputOutput }
    }

    private static let openFiles = 16
    private static let stackBytes = 1 << 20
    /// Address space in addition to the model: mostly stacks and the allocator's arenas, which are reserved and hardly used.
    private static let addressBytes = 640 << 20

    /// - Throws: ``Shortage``
    static func check() throws {
        #if os(Linux)
            try checkLinux()
        #endif
    }

    #if os(Linux)
        private static func checkLinux() throws {
            for (name, resource, least, unit, option) in [
                ("open files", Int(RLIMIT_NOFILE.rawValue), openFiles, 1, "n"), ("the stack", Int(RLIMIT_STACK.rawValue), stackBytes, 1024, "s"),
                ("address space", Int(RLIMIT_AS.rawValue), addressBytes, 1024, "v"),
            ] {
                guard let limit = softLimit(resource), limit < least else { continue }
                let kilobytes = unit == 1 ? "" : " kB"
                throw Shortage(
                    description: "the limit of \(name) is \(limit / unit)\(kilobytes), at least \(least / unit)\(kilobytes) are needed; raise it: ulimit -\(option)")
            }
            // Who works on tasks and on products, and who waits for signals and time.
            let wanted = ProcessInfo.processInfo.activeProcessorCount * 2 + 6
            let started = startThreads(wanted)
            if started < wanted {
                let limit = softLimit(Int(__RLIMIT_NPROC.rawValue)).map { ", of which \($0) are allowed to this user (ulimit -u)" } ?? ""
                throw Shortage(description: "the system gives \(started) threads where \(wanted) are needed; end other processes\(limit)")
            }
        }

        private static func softLimit(_ resource: Int) -> Int? {
            var limits = rlimit()
            guard getrlimit(__rlimit_resource_t(UInt32(resource)), &limits) == 0, limits.rlim_cur != rlim_t.max else { return nil }
            return Int(clamping: limits.rlim_cur)
        }

        /// Starts threads that are there at the same time and end at once.
        /// - Returns: how many could be started.
        private static func startThreads(_ count: Int) -> Int {
            let gate = DispatchSemaphore(value: 0)
            var threads: [pthread_t] = []
            for _ in 0 ..< count {
                var thread = pthread_t()
                let argument = Unmanaged.passRetained(gate)
                let failure = pthread_create(
                    &thread, nil,
                    { argument in
                        guard let argument else { return nil }
                        Unmanaged<DispatchSemaphore>.fromOpaque(argument).takeRetainedValue().wait()
                        return nil
                    }, argument.toOpaque())
                guard failure == 0 else {
                    argument.release()
                    break
                }
                threads.append(thread)
            }
            for _ in threads { gate.signal() }
            for thread in threads { pthread_join(thread, nil) }
            return threads.count
        }
    #endif
}
