import AdaLLaVA
import Foundation

/// One machine's part of a run: part `index` of `count`, counted from 1.
package struct Shard: Codable, Sendable, Equatable, CustomStringConvertible {
    package let index: Int
    package let count: Int

    package static let whole = Shard(checkedIndex: 1, count: 1)

    private init(checkedIndex index: Int, count: Int) { (self.index, self.count) = (index, count) }

    /// - Parameter text: `2/4`.
    /// - Throws: ``EvaluationError/argument(name:expected:found:)``
    package init(parsing text: String) throws {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false).map { Int($0) }
        guard parts.count == 2, let index = parts[0], let count = parts[1], (1...100_000).contains(count), (1...count).contains(index) else {
            throw EvaluationError.argument(name: "--shard", expected: "i/n with 1 ≤ i ≤ n, such as 2/4", found: "'\(text)'")
        }
        self.init(checkedIndex: index, count: count)
    }

    package var description: String { "\(index)/\(count)" }
}

/// The settings that determine a run's answers. Two runs with equal settings can be one interrupted run; others are never mixed.
package struct EvaluationSettings: Codable, Sendable, Equatable {
    package let format: Int
    /// The benchmark and its selection: `textvqa`, `vqav2 val2014`.
    package let task: String
    /// Identifies the questions, independent of their folder.
    package let dataFingerprint: String
    package let model: String
    /// Identifies the weights, independent of their folder.
    package let modelFingerprint: String
    /// How the model computes, and which chat template it uses.
    package let computation: String
    package let budgets: [Budget]
    package let maxTokens: Int
    package let limit: Int?
    package let seed: UInt64?
    package let shard: Shard
    /// How costs are calculated; absent if they are not.
    package let costs: String?

    package init(
        task: String, benchmark: any Benchmark, model: String, modelFingerprint: String, computation: String, budgets: [Budget],
        maxTokens: Int? = nil, limit: Int? = nil, seed: UInt64? = nil, shard: Shard = .whole, costs: String? = nil
    ) throws {
        guard !budgets.isEmpty, Set(budgets).count == budgets.count else {
            throw EvaluationError.argument(name: "--budgets", expected: "one or more different budgets", found: "\(budgets)")
        }
        for budget in budgets {
            // A time is kept or missed by this machine: the same answers could not be made again.
            if case .time = budget { throw EvaluationError.argument(name: "--budgets", expected: "fractions of full compute, or auto", found: "\(budget)") }
            do { try budget.validate() } catch {
                throw EvaluationError.argument(name: "--budgets", expected: "fractions above 0 and at most 1, or auto", found: "\(budget)")
            }
        }
        if let limit, limit < 1 { throw EvaluationError.argument(name: "--limit", expected: "1 or more", found: "\(limit)") }
        if let maxTokens, maxTokens < 1 { throw EvaluationError.argument(name: "--max-tokens", expected: "1 or more", found: "\(maxTokens)") }
        format = 1
        (self.task, dataFingerprint) = (task, EvaluationSettings.fingerprint(of: benchmark))
        (self.model, self.modelFingerprint, self.computation) = (model, modelFingerprint, computation)
        (self.budgets, self.maxTokens) = (budgets, maxTokens ?? benchmark.maxTokens)
        (self.limit, self.seed, self.shard, self.costs) = (limit, seed, shard, costs)
    }

    enum CodingKeys: String, CodingKey {
        case format, task, model, computation, budgets, limit, seed, shard, costs
        case dataFingerprint = "data_fingerprint"
        case modelFingerprint = "model_fingerprint"
        case maxTokens = "max_tokens"
    }

    /// The first setting in which `other` differs: its name, this one's value and the other's.
    func difference(from other: EvaluationSettings, ignoringShard: Bool = false, ignoringBudgets: Bool = false) -> (name: String, expected: String, found: String)? {
        func text<Value>(_ value: Value?) -> String { value.map { "\($0)" } ?? "none" }
        let pairs: [(String, String, String)] = [
            ("format", text(format), text(other.format)), ("task", task, other.task),
            ("set of questions (data)", dataFingerprint, other.dataFingerprint), ("model", model, other.model),
            ("set of weights (model)", modelFingerprint, other.modelFingerprint),
            ("way of computing", computation, other.computation),
            ("answer length", text(maxTokens), text(other.maxTokens)), ("limit", text(limit), text(other.limit)),
            ("seed", text(seed), text(other.seed)), ("cost model", text(costs), text(other.costs)),
        ]
        let shards = ignoringShard ? [] : [("shard", shard.description, other.shard.description)]
        let lists = ignoringBudgets ? [] : [("list of budgets", text(budgets), text(other.budgets))]
        return (pairs + lists + shards).first { $0.1 != $0.2 }
    }

    /// The same settings for all shards together.
    func whole() -> EvaluationSettings { EvaluationSettings(copying: self, shard: .whole, budgets: budgets) }

    /// The settings of an earlier run with these budgets added after its own.
    func joining(_ earlier: EvaluationSettings) -> EvaluationSettings {
        EvaluationSettings(copying: self, shard: shard, budgets: earlier.budgets + budgets.filter { !earlier.budgets.contains($0) })
    }

    private init(copying other: EvaluationSettings, shard: Shard, budgets: [Budget]) {
        (format, task, dataFingerprint) = (other.format, other.task, other.dataFingerprint)
        (model, modelFingerprint, computation) = (other.model, other.modelFingerprint, other.computation)
        (maxTokens, limit, seed) = (other.maxTokens, other.limit, other.seed)
        (self.budgets, self.shard, costs) = (budgets, shard, other.costs)
    }

    // MARK: - Which samples

    /// The samples of this run, in the benchmark's order: at most `limit`, drawn by `seed` if there is one, of which this shard's.
    package func selection(of samples: [BenchmarkSample]) -> [BenchmarkSample] {
        let drawn = EvaluationSettings.drawn(samples, limit: limit, seed: seed)
        var order: [String] = []
        var known = Set<String>()
        for sample in drawn where known.insert(sample.group).inserted { order.append(sample.group) }
        let mine = Set(order.enumerated().filter { $0.offset % shard.count == shard.index - 1 }.map(\.element))
        return drawn.filter { mine.contains($0.group) }
    }

    /// At most `limit` samples in the benchmark's order: the first, or with a seed some drawn at random. Groups stay whole, so a limit may
    /// leave out the last few that a whole group would exceed.
    package static func drawn(_ samples: [BenchmarkSample], limit: Int?, seed: UInt64?) -> [BenchmarkSample] {
        guard let limit else { return samples }
        var order: [String] = []
        var sizes: [String: Int] = [:]
        for sample in samples {
            if sizes[sample.group] == nil { order.append(sample.group) }
            sizes[sample.group, default: 0] += 1
        }
        if let seed {
            let ranks = Dictionary(uniqueKeysWithValues: order.map { ($0, Fingerprint(seed).adding($0).value) })
            order.sort { (ranks[$0] ?? 0, $0) < (ranks[$1] ?? 0, $1) }
        }
        var kept = Set<String>()
        var count = 0
        for group in order {
            let size = sizes[group] ?? 0
            if count + size > limit && count > 0 { break }
            kept.insert(group)
            count += size
        }
        return samples.filter { kept.contains($0.group) }
    }

    // MARK: - Fingerprints

    static func fingerprint(of benchmark: any Benchmark) -> String {
        var fingerprint = Fingerprint(0)
        for sample in benchmark.samples {
            for text in [sample.id, sample.group, sample.question] + sample.references { fingerprint = fingerprint.adding(text) }
        }
        return fingerprint.description
    }

    /// Identifies the weights at `url`: names and sizes of the files, and the first and last 64 KiB of each.
    /// - Throws: ``EvaluationError/file(path:reason:)``
    package static func fingerprint(ofModelAt url: URL) throws -> String {
        let kind = FileKind(url)
        guard kind != .nothing else { throw EvaluationError.missing(file: url.path, needed: "the model") }
        var fingerprint = Fingerprint(1)
        do {
            let names = kind == .folder ? try Files.names(in: url) : [""]
            for name in names where !name.hasPrefix(".") {
                let file = name.isEmpty ? url : url.appendingPathComponent(name)
                guard Files.status(file, followsLinks: false).map({ $0.st_mode & S_IFMT == S_IFREG }) == true else { continue }
                let descriptor = Files.open(file.path, O_RDONLY)
                guard descriptor >= 0 else { throw SystemError() }
                let handle = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
                let size = try handle.seekToEnd()
                try handle.seek(toOffset: 0)
                fingerprint = fingerprint.adding(name).adding("\(size)").adding(try handle.read(upToCount: 1 << 16) ?? Data())
                if size > 1 << 16 {
                    try handle.seek(toOffset: size - (1 << 16))
                    fingerprint = fingerprint.adding(try handle.read(upToCount: 1 << 16) ?? Data())
                }
            }
        } catch {
            throw EvaluationError.file(path: url.path, reason: "cannot be read: \(error.localizedDescription)")
        }
        return fingerprint.description
    }
}

/// FNV-1a with a final mix: compares texts and draws samples, the same on every machine. Not for secrets.
struct Fingerprint: CustomStringConvertible {
    private var state = FNV1a()

    init(_ seed: UInt64) {
        withUnsafeBytes(of: seed.littleEndian) { for byte in $0 { state.add(UInt64(byte)) } }
    }

    func adding(_ bytes: some Sequence<UInt8>) -> Fingerprint {
        var next = self
        for byte in bytes { next.state.add(UInt64(byte)) }
        // Separates the parts, so that the end of one and the start of the next cannot be confused.
        next.state.add(0xFF)
        return next
    }

    func adding(_ text: String) -> Fingerprint { adding(text.utf8) }

    var value: UInt64 {
        var z = state.value
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    var description: String { String(format: "%016lx", value) }
}
