import AdaScenes
import AdaTraining
import Foundation
import Testing

@testable import AdaEvaluation
@testable import AdaLLaVA

/// Types of the commands' JSON against recorded output.
@Suite struct ResultTypeTests {
    static let types: [String: any (Codable & Sendable).Type] = [
        "ask": AnswerSummary.JSON.self, "ask-time": AnswerSummary.JSON.self, "chat": AnswerSummary.JSON.self,
        "trace": TraceResult.JSON.self, "inspect": ModelReport.JSON.self, "inspect-text": ModelReport.JSON.self,
        "analyze-layer": CostReport.JSON.self, "analyze-operation": CostReport.JSON.self, "analyze-fit": CostReport.JSON.self,
        "calibrate": CalibrationText.JSON.self, "convert": ConversionReport.JSON.self, "eval": EvaluationReport.JSON.self, "perplexity": PerplexityResult.self,
        "explain": PlanReport.JSON.self, "autofit": BudgetHeadFit.JSON.self,
        "sweep": ExperimentJSON<SweepReport.Details>.self,
        "requests": ExperimentJSON<RequestsReport.Details>.self, "linearity": ExperimentJSON<LinearityReport.Details>.self,
        "throughput": ExperimentJSON<ThroughputReport.Details>.self, "kernels": ExperimentJSON<KernelReport.Details>.self,
        "data": SceneDataset.JSON.self, "train": Trainer.Summary.self,
        "deadline": ExperimentJSON<DeadlineReport.Details>.self, "slo": ExperimentJSON<SloReport.Details>.self,
        "speculation": ExperimentJSON<SpeculationReport.Details>.self,
    ]

    /// Reads a result as a type, and writes it again.
    private static func again<Value: Codable>(_ type: Value.Type, _ data: Data) throws -> Data {
        try JSONText.data(JSONDecoder().decode(type, from: data))
    }

    // A failure means that a program which reads this command's JSON finds a member missing, added, renamed or of another type.
    @Test("a command's JSON keeps its members, their names and their types", arguments: types.keys.sorted())
    func keepsMembers(name: String) throws {
        let recorded = try Self.recorded(name)
        let type = try #require(Self.types[name])
        let written = try Self.again(type, recorded)
        #expect(try Self.value(written) == Self.value(recorded))
    }

    static func recorded(_ name: String) throws -> Data {
        try Data(contentsOf: Samples.root.appendingPathComponent("Tests/Fixtures/results/\(name).json"))
    }

    private static func value(_ data: Data) throws -> JSONValue { try data.withUnsafeBytes { try JSONReader.parse($0, file: "result") } }

    // A failure means that a result with a member too few is taken for a whole one.
    @Test("a result without a member that is always written is an error", arguments: ["units", "floor", "budget"])
    func strict(member: String) throws {
        let text = String(decoding: try Self.recorded("ask"), as: UTF8.self)
        #expect(text.contains("\"\(member)\":"))
        let without = Data(text.replacingOccurrences(of: "\"\(member)\":", with: "\"other\":").utf8)
        #expect(throws: DecodingError.self) { try JSONDecoder().decode(AnswerSummary.JSON.self, from: without) }
    }

    // A failure means that docs/json.md does not describe a member of a command's JSON.
    @Test("the documentation names every member", arguments: types.keys.sorted())
    func isDocumented(name: String) throws {
        let text = try String(contentsOf: Samples.root.appendingPathComponent("docs/json.md"), encoding: .utf8)
        let quoted = text.split(separator: "`", omittingEmptySubsequences: false).enumerated().filter { $0.offset % 2 == 1 }.map(\.element)
        let named = Set(quoted.flatMap { $0.split { ". ".contains($0) } }.map(String.init))
        let members = Self.members(of: try Self.value(Self.recorded(name)))
        #expect(!members.isEmpty && members.subtracting(named) == [])
    }

    /// Dictionaries whose keys are data: terms, scores, sources of plans, policies.
    private static let dictionaries: Set = [
        "nanoseconds", "scores", "score_statistics", "changed_plans", "changed_answers", "accuracy", "gain_of_own", "rate_at_99_percent",
    ]

    private static func members(of value: JSONValue) -> Set<String> {
        switch value {
        case .array(let elements): elements.reduce(into: []) { $0.formUnion(members(of: $1)) }
        case .object(let object): object.reduce(into: []) { $0.formUnion([$1.key] + (dictionaries.contains($1.key) ? [] : members(of: $1.value))) }
        default: []
        }
    }
}
