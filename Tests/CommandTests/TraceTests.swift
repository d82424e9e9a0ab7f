import AdaLLaVA
import Foundation
import Testing

/// `adallava trace`: what other engineers' scripts compare with.
@Suite struct TraceTests {
    struct Cases: Decodable {
        struct Prompt: Decodable {
            let input_ids: [Int]
            let images: [String]
        }
        struct Case: Decodable {
            let id: String
            let prompt: String
            let latency: Double
            let units: Int
            let insert_position: Int
            let length_with_latency_token: Int
            let generated_ids: [Int]
            let attention_heads_per_layer: [Int]
            let mlp_groups_per_layer: [Int]
        }
        let prompts: [String: Prompt]
        let cases: [Case]
    }

    private func trace(_ model: URL, _ arguments: [String]) throws -> (json: [String: Any], tensors: SafetensorsFile) {
        try withTemporaryFolder { folder in
            let output = folder.appendingPathComponent("trace.safetensors")
            let result = try Command.run(["trace", model.path, "--output", output.path] + arguments)
            #expect(result.status == 0, "\(result.errors)")
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["trace.safetensors"])
            return (try result.json(), try SafetensorsFile(contentsOf: output))
        }
    }

    private func values(_ tensor: StoredTensor) -> [Float] {
        #expect(tensor.type == .f32, "\(tensor.name)")
        return withExtendedLifetime(tensor.file) {
            (0 ..< tensor.count).map { tensor.bytes.loadUnaligned(fromByteOffset: $0 * 4, as: Float.self) }
        }
    }

    /// One text-only case, one with an image and one with two.
    @Test("traces match the reference", arguments: ["p4@0.6", "p0@0.75", "p5@0.55"]) func matchesTheReference(id: String) throws {
        // A failure means that the executable computes or writes something else than the library's own tests compare.
        let model = Files.fixture("ada-H")
        let file = try JSONDecoder().decode(Cases.self, from: Data(contentsOf: model.appendingPathComponent("cases.json")))
        let item = try #require(file.cases.first { $0.id == id })
        let prompt = try #require(file.prompts[item.prompt])
        let images = prompt.images.flatMap { ["--image", Files.fixture("images/\($0).png").path] }
        let (json, tensors) = try trace(
            model,
            [
                "--tokens", prompt.input_ids.map(String.init).joined(separator: ","), "--budget", "\(item.latency)", "--max-tokens", "12",
                "--precision", "f32", "--layers", "--json",
            ] + (images.isEmpty ? ["--no-image"] : images))

        #expect(json["generated_ids"] as? [Int] == item.generated_ids)
        #expect(json["generated_text"] is NSNull)
        #expect(json["units"] as? Int == item.units)
        #expect(json["insert_position"] as? Int == item.insert_position)
        #expect(json["length_with_latency_token"] as? Int == item.length_with_latency_token)
        #expect(json["attention_heads_per_layer"] as? [Int] == item.attention_heads_per_layer)
        #expect(json["mlp_groups_per_layer"] as? [Int] == item.mlp_groups_per_layer)

        let recorded = try SafetensorsFile(contentsOf: model.appendingPathComponent("expected.safetensors"))
        func compare(_ name: String, _ expected: String, _ shape: [Int], within tolerance: Float) throws {
            let found = try tensors.tensor(name)
            #expect(found.shape == shape, "\(name)")
            guard let expected = recorded.find(expected) else { return }
            let pairs = zip(values(found), values(expected))
            #expect(found.count == expected.count && pairs.allSatisfy { abs($0 - $1) <= tolerance }, "\(name)")
        }
        let (name, count) = ("case.\(id).", prompt.images.count)
        if count > 0 {
            let pixels = count == 1 ? [3, 56, 56] : [count, 3, 56, 56]
            #expect(try tensors.tensor("pixel_values").shape == pixels)
            if count == 1 { try compare("pixel_values", "image.\(prompt.images[0]).pixel_values", pixels, within: 1e-6) }
            try compare("image_features", "prompt.\(item.prompt).image_features", [16 * count, 64], within: 1e-4)
        }
        try compare("latency_embedding", name + "latency_embedding", [64], within: 1e-5)
        try compare("scheduler_input", name + "scheduler_input", [64], within: 3e-4)
        try compare("scheduler_logits", name + "scheduler_logits", [64], within: 3e-4)
        try compare("plan", name + "plan", [8, 2, 8], within: 0)
        try compare("prefill_last_logits", name + "prefill_last_logits", [320], within: 3e-4)
        try compare("step_logits", name + "step_logits", [item.generated_ids.count, 320], within: 3e-4)
        try compare("inputs_embeds", name + "debug.inputs_embeds", [item.length_with_latency_token, 64], within: 3e-4)
        for (layer, heads) in item.attention_heads_per_layer.enumerated() {
            let groups = item.mlp_groups_per_layer[layer]
            #expect((tensors.find("layer_output.\(layer)") != nil) == (heads + groups > 0))
            if heads + groups > 0 {
                try compare(
                    "layer_output.\(layer)", name + "debug.layer_output.\(layer)", [item.length_with_latency_token, 64], within: 3e-4)
            }
        }
    }

    // A failure means that a prompt given as text is not the one that its token ids give.
    @Test("a prompt as text is the prompt of its token ids") func promptAsText() throws {
        let prompt = "USER: <image>\nWhat is in the picture? ASSISTANT:"
        let arguments = ["--image", Files.scene("01"), "--prompt", prompt, "--budget", "0.7", "--max-tokens", "5"]
        let (json, tensors) = try trace(Files.referenceModel, arguments)
        #expect(json["generated_text"] is String)
        let generated = try #require(json["generated_ids"] as? [Int])
        #expect(try tensors.tensor("step_logits").shape.first == generated.count)
        #expect(
            tensors.names == [
                "image_features", "latency_embedding", "pixel_values", "plan", "prefill_last_logits", "scheduler_input", "scheduler_logits",
                "step_logits", "vision_features",
            ], "layers and what enters them only with --layers")
    }

    // A failure means that a model without a scheduler cannot be compared, or that numbers are made up for it.
    @Test("a model without a scheduler can be traced") func modelWithoutScheduler() throws {
        let (json, tensors) = try trace(Files.fixture("llava-hf/old-layout"), ["--no-image", "--tokens", "1,2,3", "--max-tokens", "4"])
        #expect(json["units"] is NSNull && json["insert_position"] is NSNull)
        #expect(json["length_with_latency_token"] as? Int == 3)
        #expect(json["attention_heads_per_layer"] as? [Int] == [4, 4])
        #expect(tensors.names == ["prefill_last_logits", "step_logits"])
    }

    // A failure means that a prompt which begins with an image cannot be given as token ids.
    @Test("token ids can begin with an image") func imageFirst() throws {
        let image = Files.fixture("images/im0.png").path
        let (json, _) = try trace(Files.fixture("ada-L"), ["--image", image, "--tokens", "-200,5", "--max-tokens", "2"])
        #expect(json["insert_position"] as? Int == 17)
    }
}
