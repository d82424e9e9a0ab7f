import Foundation
import Testing

/// `adallava bench kernels` with settings that take a moment.
@Suite struct BenchKernelsTests {
    // A failure means that people cannot find the command, or an option that the documentation names.
    @Test("help names the options of bench kernels") func help() throws {
        #expect(try Command.run(["bench", "--help"]).output.contains("kernels"))
        let result = try Command.run(["bench", "kernels", "--help"])
        #expect(result.status == 0)
        for word in ["--shape", "--types", "--parts", "--threads", "--repeat", "--prompt-tokens", "--depth", "--stream", "--json", "--csv", "--chart", "--output"] {
            #expect(result.output.contains(word), "\(word)")
        }
    }

    // A failure means that `make bench` finds no ceilings to hold anything against, or other programs no results.
    @Test("JSON has the ceilings and the results") func json() throws {
        let result = try Command.run([
            "bench", "kernels", "--types", "q8_0", "--parts", "products,pool", "--threads", "1,2", "--repeat", "1", "--prompt-tokens", "3", "--stream", "1", "--json",
        ])
        #expect(result.status == 0, "\(result.errors)")
        let object = try result.json()
        let ceilings = try #require(object["ceilings"] as? [[String: Any]])
        #expect(ceilings.compactMap { $0["threads"] as? Int } == [1, 2])
        for key in ["bandwidth_gb_s", "int8_gops", "f32_gflops"] { #expect(ceilings.allSatisfy { ($0[key] as? Double ?? 0) > 0 }, "\(key)") }
        let results = try #require(object["results"] as? [[String: Any]])
        #expect(results.count == 20)
        for entry in results {
            #expect(((entry["microseconds"] as? [String: Any])?["median"] as? Double ?? 0) > 0)
            #expect(entry["part"] as? String == "pool" || ((entry["share"] as? Double ?? 0) > 0 && (entry["gops"] as? Double ?? 0) > 0))
        }
        #expect(Set(results.compactMap { $0["bound"] as? String }).isSubset(of: ["memory", "int8", "bf16", "f32"]))
    }

    // A failure means that the ceilings alone cannot be had quickly, or not as a table.
    @Test("the ceilings alone can be measured") func ceilingsAlone() throws {
        let result = try Command.run(["bench", "kernels", "--parts", "none", "--threads", "1", "--stream", "1"])
        #expect(result.status == 0, "\(result.errors)")
        for word in ["machine", "build", "memory GB/s", "int8 GOPS", "f32 GFLOPS", "last-level cache"] { #expect(result.output.contains(word), "\(word)") }
        #expect(!result.output.contains("of ceiling"))
    }

    // A failure means that a request which cannot be measured traps, or is refused only after minutes.
    @Test("kernels that cannot be measured are refused", arguments: [
        (["--shape", "70b"], ["70b", "smollm2-135m"]), (["--types", "q9"], ["q9", "q8_0"]), (["--types", "q6_k"], ["q6_K", "q8_0"]),
        (["--parts", "everything"], ["everything", "attention"]), (["--repeat", "0"], ["--repeat"]), (["--prompt-tokens", "1"], ["--prompt-tokens"]),
        (["--depth", "-1"], ["--depth"]), (["--stream", "0"], ["--stream"]), (["--stream", "9223372036854775807"], ["--stream"]),
        (["--threads", "0"], ["--threads"]), (["--json", "--csv"], ["--json", "--csv"]),
    ])
    func refuses(arguments: [String], words: [String]) throws {
        try expectFailure(["bench", "kernels"] + arguments, status: 64, saying: words)
    }
}
