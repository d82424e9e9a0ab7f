import AdaLLaVA
import ArgumentParser
import Foundation

@main
struct AdaLLaVACommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "adallava",
        abstract: "Adaptive vision-language models: one set of weights, any latency budget (AdaLLaVA, Xu et al., ICCV 2025).",
        discussion: """
            Answers go to standard output, everything else to standard error. Exit codes: 0 done, 64 usage, 65 bad input data, \
            66 missing input, 70 a fault of this program, 74 input/output, 130 stopped by Ctrl-C.
            """,
        version: Version.description,
        subcommands: [
            Ask.self, Chat.self, Serve.self, Batch.self, Inspect.self, TraceRequest.self, Convert.self, Train.self, Auto.self, DataSets.self, Evaluate.self, Explain.self, Bench.self,
            Analyze.self, Perplexity.self, Calibrate.self, Neighbour.self,
        ],
        defaultSubcommand: nil)

    static func main() {
        // Writing to a closed pipe is an error instead of a signal, so that every exit can clean up.
        signal(SIGPIPE, SIG_IGN)
        // Before anything asynchronous: without a thread to start, its runtime waits for one for ever.
        do { try SystemLimits.check() } catch {
            Console.shared.message("adallava: \(error)")
            Exit.now((error as? any AdaLLaVAError)?.category.exitCode ?? 1)
        }
        Task { await run() }
        dispatchMain()
    }

    private static func run() async {
        let arguments = CommandArguments(of: AdaLLaVACommand.self)
        do {
            var command = try await asyncParseAsRoot(try arguments.prepared(CommandArguments.given))
            if var asynchronous = command as? any AsyncParsableCommand { try await asynchronous.run() } else { try command.run() }
            Exit.now(0)
        } catch {
            let code = exitCode(for: error)
            // The parser knows its own errors' command; those from before and after it would be shown with the usage of all commands.
            let own = (error as? ValidationError).map { "Error: \($0.message)\n\(arguments.usage(for: CommandArguments.given))" }
            let hint = code == .validationFailure ? arguments.hint(for: CommandArguments.given) : nil
            let text = (own ?? fullMessage(for: error)) + (hint.map { "\n" + $0 } ?? "")
            if !text.isEmpty {
                if code == .success { printNow(text) } else { Console.shared.message(text) }
            }
            Exit.now(code.rawValue)
        }
    }
}
