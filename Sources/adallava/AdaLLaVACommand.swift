import ArgumentParser

@main
struct AdaLLaVACommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "adallava",
        abstract: "Adaptive vision-language models: one set of weights, any latency budget (AdaLLaVA, Xu et al., ICCV 2025).",
        discussion: """
            Answers go to standard output, everything else to standard error. Exit codes: 0 done, 64 usage, 65 bad input data, \
            66 missing input, 70 our fault, 74 input/output, 130 stopped by Ctrl-C.
            """,
        version: "adallava 0.1.0",
        subcommands: [
            Ask.self, Chat.self, Inspect.self, TraceRequest.self, Convert.self, Train.self, DataSets.self, Evaluate.self, Explain.self, Bench.self,
            Analyze.self,
        ],
        defaultSubcommand: nil)
}
