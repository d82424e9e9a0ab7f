#!/usr/bin/env python3
"""Converts the tiny LLaVA checkpoint of the fixtures into the pair of GGUF files that llama.cpp's users have.

    python3 -m venv venv && venv/bin/pip install gguf numpy
    venv/bin/python Tests/Tools/make_tiny_llava_gguf.py

Reads Tests/Fixtures/llava-hf/old-layout and Tests/Fixtures/tokenizer/tok320; writes Tests/Fixtures/llava-gguf/text.gguf (the language
model, architecture "llama") and mmproj.gguf (vision tower and projector, architecture "clip"), everything in float32, so that an engine
that loads the pair must give the logits recorded for the checkpoint (Tests/Fixtures/llava-hf/expected.safetensors).

Names, metadata and layouts are those that llama.cpp's own converters write:

- Language model: rows of q and k reordered within each head from Hugging Face's two halves to interleaved pairs; no token for the
  image, whose rows are there like any other. The vocabulary is padded to the rows of the embedding matrix with unused "[PADn]".
- Tower: the layers after the one whose output the projector reads are left out, so "clip.vision.block_count" is 3 of 4 for
  vision_feature_layer -2, and "clip.vision.feature_layer" repeats it as an index into the hidden states (0: the embeddings).
  By an old slip, which every LLaVA file in circulation has, "ffn_down" holds the first matrix of the MLP and "ffn_up" the
  second. The layer norm after the last layer is left out.
"""

import json
import struct
from pathlib import Path

import gguf
import numpy as np

FIXTURES = Path(__file__).resolve().parent.parent / "Fixtures"
CHECKPOINT = FIXTURES / "llava-hf" / "old-layout"
TOKENIZER = FIXTURES / "tokenizer" / "tok320"
OUTPUT = FIXTURES / "llava-gguf"

TOKEN_TYPES = {
    "normal": gguf.TokenType.NORMAL,
    "unknown": gguf.TokenType.UNKNOWN,
    "control": gguf.TokenType.CONTROL,
    "user_defined": gguf.TokenType.USER_DEFINED,
    "unused": gguf.TokenType.UNUSED,
    "byte": gguf.TokenType.BYTE,
}

# What Hugging Face's configuration classes assume for settings that config.json leaves out.
TEXT_DEFAULTS = {"rope_theta": 10000.0, "rms_norm_eps": 1e-6}
VISION_DEFAULTS = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a float32 safetensors file."""
    data = path.read_bytes()
    (header_length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + header_length])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "F32":
            raise ValueError(f"{name} in {path}: expected F32, found {entry['dtype']}")
        start, end = (8 + header_length + offset for offset in entry["data_offsets"])
        tensors[name] = np.frombuffer(data[start:end], dtype="<f4").reshape(entry["shape"])
    return tensors


def interleave_rotary_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a q or k projection, reordered in each head from (i, i + d/2) to (2i, 2i + 1) rotating together."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows, columns)


def vocabulary(size: int) -> tuple[list[bytes], list[float], list[int]]:
    """The tokenizer's pieces, padded to `size` with tokens that no text produces: texts, scores, types."""
    pieces = json.loads((TOKENIZER / "pieces.json").read_text(encoding="utf-8"))
    if [piece["id"] for piece in pieces] != list(range(len(pieces))) or len(pieces) > size:
        raise ValueError(f"expected ids 0, 1, … below {size} in pieces.json")
    texts = [piece["piece"].encode() for piece in pieces]
    scores = [float(piece["score"]) for piece in pieces]
    types = [int(TOKEN_TYPES[piece["type"]]) for piece in pieces]
    for token in range(len(pieces), size):
        texts.append(f"[PAD{token}]".encode())
        scores.append(-10000.0)
        types.append(int(gguf.TokenType.UNUSED))
    # What tokenizer_config.json lists as special is a control token with this score, whatever the model file says.
    settings = json.loads((TOKENIZER / "tokenizer_config.json").read_text(encoding="utf-8"))
    for token, entry in settings["added_tokens_decoder"].items():
        texts[int(token)] = entry["content"].encode()
        scores[int(token)] = -1000.0
        types[int(token)] = int(gguf.TokenType.CONTROL)
    return texts, scores, types


def write_language_model(config: dict, tensors: dict[str, np.ndarray], path: Path) -> None:
    text = TEXT_DEFAULTS | config["text_config"]
    heads, kv_heads = text["num_attention_heads"], text["num_key_value_heads"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Tiny LLaVA, language model")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_block_count(text["num_hidden_layers"])
    writer.add_context_length(text["max_position_embeddings"])
    writer.add_embedding_length(text["hidden_size"])
    writer.add_feed_forward_length(text["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_freq_base(text["rope_theta"])
    writer.add_rope_dimension_count(text["hidden_size"] // heads)
    writer.add_layer_norm_rms_eps(text["rms_norm_eps"])
    writer.add_vocab_size(text["vocab_size"])

    texts, scores, types = vocabulary(text["vocab_size"])
    settings = json.loads((TOKENIZER / "tokenizer_config.json").read_text(encoding="utf-8"))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(texts)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(texts.index(settings["bos_token"].encode()))
    writer.add_eos_token_id(texts.index(settings["eos_token"].encode()))
    writer.add_unk_token_id(texts.index(settings["unk_token"].encode()))
    writer.add_pad_token_id(texts.index(settings["pad_token"].encode()))
    writer.add_add_bos_token(settings["add_bos_token"])
    writer.add_add_eos_token(settings["add_eos_token"])

    def add(name: str, source: str) -> None:
        writer.add_tensor(name, tensors[f"language_model.{source}"])

    add("token_embd.weight", "model.embed_tokens.weight")
    add("output_norm.weight", "model.norm.weight")
    add("output.weight", "lm_head.weight")
    for layer in range(text["num_hidden_layers"]):
        source, name = f"model.layers.{layer}", f"blk.{layer}"
        for projection, count in (("q", heads), ("k", kv_heads)):
            weight = tensors[f"language_model.{source}.self_attn.{projection}_proj.weight"]
            writer.add_tensor(f"{name}.attn_{projection}.weight", interleave_rotary_pairs(weight, count))
        add(f"{name}.attn_v.weight", f"{source}.self_attn.v_proj.weight")
        add(f"{name}.attn_output.weight", f"{source}.self_attn.o_proj.weight")
        add(f"{name}.attn_norm.weight", f"{source}.input_layernorm.weight")
        add(f"{name}.ffn_norm.weight", f"{source}.post_attention_layernorm.weight")
        for part in ("gate", "up", "down"):
            add(f"{name}.ffn_{part}.weight", f"{source}.mlp.{part}_proj.weight")
    finish(writer)


def write_vision_model(config: dict, tensors: dict[str, np.ndarray], path: Path) -> None:
    vision = VISION_DEFAULTS | config["vision_config"]
    processor = json.loads((CHECKPOINT / "preprocessor_config.json").read_text(encoding="utf-8"))
    chosen = config["vision_feature_layer"]
    feature_layer = chosen if chosen >= 0 else vision["num_hidden_layers"] + 1 + chosen

    writer = gguf.GGUFWriter(path, "clip")
    writer.add_name("Tiny LLaVA, vision tower and projector")
    writer.add_description("image encoder for LLaVA")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_bool("clip.has_text_encoder", False)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.has_llava_projector", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", vision["hidden_act"] == "gelu")
    writer.add_uint32("clip.vision.image_size", vision["image_size"])
    writer.add_uint32("clip.vision.patch_size", vision["patch_size"])
    writer.add_uint32("clip.vision.embedding_length", vision["hidden_size"])
    writer.add_uint32("clip.vision.feed_forward_length", vision["intermediate_size"])
    # CLIP's own projection, which LLaVA does not have: it says nothing about the language model's width.
    writer.add_uint32("clip.vision.projection_dim", vision["projection_dim"])
    writer.add_uint32("clip.vision.attention.head_count", vision["num_attention_heads"])
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", vision["layer_norm_eps"])
    writer.add_uint32("clip.vision.block_count", feature_layer)
    writer.add_array("clip.vision.feature_layer", [feature_layer])
    writer.add_array("clip.vision.image_mean", processor["image_mean"])
    writer.add_array("clip.vision.image_std", processor["image_std"])

    for number, source in ((0, "linear_1"), (2, "linear_2")):
        for kind in ("weight", "bias"):
            writer.add_tensor(f"mm.{number}.{kind}", tensors[f"multi_modal_projector.{source}.{kind}"])

    def add(name: str, source: str) -> None:
        writer.add_tensor(name, tensors[f"vision_tower.vision_model.{source}"])

    add("v.class_embd", "embeddings.class_embedding")
    add("v.patch_embd.weight", "embeddings.patch_embedding.weight")
    add("v.position_embd.weight", "embeddings.position_embedding.weight")
    names = {
        "ln1": "layer_norm1",
        "ln2": "layer_norm2",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_out": "self_attn.out_proj",
        "ffn_down": "mlp.fc1",
        "ffn_up": "mlp.fc2",
    }
    for kind in ("weight", "bias"):
        add(f"v.pre_ln.{kind}", f"pre_layrnorm.{kind}")
        for layer in range(feature_layer):
            for name, source in names.items():
                add(f"v.blk.{layer}.{name}.{kind}", f"encoder.layers.{layer}.{source}.{kind}")
    finish(writer)


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    config = json.loads((CHECKPOINT / "config.json").read_text(encoding="utf-8"))
    tensors = read_safetensors(CHECKPOINT / "model.safetensors")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    write_language_model(config, tensors, OUTPUT / "text.gguf")
    write_vision_model(config, tensors, OUTPUT / "mmproj.gguf")
    for path in sorted(OUTPUT.glob("*.gguf")):
        print(f"{path.relative_to(FIXTURES)}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
