import ArgumentParser

/// What the performance claims are measured with; `adallava-bench help` lists the measurements.
@main
struct AdaBenchmarks: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "adallava-bench",
        abstract: "Measure the engine on models with random weights, or on a checkpoint.",
        discussion: "Limits are ratios, so that they mean the same on every machine. A measurement that misses one ends with exit code 1.",
        subcommands: [PlanCost.self, StepCost.self, TowerCost.self, Memory.self, Overhead.self, DecodeBandwidth.self, WriteModel.self])
}
