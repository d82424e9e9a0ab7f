import AdaKernels
import Foundation
import Testing

@testable import AdaLLaVA

/// What a plan's row touches of the packed weights.
@Suite struct LayerSelectionTests {
    struct Shape: CustomTestStringConvertible {
        let hidden, intermediate, heads, keyValueHeads: Int
        var testDescription: String { "\(hidden)/\(intermediate)/\(heads)/\(keyValueHeads)" }

        func configuration() throws -> DecoderConfiguration {
            let json = try CheckpointFixtures.json(
                """
                {"model_type": "llama", "hidden_size": \(hidden), "intermediate_size": \(intermediate), "num_attention_heads": \(heads),
                 "num_key_value_heads": \(keyValueHeads), "num_hidden_layers": 2, "vocab_size": 64, "max_position_embeddings": 64}
                """)
            return try ModelConfiguration.read(json, file: "config.json").language
        }
    }

    /// LLaMA-7B, SmolLM2-135M, the fixtures, and sizes where neither heads nor groups end with a panel.
    static let shapes = [
        Shape(hidden: 4096, intermediate: 11008, heads: 32, keyValueHeads: 32), Shape(hidden: 576, intermediate: 1536, heads: 9, keyValueHeads: 3),
        Shape(hidden: 64, intermediate: 172, heads: 8, keyValueHeads: 8), Shape(hidden: 160, intermediate: 431, heads: 8, keyValueHeads: 2),
        Shape(hidden: 96, intermediate: 7, heads: 4, keyValueHeads: 1),
    ]

    /// Steps of `step` columns in which some column is marked.
    private func touched(_ marked: [Bool], step: Int) -> [Int32] {
        Set(marked.indices.filter { marked[$0] }.map { Int32($0 / step) }).sorted()
    }

    /// Columns inside the touched blocks that are not marked.
    private func dropped(_ marked: [Bool]) -> [Int] {
        touched(marked, step: Int(AK_BLOCK)).flatMap { Int($0) * Int(AK_BLOCK) ..< min((Int($0) + 1) * Int(AK_BLOCK), marked.count) }
            .filter { !marked[$0] }
    }

    // A mismatch means that kept weights are not read, or that dropped heads and neurons reach the residual stream.
    @Test("panels, blocks and columns match a brute-force selection", arguments: shapes) func matchesBruteForce(shape: Shape) throws {
        let c = try shape.configuration()
        var random = SeededGenerator(seed: 11)
        for _ in 0 ..< 60 {
            let density = Double.random(in: 0 ... 1, using: &random)
            let pick = { (random: inout SeededGenerator) in (0 ..< shape.heads).filter { _ in Double.random(in: 0 ..< 1, using: &random) < density } }
            let row = ExecutionPlan.Row(heads: pick(&random), groups: pick(&random))
            let selection = LayerSelection(row, c)

            var columns = [Bool](repeating: false, count: c.numAttentionHeads * c.headDim)
            for head in row.heads { for column in 0 ..< c.headDim { columns[head * c.headDim + column] = true } }
            var keys = [Bool](repeating: false, count: c.numKeyValueHeads * c.headDim)
            for head in row.heads {
                for column in 0 ..< c.headDim { keys[head * c.numKeyValueHeads / c.numAttentionHeads * c.headDim + column] = true }
            }
            var neurons = [Bool](repeating: false, count: c.intermediateSize)
            for (neuron, group) in groups(of: c.intermediateSize, count: shape.heads).enumerated() where row.groups.contains(group) {
                neurons[neuron] = true
            }

            #expect(selection.heads == row.heads)
            #expect(selection.runsAttention == !row.heads.isEmpty && selection.runsMLP == !row.groups.isEmpty)
            #expect(selection.queryPanels?.indices == touched(columns, step: Int(AK_PANEL)))
            #expect(selection.outputBlocks?.indices == touched(columns, step: Int(AK_BLOCK)))
            #expect(selection.keyValuePanels?.indices == touched(keys, step: Int(AK_PANEL)))
            #expect(selection.keyValueHeads == (0 ..< c.numKeyValueHeads).filter { keys[$0 * c.headDim] })
            #expect(selection.gatePanels?.indices == touched(neurons, step: Int(AK_PANEL)))
            #expect(selection.downBlocks?.indices == touched(neurons, step: Int(AK_BLOCK)))
            #expect(selection.droppedHeadColumns.flatMap { Array($0) } == dropped(columns))
            #expect(selection.droppedNeurons.flatMap { Array($0) } == dropped(neurons))
        }
    }

    /// The group of each neuron, counted out as PyTorch's `array_split` does.
    private func groups(of size: Int, count: Int) -> [Int] {
        (0 ..< count).flatMap { group in Array(repeating: group, count: size / count + (group < size % count ? 1 : 0)) }
    }

    // A failure means that a layer that runs whole is multiplied list by list, or that lists are made where everything runs.
    @Test("whole layers need no lists", arguments: shapes) func wholeLayersNeedNoLists(shape: Shape) throws {
        let c = try shape.configuration()
        let whole = LayerSelection(whole: c)
        #expect(whole.isWhole && !whole.isSkipped && whole.runsAttention && whole.runsMLP)
        #expect(whole.heads == Array(0 ..< c.numAttentionHeads) && whole.keyValueHeads == Array(0 ..< c.numKeyValueHeads))
        for list in [whole.queryPanels, whole.keyValuePanels, whole.outputBlocks, whole.gatePanels, whole.downBlocks] { #expect(list == nil) }
        #expect(whole.droppedNeurons.isEmpty && whole.droppedHeadColumns.isEmpty)
        let nothing = LayerSelection(heads: [], neurons: [], c)
        #expect(nothing.isSkipped && !nothing.isWhole && nothing.keyValueHeads.isEmpty)
    }

    // A failure means that a plan at half the switches does not halve what is read, whatever the kernels do.
    @Test("half the switches is about half the weights", arguments: shapes.prefix(2)) func halfTheSwitchesIsAboutHalfTheWeights(shape: Shape) throws {
        let c = try shape.configuration()
        var random = SeededGenerator(seed: 5)
        for _ in 0 ..< 50 {
            let kept = shape.heads / 2
            let pick = { (random: inout SeededGenerator) in Array((0 ..< shape.heads).shuffled(using: &random).prefix(kept)).sorted() }
            let selection = LayerSelection(ExecutionPlan.Row(heads: pick(&random), groups: pick(&random)), c)
            let share = Double(kept) / Double(shape.heads)
            func expect(_ touched: [Int32]?, of size: Int, step: Int32, within slack: Double, _ name: String) {
                let found = Double(touched?.count ?? 0) / (Double(size) / Double(step)).rounded(.up)
                #expect(found >= share - 1e-9 && found <= share + slack, "\(name): \(found) of \(share)")
            }
            let queries = c.numAttentionHeads * c.headDim
            // Heads end where panels and blocks end; neuron groups do not, so that each run of groups reads a part of a panel more.
            expect(selection.queryPanels?.indices, of: queries, step: AK_PANEL, within: 0.001, "query")
            expect(selection.outputBlocks?.indices, of: queries, step: AK_BLOCK, within: 0.001, "output")
            expect(selection.gatePanels?.indices, of: c.intermediateSize, step: AK_PANEL, within: 0.05, "gate")
            expect(selection.downBlocks?.indices, of: c.intermediateSize, step: AK_BLOCK, within: 0.09, "down")
        }
    }
}
