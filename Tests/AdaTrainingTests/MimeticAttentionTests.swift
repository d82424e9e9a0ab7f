import AdaLLaVA
import Foundation
import Testing

@testable import AdaTraining

@Suite struct MimeticAttentionTests {
    @Test("queries and keys start alike") func queriesAndKeysStartAlike() throws {
        // A mismatch means that positions do not attend to like ones at first, or that heads of different groups start the same.
        let configuration = try ModelConfiguration.read(
            JSONValue.read(contentsOf: Fixtures.url("ada-H/config.json")), file: "ada-H").language
        let mimetic = MimeticAttention(configuration)
        let (dim, hidden) = (configuration.headDim, configuration.hiddenSize)
        let name = "model.layers.1.self_attn."
        let queries = try #require(mimetic.values(name + "q_proj.weight", shape: [configuration.numAttentionHeads * dim, hidden], seed: 3))
        let keys = try #require(mimetic.values(name + "k_proj.weight", shape: [configuration.numKeyValueHeads * dim, hidden], seed: 3))
        for head in 0 ..< configuration.numAttentionHeads {
            let key = head / mimetic.group
            #expect(queries[head * dim * hidden ..< (head + 1) * dim * hidden] == keys[key * dim * hidden ..< (key + 1) * dim * hidden])
        }
        #expect(configuration.numKeyValueHeads < 2 || keys.prefix(dim * hidden) != keys.dropFirst(dim * hidden).prefix(dim * hidden))
        #expect(mimetic.values("model.layers.0.self_attn.k_proj.weight", shape: [configuration.numKeyValueHeads * dim, hidden], seed: 3) != keys)
        #expect(mimetic.values(name + "v_proj.weight", shape: [dim, hidden], seed: 3) == nil)
        #expect(mimetic.values("vision_model.encoder.layers.1.self_attn.q_proj.weight", shape: [dim, hidden], seed: 3) == nil)

        // Of normalized random states: about 4 for oneself, about nothing for others.
        var generator = SplitMix64(seed: 5)
        var (own, other): (Float, Float) = (0, 0)
        let count = 40
        for _ in 0 ..< count {
            let states = (0 ..< 2).map { _ in (0 ..< hidden).map { _ in Float(generator.normal()) } }
            let projected = states.map { state in
                (0 ..< dim).map { row in (0 ..< hidden).reduce(Float(0)) { $0 + queries[row * hidden + $1] * state[$1] } }
            }
            own += zip(projected[0], projected[0]).reduce(0) { $0 + $1.0 * $1.1 } / Float(dim).squareRoot() / Float(count)
            other += zip(projected[0], projected[1]).reduce(0) { $0 + $1.0 * $1.1 } / Float(dim).squareRoot() / Float(count)
        }
        #expect(abs(own - 4) < 1 && abs(other) < 1)
    }
}
