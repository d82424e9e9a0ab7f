import Foundation
import Testing

@testable import AdaLLaVA

@Suite struct CheckpointTensorNamesTests {
    /// What a llava-hf name of the old layout is called here, written down independently of the renaming.
    private func expected(_ old: String) -> String {
        old.replacingOccurrences(of: "language_model.", with: "")
            .replacingOccurrences(of: "vision_tower.", with: "")
            .replacingOccurrences(of: "multi_modal_projector.linear_1", with: "model.mm_projector.0")
            .replacingOccurrences(of: "multi_modal_projector.linear_2", with: "model.mm_projector.2")
    }

    @Test("llava-hf layouts") func llavaHFLayouts() throws {
        // A failure means that a llava-hf checkpoint of one of its three layouts is missing a weight.
        let json = try JSONValue.read(contentsOf: CheckpointFixtures.fixture("llava-hf/tensor_names.json"))
        guard case .array(let entries) = try #require(json["names"]) else { return }
        #expect(entries.count == 96)
        var seen = Set<String>()
        for entry in entries {
            guard case .string(let old) = try #require(entry["old"]) else { continue }
            seen.insert(expected(old))
            for layout in ["old", "middle", "new"] {
                guard case .string(let name) = try #require(entry[layout]) else { continue }
                #expect(TensorNames.canonical(huggingFace: name) == expected(old), "\(name)")
            }
        }
        #expect(seen.count == 96 && seen.contains("vision_model.pre_layrnorm.weight") && seen.contains("model.layers.1.mlp.up_proj.weight"))
    }

    @Test("names of LLaVA's own layout are mapped",
        arguments: [
            ("model.vision_tower.vision_tower.vision_model.embeddings.class_embedding", "vision_model.embeddings.class_embedding"),
            ("model.vision_tower.vision_tower.encoder.layers.3.mlp.fc1.bias", "vision_model.encoder.layers.3.mlp.fc1.bias"),
            ("scheduler.scheduler_up_proj.net.0.weight", "scheduler.scheduler_up_proj.net.0.weight"),
            ("model.mm_projector.2.bias", "model.mm_projector.2.bias"), ("lm_head.weight", "lm_head.weight"),
            ("model.layers.0.self_attn.rotary_emb.inv_freq", nil),
            ("model.vision_tower.vision_tower.vision_model.embeddings.position_ids", nil),
        ] as [(String, String?)])
    func huggingFace(stored: String, canonical: String?) {
        // A failure means that a weight of LLaVA's own layout is not found, or a buffer is taken for a weight.
        #expect(TensorNames.canonical(huggingFace: stored) == canonical)
    }

    @Test("names of CLIP folders are mapped",
        arguments: [
            ("vision_model.post_layernorm.bias", "vision_model.post_layernorm.bias"),
            ("encoder.layers.0.layer_norm1.bias", "vision_model.encoder.layers.0.layer_norm1.bias"),
            ("text_model.final_layer_norm.weight", nil), ("logit_scale", nil), ("visual_projection.weight", nil),
        ] as [(String, String?)])
    func clip(stored: String, canonical: String?) {
        // A failure means that a CLIP folder cannot serve as a tower, or that its text half is taken for a part of it.
        #expect(TensorNames.canonical(clip: stored) == canonical)
    }

    @Test("GGUF names are mapped both ways", arguments: [
        ("token_embd.weight", "model.embed_tokens.weight"), ("output_norm.weight", "model.norm.weight"),
        ("output.weight", "lm_head.weight"),
        ("blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight"),
        ("blk.31.ffn_norm.weight", "model.layers.31.post_attention_layernorm.weight"),
        ("blk.7.attn_q.weight", "model.layers.7.self_attn.q_proj.weight"), ("blk.7.attn_k.bias", "model.layers.7.self_attn.k_proj.bias"),
        ("blk.7.attn_v.weight", "model.layers.7.self_attn.v_proj.weight"),
        ("blk.7.attn_output.weight", "model.layers.7.self_attn.o_proj.weight"),
        ("blk.7.ffn_gate.weight", "model.layers.7.mlp.gate_proj.weight"), ("blk.7.ffn_up.weight", "model.layers.7.mlp.up_proj.weight"),
        ("blk.7.ffn_down.weight", "model.layers.7.mlp.down_proj.weight"), ("rope_freqs.weight", "rope_freqs.weight"),
        ("v.class_embd", "vision_model.embeddings.class_embedding"),
        ("v.patch_embd.weight", "vision_model.embeddings.patch_embedding.weight"),
        ("v.position_embd.weight", "vision_model.embeddings.position_embedding.weight"),
        ("v.pre_ln.bias", "vision_model.pre_layrnorm.bias"),
        ("v.post_ln.weight", "vision_model.post_layernorm.weight"),
        ("v.blk.3.ln1.weight", "vision_model.encoder.layers.3.layer_norm1.weight"),
        ("v.blk.3.ln2.bias", "vision_model.encoder.layers.3.layer_norm2.bias"),
        ("v.blk.3.attn_out.weight", "vision_model.encoder.layers.3.self_attn.out_proj.weight"),
        ("v.blk.3.attn_q.bias", "vision_model.encoder.layers.3.self_attn.q_proj.bias"),
        ("v.blk.3.ffn_up.weight", "vision_model.encoder.layers.3.mlp.fc1.weight"),
        ("v.blk.3.ffn_down.bias", "vision_model.encoder.layers.3.mlp.fc2.bias"), ("mm.0.weight", "model.mm_projector.0.weight"),
        ("mm.2.bias", "model.mm_projector.2.bias"),
        ("scheduler.mlp_head.weight", "scheduler.mlp_head.weight"),
    ])
    func gguf(stored: String, canonical: String) {
        // A failure means that a GGUF tensor is not found, or is written under a name that llama.cpp does not know.
        #expect(TensorNames.canonical(gguf: stored) == canonical)
        #expect(TensorNames.gguf(canonical: canonical) == stored)
    }

    @Test("unknown names are not mapped") func odd() {
        // A failure means that a name made to confuse is taken for a weight, or crashes.
        for name in [
            "blk..attn_q.weight", "blk.x.attn_q.weight", "blk.-1.attn_q.weight", "blk.0.weight", "blk.0.other.weight", "", ".", "v.blk.",
        ] {
            #expect(TensorNames.canonical(gguf: name) == name)
        }
        #expect(
            TensorNames.canonical(gguf: "v.blk.0.ffn_down.weight", swapsTowerMLP: true) == "vision_model.encoder.layers.0.mlp.fc1.weight")
        #expect(TensorNames.canonical(gguf: "blk.0.ffn_down.weight", swapsTowerMLP: true) == "model.layers.0.mlp.down_proj.weight")
    }

    @Test("two names of one weight are refused") func collision() throws {
        // A failure means that a checkpoint that holds a weight under two names gets one of them at random.
        try CheckpointFixtures.withTemporaryFolder { folder in
            let url = folder.appendingPathComponent("two.safetensors")
            try SafetensorsWriter.write([("lm_head.weight", [1], [1]), ("language_model.lm_head.weight", [1], [2])], to: url)
            let file = try SafetensorsFile(contentsOf: url)
            #expect(checkpointError { try RenamedTensors(file, rename: TensorNames.canonical(huggingFace:)) }?.isMalformed == true)
        }
    }
}
