import Foundation
import Testing

/// Time budgets on the command line. The reference implementation's model, with a cache folder of its own.
@Suite struct DeadlineCommandTests {
    private static let model = ["--model", Files.referenceModel.path]

    // A failure means that programs which read the JSON object find other keys than they were promised, or that a model is measured again each time.
    @Test func predictedAndMeasuredHaveTheSameKeys() throws {
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
    @Test func lateAnswersWarnAndStrictOnesAreRefused() throws {
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

    // A failure means that the picture of where the latency token looked is not written, or is none.
    @Test func attentionMaps() throws {
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
