import AdaImages
import Foundation
import Testing

@testable import AdaLLaVA

/// Budgets of `auto`: what people write, what the head chooses, and that the engine follows it.
@Suite struct BudgetHeadTests {
    @Test("auto is read in three forms, written as it is read, and kept in files")
    func forms() throws {
        #expect(try Budget(parsing: "auto") == .auto() && Budget(parsing: " AUTO ") == .automatic(.within(0.005)))
        #expect(try Budget(parsing: "auto:within=0.01") == .auto(within: 0.01) && Budget(parsing: "auto:mean=0.4") == .auto(mean: 0.4))
        for text in ["auto:", "auto:0.4", "auto:mean", "auto:mean=0", "auto:mean=1.5", "auto:mean=nan", "auto:within=-1", "auto:within=1", "auto:less=1", "auto=0.4"] {
            #expect(throws: BudgetError.self, "\(text)") { try Budget(parsing: text) }
        }
        let all: [Budget] = [.auto(), .auto(within: 0.02), .auto(mean: 0.25), 0.6, .answer(within: .milliseconds(400))]
        #expect(all.map(\.description) == ["auto", "auto:within=0.02", "auto:mean=0.25", "0.6", "400ms"])
        let data = try JSONEncoder().encode(all)
        #expect(String(decoding: data, as: UTF8.self) == #"["auto","auto:within=0.02","auto:mean=0.25",0.6,"400ms"]"#)
        #expect(try JSONDecoder().decode([Budget].self, from: data) == all)
    }

    @Test("the fewest units win whose likelihood is worth the price of their compute")
    func choices() {
        let units = BudgetUnits(total: 4, prefix: 1)
        let head = BudgetHead(weight: [[1, 0], [0, 1], [0, 0]], bias: [0, 0, 3], curve: [])
        let likelihoods = head.likelihoods([2, -2])
        // 1 / (1 + e^-2), then never less, then 1 / (1 + e^-3), then certainty.
        #expect(zip(likelihoods, [0.8808, 0.8808, 0.9526, 1]).allSatisfy { abs($0 - $1) < 1e-4 } && likelihoods.count == 4)
        #expect(BudgetHead.choose(likelihoods, price: 0, of: units) == 3)
        // Three quarters of the model more for 0.1192: worth it up to a price of 0.159.
        #expect(BudgetHead.choose(likelihoods, price: 0.15, of: units) == 3)
        #expect(BudgetHead.choose(likelihoods, price: 0.17, of: units) == 0)
        #expect(BudgetHead.choose([0, 0.5, 0.5, 1], price: 0, of: units) == 3)
        #expect(BudgetHead.choose([.nan, .nan, .nan, 1], price: 9, of: units) == 3)
        #expect(BudgetHead.choose([1, 1, 1, 1], price: 0, of: units) == 0)
    }

    @Test("a price is taken from the calibrated curve")
    func prices() {
        func point(_ price: Float, _ loss: Float, _ mean: Float) -> BudgetHead.Point { BudgetHead.Point(price: price, loss: loss, mean: mean) }
        let head = BudgetHead(
            weight: [], bias: [], curve: [point(0.4, 0.03, 0.3), point(0, 0, 1), point(0.1, 0.001, 0.6), point(0.2, 0.006, 0.5), point(0.3, 0.004, 0.4)])
        #expect(head.price(for: .within(0.01)) == 0.3)
        // 0.004 at 0.3 is luck where 0.2 loses 0.006 already.
        #expect(head.price(for: .within(0.005)) == 0.1)
        #expect(head.price(for: .within(0)) == 0)
        #expect(head.price(for: .mean(0.5)) == 0.2 && head.price(for: .mean(0.45)) == 0.3 && head.price(for: .mean(1)) == 0)
        // Less than any price leaves: the highest one.
        #expect(head.price(for: .mean(0.1)) == 0.4)
    }

    static let reference = Fixtures.models.appendingPathComponent("scenes-ref")

    /// A copy of the reference model (8 layers, 4 of them optional) with a head in a file of its own.
    private func withHead<Result>(_ head: BudgetHead, _ body: (URL) throws -> Result) throws -> Result {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("budget-head-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        try FileManager.default.copyItem(at: Self.reference, to: folder)
        let config = folder.appendingPathComponent("config.json")
        var text = try String(contentsOf: config, encoding: .utf8)
        text.replace("{", with: "{\"budget_head\": true,", maxReplacements: 1)
        try Data(text.utf8).write(to: config)
        try SafetensorsWriter.write(head.tensors, to: folder.appendingPathComponent(BudgetHead.fileName))
        return try body(folder)
    }

    private func request(_ model: TestModel, _ image: String, _ question: String, _ budget: Budget) throws -> EngineRequest {
        let image = try RGBImage(contentsOf: Self.reference.appendingPathComponent("images/\(image).png").path)
        let tokens = try #require(model.loaded.text).prompt([.question(question, images: 1)], system: nil)
        return EngineRequest(tokens: tokens, images: [try model.loaded.image(image)], budget: budget, maxTokens: 8)
    }

    @Test("the engine gives each input the units that the head chooses, and the answer of a fixed budget of as many")
    func engineFollowsTheHead() throws {
        let plain = try TestModel(Self.reference)
        let width = plain.decoder.configuration.hiddenSize
        let inputs = [("00", "What is in the image?"), ("01", "How many things are in the image?"), ("02", "Describe the image."), ("03", "Is there a dog in the image?")]
        // What the head will see: the last prompt row, which does not depend on the budget.
        let states = try inputs.map { image, question in
            var found: [[Float]] = []
            for budget in [0.5, 1.0] {
                var request = try request(plain, image, question, .fraction(budget))
                let box = StateBox()
                request.onStates = { box.value = $0 }
                _ = try plain.run(request)
                found.append(try #require(box.value).prompt)
            }
            #expect(found[0] == found[1] && found[0].count == width)
            return found[0]
        }
        // Thresholds along a direction that parts the inputs.
        let direction = zip(states[0], states[2]).map { $0 - $1 }
        func along(_ state: [Float]) -> Float { zip(direction, state).reduce(0) { $0 + $1.0 * $1.1 } }
        let middle = (along(states[0]) + along(states[2])) / 2
        let head = BudgetHead(
            weight: [direction, direction, direction, direction], bias: [-middle - 1, -middle, -middle + 1, -middle + 2],
            curve: [.init(price: 0, loss: 0, mean: 1), .init(price: 0.5, loss: 0.004, mean: 0.6)])
        try withHead(head, { folder in
            let model = try TestModel(folder)
            let units = BudgetUnits(total: 8, prefix: 4)
            var chosen: Set<Int> = []
            for ((image, question), state) in zip(inputs, states) {
                let result = try model.run(try request(model, image, question, .auto()))
                let expected = BudgetHead.choose(head.likelihoods(state), price: 0.5, of: units)
                #expect(result.adaptive?.units == expected)
                chosen.insert(expected)
                let fixed = try plain.run(try request(plain, image, question, .fraction(units.fraction(buying: expected))))
                #expect(fixed.tokens == result.tokens && fixed.plan == result.plan)
                #expect(try model.run(try request(model, image, question, .auto(within: 0))).adaptive?.units == BudgetHead.choose(head.likelihoods(state), price: 0, of: units))
            }
            #expect(chosen.count > 1)
            // A GGUF file of the model keeps its head.
            let converted = folder.appendingPathComponent("model.gguf")
            _ = try CheckpointConverter(folder, to: .f32, output: converted).run()
            #expect(try TestModel(converted).loaded.parts.adaptive?.budgetHead == head)
        })
        // The same thresholds on a hidden layer whose values are large, so that SiLU passes them on.
        let layer = BudgetHead.HiddenLayer(weight: [direction, direction.map { -$0 }], bias: [-middle + 500, middle + 500])
        let layered = BudgetHead(hidden: layer, weight: Array(repeating: [1, 0], count: 4), bias: [-501, -500, -499, -498], curve: head.curve)
        for state in states { #expect(zip(layered.likelihoods(state), head.likelihoods(state)).allSatisfy { abs($0 - $1) < 1e-3 }) }
        try withHead(layered) { folder in
            let model = try TestModel(folder)
            #expect(model.loaded.parts.adaptive?.budgetHead == layered)
            let converted = folder.appendingPathComponent("model.gguf")
            _ = try CheckpointConverter(folder, to: .f32, output: converted).run()
            #expect(try TestModel(converted).loaded.parts.adaptive?.budgetHead == layered)
            for ((image, question), state) in zip(inputs, states) {
                #expect(try model.run(try request(model, image, question, .auto())).adaptive?.units
                    == BudgetHead.choose(layered.likelihoods(state), price: 0.5, of: BudgetUnits(total: 8, prefix: 4)))
            }
        }
    }

    @Test("without a head auto is refused with what to do")
    func refusals() throws {
        let model = try TestModel(Self.reference)
        #expect {
            _ = try model.run(try request(model, "00", "What is in the image?", .auto()))
        } throws: {
            ($0 as? BudgetError)?.category == .usage && "\($0)".contains("has no budget head") && "\($0)".contains("adallava auto fit")
        }
        let wrong = BudgetHead(weight: [[Float](repeating: 0, count: 7)], bias: [0], curve: [.init(price: 0, loss: 0, mean: 1)])
        #expect(throws: CheckpointError.self) { try withHead(wrong) { _ = try TestModel($0) } }
        let pointless = BudgetHead(
            weight: [[Float]](repeating: [Float](repeating: 0, count: model.decoder.configuration.hiddenSize), count: 4), bias: [0, 0, 0, 0], curve: [])
        #expect(throws: (any Error).self) { try withHead(pointless) { _ = try TestModel($0) } }
    }

    private final class StateBox: @unchecked Sendable { var value: PrefixStates? }
}
