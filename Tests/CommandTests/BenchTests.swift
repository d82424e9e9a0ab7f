import Foundation
import Testing

/// `adallava bench` on the embedded model, with few repeats.
@Suite struct BenchTests {
    private static let image = Files.scene()
    private static let model = ["--model", Files.referenceModel.path]

    // A failure means that people cannot find an experiment, or an option that the documentation names.
    @Test("help names the experiments and their options", arguments: [
        ([], ["sweep", "requests", "linearity", "throughput", "speculation"]),
        (["speculation"], ["--model", "--speculate", "--budget", "--repeat", "--max-tokens"]),
        (["sweep"], ["--model", "--budgets", "--repeat", "--max-tokens", "--formula", "--threads", "--csv"]),
        (["requests"], ["--image", "--data", "--questions", "--requests", "--repeat", "--budget", "--max-tokens", "--csv"]),
        (["linearity"], ["--model", "--budgets", "--image", "--prompt-tokens", "--generate", "--repeat", "--csv"]),
        (["throughput"], ["--model", "--threads", "--prompt-tokens", "--generate", "--repeat", "--budgets", "--format", "--precision"]),
    ])
    func help(command: [String], words: [String]) throws {
        let result = try Command.run(["bench"] + command + ["--help"])
        #expect(result.status == 0)
        for word in words + (command.isEmpty ? [] : ["--json", "--chart", "--output", "--charts"]) {
            #expect(result.output.contains(word), "\(command): \(word)")
        }
    }

    // A failure means that the sweep fails below the floor, or does not say where that is.
    @Test("a sweep reports every budget and the floor") func sweep() throws {
        let result = try Command.run(["bench", "sweep", Self.image, "What is in the image?", "--repeat", "2", "--json"] + Self.model)
        #expect(result.status == 0, "\(result.errors)")
        let object = try result.json()
        #expect(object["floor"] as? Double == 0.5)
        let results = try #require(object["results"] as? [[String: Any]])
        #expect(results.compactMap { $0["budget"] as? Double } == [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
        #expect(results.compactMap { $0["below_floor"] as? Bool }.count { $0 } == 4)
        #expect(results.allSatisfy { ($0["flops"] as? Double ?? 0) > 0 && ($0["memory_consumption"] as? Double ?? 0) > 1e6 && $0["answer"] is String })
        // What ran below the floor is the floor.
        #expect(results[9]["answer"] as? String == results[5]["answer"] as? String)
        #expect(results[9]["flops"] as? Double == results[5]["flops"] as? Double)

        let table = try Command.run(["bench", "sweep", "--image", Self.image, "-p", "What?", "--repeat", "1", "--budgets", "1,0.2"] + Self.model)
        for word in ["the floor is 0.5", "0.2 *", "machine", "build", "scenes-ref", "release", "GFLOP", "prefill ms"] {
            #expect(table.output.contains(word) || (word == "release" && table.output.contains("debug")), "\(word): \(table.output)")
        }
    }

    // A failure means that drafts change answers, or that nobody can see what they bring.
    @Test("drafts are measured beside decode without them") func speculation() throws {
        let result = try Command.run(
            ["bench", "speculation", Self.image, "Describe the image.", "--repeat", "2", "-n", "24", "--speculate", "auto,3", "--json"] + Self.model)
        #expect(result.status == 0, "\(result.errors)")
        let object = try result.json()
        #expect(object["tokens"] as? Int == 24 && object["complete"] as? Bool == true)
        let results = try #require(object["results"] as? [[String: Any]])
        #expect(results.compactMap { $0["speculate"] as? String } == ["off", "auto", "3"])
        #expect(results.allSatisfy { $0["same"] as? Bool == true })
        let counts = try results.map { try #require($0["speculation"] as? [String: Int]) }
        #expect(counts[0]["drafted"] == 0 && counts[2]["verifications"] ?? 0 > 0 && counts[2]["drafted"] ?? 0 >= counts[2]["accepted"] ?? 0)
    }

    // A failure means that other programs cannot read the fit, or that the tower's cost is hidden.
    @Test("linearity reports its points and fits") func linearity() throws {
        let result = try Command.run(["bench", "linearity", "--repeat", "2", "--generate", "10", "--json"] + Self.model)
        #expect(result.status == 0, "\(result.errors)")
        let object = try result.json()
        let points = try #require(object["points"] as? [[String: Any]])
        #expect(points.compactMap { $0["budget"] as? Double } == [1, 0.9, 0.8, 0.7, 0.6, 0.5])
        for key in ["flops", "ttft_ms", "whole_ms", "per_token_ms", "tower_share"] {
            #expect(points.allSatisfy { ($0[key] as? Double ?? 0) > 0 }, "\(key)")
        }
        // An image that were encoded only once would cost nothing from then on.
        #expect(points.allSatisfy { ($0["encode_flops"] as? Double ?? 0) > 0 })
        let squares = try #require(object["r_squared"] as? [String: Double])
        #expect(Set(squares.keys) == ["ttft", "whole", "decode"] && squares.values.allSatisfy { $0 <= 1 })
    }

    @Test("bench requests names damaged images in a warning and counts them, as eval does")
    func requestsCountDamagedImages() throws {
        let damaged = Files.fixture("image-files/damaged-checksum.png").path
        let result = try Command.run(
            ["bench", "requests", "--image", Files.scene(), damaged, "--repeat", "1", "--requests", "2", "--json"] + Self.model)
        #expect(result.status == 0 && result.errors.contains("warning: \(damaged): the PNG image is damaged"), "\(result.errors)")
        #expect(result.errors.components(separatedBy: "is damaged").count == 2)
        let report = try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any]
        #expect(report?["damaged_images"] as? Int == 1)
    }

    // A failure means that requests are not told apart by what the model already knows.
    @Test("requests are reported by pattern") func requests() throws {
        let images = ["00", "01", "02", "03"].map(Files.scene)
        let result = try Command.run(["bench", "requests", "--image"] + images + ["--repeat", "2", "--requests", "3", "--json"] + Self.model)
        #expect(result.status == 0, "\(result.errors)")
        let results = try #require(try result.json()["results"] as? [[String: Any]])
        #expect(results.compactMap { $0["pattern"] as? String } == ["cold", "same_image", "other_images"])
        #expect(results.compactMap { $0["n"] as? Int } == [2, 6, 6])
        let data = Files.fixture("benchmarks/scenes/val.json").path
        let table = try Command.run(["bench", "requests", "--data", data, "--repeat", "1", "--requests", "2"] + Self.model)
        #expect(table.status == 0)
        for word in ["cold first request", "same image, other questions", "other images, other questions", "inter-request", "median", "deviation"] {
            #expect(table.output.contains(word), "\(word)")
        }
    }

    // A failure means that speeds cannot be compared with llama-bench's, or that a model, a budget or a number of threads is left out.
    @Test("throughput is reported as llama-bench does") func throughput() throws {
        let arguments = ["bench", "throughput", "--prompt-tokens", "60", "--generate", "6", "--repeat", "2", "--budgets", "1.0,0.5", "--threads", "1,2"] + Self.model
        let result = try Command.run(arguments + ["--json"])
        #expect(result.status == 0, "\(result.errors)")
        let results = try #require(try result.json()["results"] as? [[String: Any]])
        #expect(results.count == 8)
        #expect(results.compactMap { $0["threads"] as? Int } == [1, 1, 1, 1, 2, 2, 2, 2])
        for entry in results {
            #expect(["prefill", "decode"].contains(entry["kind"] as? String) && (entry["tokens_per_second"] as? Double ?? 0) > 0)
            #expect(entry["deviation"] is Double && [1, 0.5].contains(entry["budget"] as? Double))
        }
        let csv = try Command.run(arguments + ["--format", "csv"])
        #expect(csv.output.hasPrefix("build,processor,model,") && csv.output.split(separator: "\n").count == 9)
        let markdown = try Command.run(arguments)
        #expect(markdown.output.contains("| model ") && markdown.output.contains("tg6 @ d60") && markdown.output.contains("pp60"))
    }

    // A failure means that results or charts are lost, or that a machine without gnuplot measures nothing.
    @Test("results and charts are written to files") func files() throws {
        try withTemporaryFolder { folder in
            let run = ["bench", "throughput", "--prompt-tokens", "30", "--generate", "4", "--repeat", "2"] + Self.model
            let output = folder.appendingPathComponent("new/results")
            let chart = folder.appendingPathComponent("speed.png")
            let bare = ["PATH": "/nowhere"]
            let without = try Command.run(run + ["--output", output.path], environment: bare)
            #expect(without.status == 0 && without.errors.contains("apt-get install gnuplot-nox") && without.output.contains("| model"))
            #expect(try FileManager.default.contentsOfDirectory(atPath: output.path).sorted() == ["throughput.csv", "throughput.json"])
            // A chart that was asked for by name is missed.
            let missed = try Command.run(run + ["--chart", chart.path], environment: bare)
            #expect(missed.status == 66 && missed.output.contains("| model") && !FileManager.default.fileExists(atPath: chart.path))

            guard FileManager.default.isExecutableFile(atPath: "/usr/bin/gnuplot") else { return }
            let drawn = try Command.run(run + ["--output", output.path, "--chart", chart.path])
            #expect(drawn.status == 0, "\(drawn.errors)")
            #expect(try Data(contentsOf: chart).prefix(4) == Data([0x89, 0x50, 0x4E, 0x47]))
            #expect(FileManager.default.fileExists(atPath: output.appendingPathComponent("throughput.svg").path))
        }
    }

    static let refusals: [(arguments: [String], status: Int32, words: [String])] = [
        (["sweep", Files.scene()], 64, ["question"]),
        (["sweep", "--image", Files.scene(), "-p", "What?", "Where?"], 64, ["expected an image and a question, found Where?"]),
        (["sweep", "/nowhere.png", "What?"], 66, ["/nowhere.png"]),
        (["sweep", Files.scene(), "What?", "--budgets", "0"], 64, ["above 0"]),
        (["sweep", Files.scene(), "What?", "--budgets", ""], 64, ["--budgets"]),
        (["sweep", Files.scene(), "What?", "--budgets", "1,1.0"], 64, ["each budget once"]),
        (["sweep", Files.scene(), "What?", "--budgets", "300ms"], 64, ["fractions"]),
        (["sweep", Files.scene(), "What?", "--repeat", "-1"], 64, ["--repeat", "-1"]),
        (["sweep", Files.scene(), "What?", "--max-tokens", "0"], 64, ["--max-tokens"]),
        (["sweep", Files.scene(), "What?", "--json", "--csv"], 64, ["--json", "--csv"]),
        (["sweep", Files.scene(), "What?", "--chart", "x.gif"], 64, ["--chart", ".svg or .png"]),
        (["sweep", Files.scene(), "What?", "--chart", "/nowhere/x.png"], 74, ["/nowhere"]),
        (["sweep", Files.scene(), "What?", "--formula", "guess"], 64, ["guess"]),
        (["speculation"], 64, ["a question"]),
        (["speculation", "What?", "--speculate", "0"], 64, ["--speculate", "1 to 12"]),
        (["speculation", "What?", "--speculate", "auto,,3"], 64, ["--speculate"]),
        (["speculation", "What?", "-n", "1"], 64, ["--max-tokens"]),
        (["requests"], 64, ["--image", "--data"]),
        (["requests", "--image", Files.scene()], 64, ["two different images"]),
        (["requests", "--image", Files.scene(), "/nowhere.png"], 66, ["/nowhere.png"]),
        (["requests", "--data", "/nowhere.json"], 66, ["/nowhere.json"]),
        (["requests", "--image", Files.scene(), Files.scene("01"), "--requests", "0"], 64, ["--requests"]),
        (["requests", "--image", Files.scene(), Files.scene("01"), "--budget", "2"], 64, ["budget 2"]),
        (["linearity", "--budgets", "1,0.9"], 64, ["at least three"]),
        (["linearity", "--prompt-tokens", "5000"], 64, ["context", "512"]),
        (["linearity", "--generate", "1"], 64, ["--generate"]),
        (["linearity", "--repeat", "999999999999"], 64, ["--repeat"]),
        (["throughput", "--prompt-tokens", "600"], 64, ["511 tokens together", "600 and 64"]),
        (["throughput", "--prompt-tokens", "-5"], 64, ["--prompt-tokens", "-5"]),
        (["throughput", "--generate", "9223372036854775807"], 64, ["--generate"]),
        (["throughput", "--threads", "0"], 64, ["--threads"]),
        (["throughput", "--threads", "1,,2"], 64, ["--threads"]),
        (["throughput", "--threads", "2,2"], 64, ["each number once"]),
        (["throughput", "--format", "xml"], 64, ["xml"]),
        (["throughput", "--model", "/nowhere.gguf"], 66, ["/nowhere.gguf"]),
    ]

    // A failure means that a request which cannot be measured traps, is measured as something else, or is refused only after minutes.
    @Test("experiments that cannot be run are refused", arguments: refusals)
    func refuses(arguments: [String], status: Int32, words: [String]) throws {
        let named = arguments.contains("--model") ? [] : Self.model
        try expectFailure(["bench"] + arguments + named, status: status, saying: words)
    }

    // A failure means that a model which can only run whole is measured at half its compute.
    @Test("a model without a scheduler is measured whole") func modelWithoutScheduler() throws {
        let plain = ["--model", Files.fixture("llava-hf/old-layout").path]
        try expectFailure(["bench", "linearity"] + plain, status: 64, saying: ["no scheduler"])
        try expectFailure(
            ["bench", "throughput", "--prompt-tokens", "10", "--generate", "2", "--budgets", "1,0.5"] + plain, status: 64, saying: ["no scheduler"])
        let whole = try Command.run(["bench", "throughput", "--prompt-tokens", "10", "--generate", "2", "--repeat", "1", "--json"] + plain)
        #expect(whole.status == 0, "\(whole.errors)")
    }

    // A failure means that Ctrl-C throws away what was measured, or ends as if all had been.
    @Test("Ctrl-C keeps what was measured", .timeLimit(.minutes(2))) func stops() throws {
        // So many repeats that they take minutes.
        let process = Command.process(["bench", "throughput", "--prompt-tokens", "200", "--generate", "200", "--repeat", "1000", "--json"] + Self.model)
        let (output, errors) = (Pipe(), Pipe())
        (process.standardOutput, process.standardError, process.standardInput) = (output, errors, FileHandle.nullDevice)
        try process.run()
        // Off a terminal, progress is plain lines; the first comes after some repeats.
        var messages = Data()
        while true {
            let piece = errors.fileHandleForReading.availableData
            messages.append(piece)
            let text = String(decoding: messages, as: UTF8.self)
            // "measuring: 12 %": at least a repeat is whole.
            let percent = text.components(separatedBy: "measuring: ").last.flatMap { Int($0.prefix { $0.isNumber }) } ?? 0
            if piece.isEmpty || percent >= 1 { break }
        }
        process.interrupt()
        let result = output.fileHandleForReading.readDataToEndOfFile()
        messages.append(errors.fileHandleForReading.readDataToEndOfFile())
        process.waitUntilExit()
        #expect(process.terminationReason == .exit && process.terminationStatus == 130)
        #expect(String(decoding: messages, as: UTF8.self).contains("adallava: stopped after "))
        let object = try #require(try JSONSerialization.jsonObject(with: result) as? [String: Any])
        #expect(object["complete"] as? Bool == false && (object["results"] as? [Any])?.count == 2)
    }
}
