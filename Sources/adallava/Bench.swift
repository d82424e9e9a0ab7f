import ArgumentParser

struct Bench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Run the published experiments, and time single operations, on this machine.",
        discussion: """
              adallava bench sweep photo.jpg "What is on the left?"
              adallava bench throughput --model M.gguf --threads 2 --prompt-tokens 600 --generate 64
              adallava bench kernels --shape 7b --types q4_0

            Each warms up, repeats, and prints a table with 95 % confidence intervals, machine, model and build; --format json and --format csv are for \
            programs. --output DIR stores both and the chart, --chart FILE only the chart. Ctrl-C ends with the results so far. docs/benchmarks.md \
            explains the results.
            """,
        subcommands: [BenchSweep.self, BenchRequests.self, BenchLinearity.self, BenchThroughput.self, BenchKernels.self, BenchDeadline.self, BenchSlo.self, BenchSpeculation.self])
}
