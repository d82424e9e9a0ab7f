import Foundation
import Testing

/// Time budgets on the command line. The reference implementation's model, with a cache folder of its own.
@Suite struct DeadlineCommandTests {
    private static let model = ["--model", Files.referenceModel.path]

    // A failure means that programs which read the JSON object find other keys than they were promised, or that a model is measured again each time.
    @Test("predicted and measured have the same keys") func predictedAndMeasuredHaveTheSameKeys() throws {
        try withTemporaryFolder { folder in
            let environment = ["XDG_CACHE_HOME": folder.path]
            let report = try Command.run(["calibrate", "--json"] + Self.model, environment: environment)
            #expect(report.status == 0, "\(report.errors)")
            let calibration = try #require(try report.json()["calibration"] as? [String: Any])
            #expect((calibration["nanoseconds"] as? [String: Double])?.values.contains { $0 > 0 } == true)
            #expect(FileManager.default.fileExists(atPath: try #require(calibration["file"] as? String)))

            let whole = try Command.run(
                ["ask", Files.scene("03"), "Describe the image.", "--budget", "3600s", "--json"] + Self.model, environment: environment)
            #expect(whole.status == 0 && !whole.errors.contains("measuring this model"), "\(whole.errors)")
            let object = try whole.json(), adaptive = try #require(object["adaptive"] as? [String: Any])
            #expect(adaptive["budget"] as? String == "3600000ms" && adaptive["units"] as? Int == 4 && adaptive["calibrated"] as? Bool == true)
            #expect((adaptive["changes"] as? [Any])?.isEmpty == true && (adaptive["load"] as? Double ?? 0) > 0)
            let predicted = try #require(adaptive["predicted"] as? [String: Any]), measured = try #require(object["measured"] as? [String: Any])
            let keys = ["decode_ms", "encode_ms", "prefill_ms", "ttft_ms", "whole_ms"]
            #expect(predicted.keys.sorted() == keys && measured.keys.sorted() == keys)
            for key in keys { #expect((predicted[key] as? Double ?? -1) >= 0 && (measured[key] as? Double ?? 0) > 0, "\(key)") }
            #expect(object["loading_ms"] as? Double ?? 0 > 0)
        }
    }

    // A failure means that a deadline that cannot be met is kept silent about, or that strictness exits as if the answer were there.
    @Test("late answers warn and strict ones are refused") func lateAnswersWarnAndStrictOnesAreRefused() throws {
        try withTemporaryFolder { folder in
            let environment = ["XDG_CACHE_HOME": folder.path]
            let tiny = ["ask", Files.scene("03"), "Describe the image.", "--budget", "0.001ms"] + Self.model
            let late = try Command.run(tiny + ["--explain"], environment: environment)
            #expect(late.status == 0 && !late.output.isEmpty)
            #expect(late.errors.contains("more than allowed") && late.errors.contains("predicted") && late.errors.contains("tokens expected"), "\(late.errors)")
            // The first answer measured the model, so that the second one knows.
            let strict = try Command.run(tiny + ["--strict"], environment: environment)
            #expect(strict.status == 65 && strict.output.isEmpty)
            #expect(strict.errors.contains("cannot be met now") && strict.errors.contains("the least that this model can do"), "\(strict.errors)")
        }
    }

    @Test("A process that is stopped for a second in the middle still answers, and says how late it is")
    func stoppedForASecond() throws {
        try withTemporaryFolder { folder in
            let process = Command.process(
                ["ask", "--prompt", "Describe everything.", "--max-tokens", "400", "--budget", "answer:400ms", "--explain"] + Self.model,
                environment: ["XDG_CACHE_HOME": folder.path])
            let (output, errors) = (Pipe(), Pipe())
            (process.standardOutput, process.standardError, process.standardInput) = (output, errors, FileHandle.nullDevice)
            try process.run()
            kill(process.processIdentifier, SIGSTOP)
            usleep(1_000_000)
            kill(process.processIdentifier, SIGCONT)
            let answer = output.fileHandleForReading.readDataToEndOfFile()
            let messages = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            process.waitUntilExit()
            #expect(process.terminationReason == .exit && process.terminationStatus == 0 && !answer.isEmpty, "\(messages)")
            #expect(messages.contains("predicted") && messages.contains("tokens expected"), "\(messages)")
        }
    }

    #if os(Linux)
        @Test("On one processor the model is measured for one thread, and answers within generous limits at every unit")
        func oneProcessor() throws {
            try withTemporaryFolder { folder in
                let process = Process()
                process.executableURL = URL(fileURLWithPath: "/usr/bin/taskset")
                let whole = Command.process(
                    ["ask", Files.scene("03"), "Describe the image.", "--budget", "3600s", "--json"] + Self.model,
                    environment: ["XDG_CACHE_HOME": folder.path])
                process.arguments = ["-c", "0", try #require(whole.executableURL).path] + (whole.arguments ?? [])
                process.environment = whole.environment
                let (output, errors) = (Pipe(), Pipe())
                (process.standardOutput, process.standardError, process.standardInput) = (output, errors, FileHandle.nullDevice)
                try process.run()
                let text = output.fileHandleForReading.readDataToEndOfFile()
                let messages = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
                process.waitUntilExit()
                #expect(process.terminationStatus == 0, "\(messages)")
                let object = try #require(try JSONSerialization.jsonObject(with: text) as? [String: Any])
                #expect((object["adaptive"] as? [String: Any])?["units"] as? Int == 4)
            }
        }
    #endif

    // A failure means that the picture of where the latency token looked is not written, or is none.
    @Test("attention maps are written") func attentionMaps() throws {
        try withTemporaryFolder { folder in
            let file = folder.appendingPathComponent("map.png")
            let result = try Command.run(["ask", Files.scene("03"), "Describe the image.", "--attention-map", file.path] + Self.model)
            #expect(result.status == 0, "\(result.errors)")
            let bytes = try Data(contentsOf: file)
            #expect(bytes.starts(with: [0x89, 0x50, 0x4E, 0x47]) && bytes.count > 2000)
            try expectFailure(["ask", "What?", "--attention-map", file.path] + Self.model, status: 64, saying: ["--attention-map", "expected an image"])
        }
    }
}
