"""GGUF files of the tiny models that record_decoders.py makes, as llama.cpp's converter writes them."""

from pathlib import Path

import gguf
import numpy as np
from transformers import PreTrainedConfig


def neurons(config: PreTrainedConfig) -> int:
    """Neurons of an MLP; LFM2 makes them from three fields."""
    if not getattr(config, "block_auto_adjust_ff_dim", False):
        return config.intermediate_size
    size = int(config.block_ffn_dim_multiplier * int(2 * config.intermediate_size / 3))
    return -(-size // config.block_multiple_of) * config.block_multiple_of


LAYER_NAMES = {
    "operator_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
    "self_attn.out_proj": "attn_output",
    "self_attn.q_layernorm": "attn_q_norm",
    "self_attn.k_layernorm": "attn_k_norm",
    "conv.conv": "shortconv.conv",
    "conv.in_proj": "shortconv.in_proj",
    "conv.out_proj": "shortconv.out_proj",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.dense": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "model.embedding_norm": "token_embd_norm",
    "model.final_layernorm": "output_norm",
    "lm_head": "output",
} | {f"model.layers.{layer}.{source}": f"blk.{layer}.{name}" for layer in range(8) for source, name in LAYER_NAMES.items()}


# Gemma's norms: the one that others have before the MLP is after attention.
GEMMA3_NORMS = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def gguf_name(config: PreTrainedConfig, module: str) -> str:
    if config.model_type == "gemma3_text" and (norm := GEMMA3_NORMS.get(module.rsplit(".", 1)[-1])):
        return f"blk.{module.split('.')[2]}.{norm}"
    return NAMES[module]


def norm_shift(config: PreTrainedConfig, module: str) -> float:
    return 1.0 if config.model_type == "gemma3_text" and module.endswith("norm") else 0.0


def interleave_rotary_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a q or k projection, reordered in each head from (i, i + d/2) to (2i, 2i + 1) rotating together."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)


def separate_rotary_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """Undoes `interleave_rotary_pairs`."""
    pairs = weight.reshape(heads, weight.shape[0] // heads // 2, 2, -1)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(weight.shape)


def gguf_tensors(config: PreTrainedConfig, checkpoint: dict[str, np.ndarray], fused: bool) -> dict[str, np.ndarray]:
    tensors = {}
    for source, values in checkpoint.items():
        module, kind = source.rsplit(".", 1)
        name = f"{gguf_name(config, module)}.{kind}"
        if shift := norm_shift(config, module):
            values = values + np.float32(shift)
        if module.endswith("conv.conv"):
            values = values.squeeze(1)
        if config.model_type == "mistral":  # becomes llama.cpp's "llama", the only one of these architectures that rotates neighbours
            if name.endswith("attn_q.weight"):
                values = interleave_rotary_pairs(values, config.num_attention_heads)
            elif name.endswith("attn_k.weight"):
                values = interleave_rotary_pairs(values, config.num_key_value_heads)
        tensors[name] = values
    if fused:
        for layer in range(config.num_hidden_layers):
            for kind in ("weight", "bias"):
                tensors[f"blk.{layer}.attn_qkv.{kind}"] = np.concatenate([tensors.pop(f"blk.{layer}.attn_{part}.{kind}") for part in "qkv"])
    return tensors


def write_gguf(name: str, config: PreTrainedConfig, tensors: dict[str, np.ndarray], path: Path) -> None:
    """The metadata that llama.cpp's convert_hf_to_gguf.py writes for the architecture, and a vocabulary of names only."""
    architecture = {"qwen2": "qwen2", "mistral": "llama", "phi": "phi2", "gemma3_text": "gemma3", "lfm2": "lfm2"}[config.model_type]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(f"Tiny random {name}")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(neurons(config))  # the converter says 4 * hidden_size for phi2, true for the published models
    writer.add_head_count(config.num_attention_heads)
    if architecture == "lfm2":
        writer.add_head_count_kv([config.num_key_value_heads if kind != "conv" else 0 for kind in config.layer_types])
        writer.add_shortconv_l_cache(config.conv_L_cache)
        writer.add_vocab_size(config.vocab_size)
    else:
        writer.add_head_count_kv(config.num_key_value_heads)
    if architecture == "phi2":
        writer.add_layer_norm_eps(config.layer_norm_eps)
        writer.add_rope_dimension_count(int(config.rope_parameters["partial_rotary_factor"] * config.hidden_size) // config.num_attention_heads)
    else:
        writer.add_layer_norm_rms_eps(config.norm_eps if architecture == "lfm2" else config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters.get("full_attention", config.rope_parameters)["rope_theta"])
    if architecture == "gemma3":
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        writer.add_sliding_window(config.sliding_window)
        # Not the converter's: published models have one global layer of six.
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])
    if architecture == "llama":
        writer.add_vocab_size(config.vocab_size)
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_sliding_window(config.sliding_window)  # not the converter's: llama.cpp ignores the window of Mistral 7B v0.1

    vocabulary = config.vocab_size
    has_scores = architecture in ("llama", "gemma3")
    writer.add_tokenizer_model("llama" if has_scores else "gpt2")
    writer.add_tokenizer_pre({"llama": "default", "qwen2": "qwen2", "phi2": "gpt-2", "gemma3": "default", "lfm2": "lfm2"}[architecture])
    writer.add_token_list(["<unk>", "<s>", "</s>", "a", "b", "ab"] + [f"token{token}" for token in range(6, vocabulary)])
    if has_scores:
        writer.add_token_scores([0.0] * vocabulary)
    special = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    writer.add_token_types(special + [gguf.TokenType.NORMAL] * (vocabulary - len(special)))
    if not has_scores:
        writer.add_token_merges(["a b"])
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)
    if config.pad_token_id is not None:
        writer.add_pad_token_id(config.pad_token_id)
    writer.add_add_bos_token(False)

    for tensor, values in tensors.items():
        writer.add_tensor(tensor, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def verify_gguf(config: PreTrainedConfig, checkpoint: dict[str, np.ndarray], path: Path) -> None:
    """Reads the file back and finds every tensor of the checkpoint in it, bit for bit, and nothing else."""
    found = {}
    for tensor in gguf.GGUFReader(path).tensors:
        if tensor.tensor_type != gguf.GGMLQuantizationType.F32:
            raise ValueError(f"{tensor.name} in {path.name}: expected F32")
        values = np.array(tensor.data).reshape(tensor.shape[::-1])
        if "attn_qkv" in tensor.name:
            for part, third in zip("qkv", np.split(values, 3)):
                found[tensor.name.replace("attn_qkv", f"attn_{part}")] = third
        else:
            found[tensor.name] = values
    for source, expected in checkpoint.items():
        module, kind = source.rsplit(".", 1)
        values = found.pop(f"{gguf_name(config, module)}.{kind}")
        if shift := norm_shift(config, module):
            expected = expected + np.float32(shift)
        if module.endswith("conv.conv"):
            expected = expected.squeeze(1)
        if config.model_type == "mistral" and module.endswith("q_proj"):
            values = separate_rotary_pairs(values, config.num_attention_heads)
        if config.model_type == "mistral" and module.endswith("k_proj"):
            values = separate_rotary_pairs(values, config.num_key_value_heads)
        np.testing.assert_array_equal(values, expected, err_msg=f"{source} in {path.name}")
    if found:
        raise ValueError(f"{path.name}: {sorted(found)} not in the checkpoint")
