import AdaEvaluation
import AdaLLaVA

/// What `--version` prints.
enum Version {
    /// The program and its version, as reports of measurements name them.
    static let name = "adallava 0.1.0"

    static var description: String {
        let build = ExperimentEnvironment(package: name)
        // Kernels that were asked for by name and are not there are an error of the commands that compute.
        let kernels = (try? KernelSet())?.name ?? "none"
        return """
            \(name)
            commit   \(BuildStamp.commit.isEmpty ? "unknown" : BuildStamp.commit)\(BuildStamp.date.isEmpty ? "" : ", \(BuildStamp.date)")
            kernels  \(kernels)
            Swift    \(build.swift), \(build.configuration)
            """
    }
}
