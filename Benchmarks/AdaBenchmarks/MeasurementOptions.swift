import ArgumentParser

/// What every measurement takes.
struct MeasurementOptions: ParsableArguments {
    @Option(name: [.customShort("t"), .customLong("threads")], help: "Threads; by default one per processor.")
    var threads: Int?

    @Option(help: "Also write the results to this file, as one JSON object.")
    var json: String?

    func validate() throws {
        if let threads, !(1 ... 256).contains(threads) { throw ValidationError("--threads: expected 1 to 256, found \(threads)") }
    }
}

/// How long a measurement's prompt is; each measurement has a length of its own for those who do not say.
struct PromptOption: ParsableArguments {
    @Option(help: "Tokens of the prompt; the default is in the measurement's description.")
    var prompt: Int?

    func validate() throws {
        if let prompt, !(1 ... 1 << 17).contains(prompt) { throw ValidationError("--prompt: expected 1 to \(1 << 17), found \(prompt)") }
    }
}
