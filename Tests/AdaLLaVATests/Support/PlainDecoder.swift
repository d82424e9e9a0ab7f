import Foundation

@testable import AdaLLaVA

/// A LLaMA decoder written as the papers have it, one number after the other: every row of a sequence under a plan of its own.
struct PlainDecoder {
    private let c: DecoderConfiguration
    private let space: SwitchSpace
    private let tensors: [String: [Float]]

    init(_ checkpoint: Checkpoint) throws {
        c = checkpoint.configuration.language
        space = checkpoint.configuration.switchSpace
        var tensors: [String: [Float]] = [:]
        for name in checkpoint.language.names where name.hasPrefix("model.") || name.hasPrefix("lm_head") {
            guard let stored = checkpoint.language.find(name), name.hasSuffix(".weight"), !name.contains("vision"), !name.contains("mm_") else { continue }
            tensors[name] = try Tensor(vector: stored, count: stored.count).values
        }
        self.tensors = tensors
    }

    func embedding(_ token: Int) -> [Float] {
        let table = tensors["model.embed_tokens.weight"] ?? []
        return Array(table[token * c.hiddenSize ..< (token + 1) * c.hiddenSize])
    }

    private func multiply(_ name: String, _ x: [Float]) -> [Float] {
        let weight = tensors[name] ?? []
        return (0 ..< weight.count / x.count).map { row in
            var sum: Float = 0
            for column in x.indices { sum += weight[row * x.count + column] * x[column] }
            return sum
        }
    }

    private func normed(_ name: String, _ x: [Float]) -> [Float] {
        let mean = x.reduce(0) { $0 + $1 * $1 } / Float(x.count), scale = 1 / (mean + c.normEpsilon).squareRoot()
        return zip(x, tensors[name] ?? []).map { $0 * scale * $1 }
    }

    private func rotated(_ x: [Float], position: Int) -> [Float] {
        var out = x
        let half = c.headDim / 2
        for head in 0 ..< x.count / c.headDim {
            for k in 0 ..< half {
                let angle = Double(position) / pow(c.ropeTheta, 2 * Double(k) / Double(c.headDim))
                let (a, b) = (head * c.headDim + k, head * c.headDim + k + half)
                let (cosine, sine) = (Float(cos(angle)), Float(sin(angle)))
                (out[a], out[b]) = (x[a] * cosine - x[b] * sine, x[b] * cosine + x[a] * sine)
            }
        }
        return out
    }

    /// Logits of the last row.
    /// - Parameters:
    ///   - rows: what enters the first layer.
    ///   - plan: of each row; what is off in it adds nothing and stores no key.
    ///   - drops: whether a row is left out of a layer.
    ///   - attention: told what a row attends to in a layer, the mean over heads: row by row.
    func logits(
        _ rows: [[Float]], plan: (Int) -> ExecutionPlan, drops: (_ layer: Int, _ row: Int) -> Bool = { _, _ in false },
        attention: (_ layer: Int, _ row: Int, [Float]) -> Void = { _, _, _ in }
    ) -> [Float] {
        var hidden = rows
        let shared = c.numAttentionHeads / c.numKeyValueHeads
        for layer in 0 ..< c.numHiddenLayers {
            let name = "model.layers.\(layer).", switches = space.layers[layer]
            var keys: [Int: [Float]] = [:], values: [Int: [Float]] = [:]
            for row in hidden.indices where !drops(layer, row) {
                let own = plan(row).rows[layer]
                let heads = own.heads.flatMap { Array(switches.heads[$0]) }
                if !heads.isEmpty {
                    let x = normed(name + "input_layernorm.weight", hidden[row])
                    keys[row] = rotated(multiply(name + "self_attn.k_proj.weight", x), position: row)
                    values[row] = multiply(name + "self_attn.v_proj.weight", x)
                    let query = rotated(multiply(name + "self_attn.q_proj.weight", x), position: row)
                    var attended = [Float](repeating: 0, count: query.count), mean = [Float](repeating: 0, count: row + 1)
                    for head in heads {
                        let place = head / shared * c.headDim
                        let seen = (0 ... row).filter { $0 > row - (c.slidingWindow ?? Int.max / 2) && !drops(layer, $0) }
                        let scores = seen.map { other -> Float in
                            guard let key = keys[other] else { return .nan }
                            return (0 ..< c.headDim).reduce(0) { $0 + query[head * c.headDim + $1] * key[place + $1] } / Float(c.headDim).squareRoot()
                        }
                        let largest = scores.max() ?? 0, weights = scores.map { exp($0 - largest) }, sum = weights.reduce(0, +)
                        for (other, weight) in zip(seen, weights) {
                            mean[other] += weight / sum / Float(heads.count)
                            for k in 0 ..< c.headDim { attended[head * c.headDim + k] += weight / sum * (values[other]?[place + k] ?? .nan) }
                        }
                    }
                    attention(layer, row, mean)
                    hidden[row] = zip(hidden[row], multiply(name + "self_attn.o_proj.weight", attended)).map(+)
                }
                if !own.groups.isEmpty {
                    let x = normed(name + "post_attention_layernorm.weight", hidden[row])
                    let gate = multiply(name + "mlp.gate_proj.weight", x), up = multiply(name + "mlp.up_proj.weight", x)
                    var middle = [Float](repeating: 0, count: gate.count)
                    for group in own.groups { for neuron in switches.neurons[group] { middle[neuron] = gate[neuron] / (1 + exp(-gate[neuron])) * up[neuron] } }
                    hidden[row] = zip(hidden[row], multiply(name + "mlp.down_proj.weight", middle)).map(+)
                }
            }
        }
        let last = normed("model.norm.weight", hidden[hidden.count - 1])
        return multiply(tensors["lm_head.weight"] == nil ? "model.embed_tokens.weight" : "lm_head.weight", last)
    }
}
