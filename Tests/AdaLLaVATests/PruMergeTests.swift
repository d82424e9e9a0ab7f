import Foundation
import Testing

@testable import AdaLLaVA

/// `Tests/Fixtures/prumerge`: which patches stay, and what they merge into.
@Suite struct PruMergeTests {
    struct CaseFile: Decodable {
        struct Case: Decodable {
            let id: String
            let function: String
            let batch: Int
            let adaptive: Bool?
            let ratio: Double?
            let topCount: Int?
            let keptCount: Int?
            let outputTokens: Int?
            let raises: String?
        }
        struct Generation: Decodable {
            let id: String
            let tokenSelecting: String
            let image: String
            let latency: Double
            let inputIds: [Int]
            let imageTokens: Int
            let generatedIds: [Int]
        }
        let cases16: [Case]
        let cases576: [Case]
        let generation: [Generation]
    }

    let file: CaseFile
    let recorded: Recorded
    private let pool: ThreadPool

    init() throws {
        pool = try ThreadPool(threads: 2)
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .custom { keys in
            let words = keys[keys.count - 1].stringValue.split(separator: "_").map(String.init)
            return Key(words.enumerated().map { $0 == 0 ? $1 : $1.prefix(1).uppercased() + $1.dropFirst() }.joined())
        }
        file = try decoder.decode(CaseFile.self, from: Data(contentsOf: Fixtures.url("prumerge/cases.json")))
        recorded = try Recorded("prumerge/expected.safetensors")
    }

    struct Key: CodingKey {
        let stringValue: String
        let intValue: Int? = nil
        init(_ text: String) { stringValue = text }
        init?(stringValue: String) { self.init(stringValue) }
        init?(intValue: Int) { nil }
    }

    /// The pictures that cases without inputs of their own use.
    private static let pictures = ["batch2": ["pm0", "pm1"], "fixed_ratio": ["pm0"]]

    private func matrices(_ id: String, _ part: String, batch: Int) throws -> [Tensor] {
        if let pictures = Self.pictures[id] { return try pictures.flatMap { try matrices($0, part, batch: 1) } }
        let stored = try recorded.file.tensor("\(id).\(part)")
        let (rows, columns) = (stored.shape[1], stored.shape[2])
        let all = try Tensor(matrix: stored, rows: batch * rows, columns: columns)
        return (0 ..< batch).map { all.rows($0 * rows ..< ($0 + 1) * rows) }
    }

    // A mismatch means that token selection keeps other patches than the reference, or blends them differently.
    @Test("PruMerge keeps and merges the reference's tokens") func reproducesEveryCase() throws {
        #expect(file.cases16.count + file.cases576.count == 16)
        for item in file.cases16 + file.cases576 where item.raises == nil {
            let queries = try matrices(item.id, "query", batch: item.batch)
            let keys = try matrices(item.id, "key", batch: item.batch)
            let features = try matrices(item.id, "features", batch: item.batch)
            let attention = zip(queries, keys).map { PruMerge.classAttention(query: $0, key: $1) }
            if let expected = try recorded.find(item.id + ".cls_attention") {
                #expect(largestDifference(attention.flatMap { $0 }, expected) <= 1e-5, "\(item.id)")
            }
            let ratio = item.adaptive == false ? item.ratio : PruMerge.outlierRatio(attention.flatMap { $0 })
            #expect(ratio == item.ratio, "\(item.id)")

            let results = try (0 ..< item.batch).map {
                try PruMerge.merge(
                    features: features[$0], key: keys[$0], attention: attention[$0], ratio: ratio, plus: item.function == "prune_merge_plus", pool)
            }
            let name = "\(item.id).\(item.function)."
            let kept = try recorded.file.tensor(name + "kept_indices").bytes.bindMemory(to: Int32.self).map(Int.init)
            #expect(results.flatMap(\.kept) == kept, "\(name)")
            #expect(results[0].merged.rows == item.outputTokens, "\(name)")
            #expect(largestDifference(results.flatMap(\.merged.values), try recorded.values(name + "merged")) <= 1e-4, "\(name)")
        }
    }

    // A failure means that an image on which no patch stands out stops PruMerge+; the reference divides by zero there.
    @Test("plus keeps all patches when none stands out") func plusKeepsAllPatchesWhenNoneStandsOut() throws {
        let item = try #require(file.cases16.first { $0.raises != nil })
        let (query, key) = (try matrices(item.id, "query", batch: 1)[0], try matrices(item.id, "key", batch: 1)[0])
        let features = try matrices(item.id, "features", batch: 1)[0]
        let attention = PruMerge.classAttention(query: query, key: key)
        #expect(PruMerge.outlierRatio(attention) == 0)
        #expect(try PruMerge.merge(features: features, key: key, attention: attention, plus: true, pool).kept == Array(0 ..< 16))
    }

    // A mismatch means that selected tokens reach the language model differently from the reference.
    @Test("generates with selected tokens", arguments: kernelSets) func generatesWithSelectedTokens(kernels: String) throws {
        for selection in [LlavaConfiguration.TokenSelection.pruMerge, .pruMergePlus] {
            let model = try TestModel(Fixtures.url("ada-L"), kernels: kernels) { $0.configuration.llava?.tokenSelection = selection }
            let items = file.generation.filter { $0.tokenSelecting == selection.rawValue }
            #expect(!items.isEmpty)
            for item in items {
                let trace = Trace()
                let pixels = try recorded.values("\(item.image).pixel_values")
                let result = try model.run(item.inputIds, pixels: [pixels], budget: item.latency, endTokens: [2], trace: trace)
                #expect(result.tokens == item.generatedIds, "\(item.id)")
                let features = try #require(trace.entries["image_features"])
                #expect(features.shape[0] == item.imageTokens, "\(item.id)")
                func compare(_ name: String, _ tolerance: Float) throws {
                    let expected = try recorded.values("\(item.id).\(name)")
                    #expect(largestDifference(trace.entries[name]?.values ?? [], expected) <= tolerance, "\(item.id) \(name)")
                }
                try compare("image_features", 1e-4)
                try compare("prefill_last_logits", 3e-4)
            }
        }
    }
}
