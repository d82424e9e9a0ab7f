import Foundation
import Testing

@Suite struct HelpTests {
    static let model = ["--mmproj", "--template", "--chat-template", "--threads", "--precision"]
    static let sampling = [
        "--budget", "--max-tokens", "--temperature", "--top-p", "--top-k", "--min-p", "--repetition-penalty", "--seed", "--stop", "--system",
    ]

    static let commands: [(command: String, options: [String])] = [
        ("ask", ["--model", "--json", "--quiet"] + model + sampling),
        ("chat", ["--model", "--json", "--quiet", "--image", "/image", "/budget", "/system", "/retry", "/save", "/clear", "/exit", "ADALLAVA_HISTORY"] + model + sampling),
        ("inspect", ["--json", "--mmproj", "--template", "--chat-template"]),
        ("trace", ["--image", "--no-image", "--prompt", "--tokens", "--budget", "--max-tokens", "--output", "--layers", "--json"] + model),
        ("data", ["scenes"]),
        ("explain", ["--data", "--image", "--prompt", "--budgets", "--limit", "--seed", "--examples", "--output", "--model", "--json"] + model),
    ]

    // A failure means that people cannot find an option that the documentation names.
    @Test("help names every documented option", arguments: commands)
    func options(command: String, options: [String]) throws {
        let result = try Command.run(command, "--help")
        #expect(result.status == 0 && result.errors.isEmpty)
        for option in options { #expect(result.output.contains(option), "\(command): \(option)") }
    }

    // A failure means that the first thing people type does not say what there is, or what the exit codes mean.
    @Test("the overview lists commands and exit codes") func overview() throws {
        let result = try Command.run("--help")
        #expect(result.status == 0)
        for word in ["ask", "chat", "inspect", "trace", "64 usage", "65", "66", "70", "74"] { #expect(result.output.contains(word), "\(word)") }
        #expect(try Command.run("--version").output.hasPrefix("adallava "))
    }

    // A failure means that `trace` offers an option which it then refuses.
    @Test("trace takes its model as argument") func traceTakesItsModelAsArgument() throws {
        #expect(try !Command.run("trace", "--help").output.contains("--model "))
    }
}
