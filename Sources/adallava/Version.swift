import AdaEvaluation
import AdaLLaVA

/// The output of `--version`.
enum Version {
    /// The program and its version, as reports of measurements name them.
    static let name = "adallava 0.1.0"

    static var description: String {
        let build = ExperimentEnvironment(package: name)
        // If kernels requested by name do not exist, the commands that compute report it.
        let kernels = (try? KernelSet())?.name ?? "none"
        return """
            \(name)
            commit   \(BuildStamp.commit.isEmpty ? "unknown" : BuildStamp.commit)\(BuildStamp.date.isEmpty ? "" : ", \(BuildStamp.date)")
            kernels  \(kernels)
            Swift    \(build.swift), \(build.configuration)
            """
    }
}
