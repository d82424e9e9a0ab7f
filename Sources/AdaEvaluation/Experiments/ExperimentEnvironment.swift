import AdaLLaVA
import Foundation

#if canImport(Darwin)
    import Darwin
#elseif canImport(Glibc)
    import Glibc
#endif

/// The machine and the build that an experiment ran on.
package struct ExperimentEnvironment: Codable, Sendable, Equatable {
    package let processor: String
    /// Processors that this process may run on.
    package let cores: Int
    package let system: String
    /// Processes that wanted to run over the last minute before the experiment: how quiet the machine was. `nil` if the system does not say.
    @Nullable package var loadAverage: Double?
    /// The program and its version.
    package let package: String
    package let swift: String
    /// `release` or `debug`.
    package let configuration: String

    enum CodingKeys: String, CodingKey {
        case processor, cores, system, package, swift, configuration
        case loadAverage = "load_average"
    }

    /// - Parameter package: the program and its version.
    package init(package: String) {
        processor = MachineCeilings.processorName()
        cores = ThreadPool.availableProcessors
        system = ProcessInfo.processInfo.operatingSystemVersionString
        var load = 0.0
        loadAverage = getloadavg(&load, 1) == 1 ? load : nil
        self.package = package
        swift = ExperimentEnvironment.swiftVersion
        #if DEBUG
            configuration = "debug"
        #else
            configuration = "release"
        #endif
    }

    /// The compiler of this file, as far as it can tell.
    private static var swiftVersion: String {
        #if compiler(>=6.5)
            "6.5 or later"
        #elseif compiler(>=6.4)
            "6.4"
        #elseif compiler(>=6.3)
            "6.3"
        #elseif compiler(>=6.2)
            "6.2"
        #else
            "6.1"
        #endif
    }

    var lines: [String] {
        let load = loadAverage.map { String(format: ", load %.2f", $0) } ?? ""
        return [
            "machine  \(processor), \(cores) core\(cores == 1 ? "" : "s"), \(system)\(load)", "build    \(package), Swift \(swift), \(configuration)",
        ]
    }
}
