#!/usr/bin/env python3
"""Writes CLIP ViT-L/14-336 with random weights, the same ones for every engine.

    clip_weights.py DIR [--layers 24] [--text-width 576]

DIR/f32 and DIR/bf16 are folders as Hugging Face publishes CLIP towers (config.json, model.safetensors); DIR/mmproj.gguf is the pair's second
half as llama.cpp's LLaVA users have it: the tower below hidden state -2, in half precision, and a projector to TEXT-WIDTH values, small
enough not to count. Needs numpy, and llama.cpp's gguf-py in PYTHONPATH (or `pip install gguf`).
"""
import argparse
import json
import struct
from pathlib import Path

import numpy as np

HIDDEN, INTERMEDIATE, HEADS, SIDE, PATCH = 1024, 4096, 16, 336, 14


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    positions = (SIDE // PATCH) ** 2 + 1
    names = {
        "embeddings.class_embedding": (HIDDEN,),
        "embeddings.patch_embedding.weight": (HIDDEN, 3, PATCH, PATCH),
        "embeddings.position_embedding.weight": (positions, HIDDEN),
    }
    for norm in ("pre_layrnorm", "post_layernorm"):
        names |= {f"{norm}.weight": (HIDDEN,), f"{norm}.bias": (HIDDEN,)}
    for layer in range(layers):
        name = f"encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            names |= {f"{name}.self_attn.{part}.weight": (HIDDEN, HIDDEN), f"{name}.self_attn.{part}.bias": (HIDDEN,)}
        names |= {f"{name}.mlp.fc1.weight": (INTERMEDIATE, HIDDEN), f"{name}.mlp.fc1.bias": (INTERMEDIATE,)}
        names |= {f"{name}.mlp.fc2.weight": (HIDDEN, INTERMEDIATE), f"{name}.mlp.fc2.bias": (HIDDEN,)}
        for norm in ("layer_norm1", "layer_norm2"):
            names |= {f"{name}.{norm}.weight": (HIDDEN,), f"{name}.{norm}.bias": (HIDDEN,)}
    return {f"vision_model.{name}": shape for name, shape in names.items()}


def values(name: str, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Deviations that keep hidden states at their size, as training ends up with."""
    if "norm" in name or "layrnorm" in name:
        return np.full(shape, 0.0 if name.endswith("bias") else 1.0, np.float32)
    inputs = int(np.prod(shape[1:])) if len(shape) > 1 else 1
    deviation = 0.02 if len(shape) == 1 or "position" in name else inputs**-0.5
    out = random.standard_normal(shape, dtype=np.float32)
    out *= np.float32(deviation)
    return out


def bf16(array: np.ndarray) -> np.ndarray:
    bits = array.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_safetensors(path: Path, tensors: dict[str, np.ndarray], kind: str) -> None:
    size = {"F32": 4, "BF16": 2}[kind]
    header, offset = {}, 0
    for name, array in tensors.items():
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [offset, offset + array.size * size]}
        offset += array.size * size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in tensors.values():
            (bf16(array) if kind == "BF16" else array).tofile(file)


def write_folder(folder: Path, tensors: dict[str, np.ndarray], layers: int, kind: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "clip_vision_model", "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": layers,
        "num_attention_heads": HEADS, "image_size": SIDE, "patch_size": PATCH, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
        "projection_dim": 768,
    }
    write_safetensors(folder / "model.safetensors", tensors, kind)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_mmproj(path: Path, tensors: dict[str, np.ndarray], layers: int, text_width: int, random: np.random.Generator) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, "clip")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for key, value in (("has_text_encoder", False), ("has_vision_encoder", True), ("has_llava_projector", True), ("use_gelu", False)):
        writer.add_bool(f"clip.{key}", value)
    writer.add_string("clip.projector_type", "mlp")
    for key, value in (
        ("image_size", SIDE), ("patch_size", PATCH), ("embedding_length", HIDDEN), ("feed_forward_length", INTERMEDIATE),
        ("projection_dim", 768), ("attention.head_count", HEADS), ("block_count", layers - 1),
    ):
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.feature_layer", [layers - 1])
    writer.add_array("clip.vision.image_mean", [0.48145466, 0.4578275, 0.40821073])
    writer.add_array("clip.vision.image_std", [0.26862954, 0.26130258, 0.27577711])

    def add(name: str, array: np.ndarray) -> None:
        writer.add_tensor(name, array.astype(np.float16) if array.ndim > 1 and "position" not in name else array)

    add("mm.0.weight", values("mm.0", (text_width, HIDDEN), random))
    add("mm.0.bias", np.zeros(text_width, np.float32))
    add("mm.2.weight", values("mm.2", (text_width, text_width), random))
    add("mm.2.bias", np.zeros(text_width, np.float32))
    source = {name.removeprefix("vision_model."): array for name, array in tensors.items()}
    add("v.class_embd", source["embeddings.class_embedding"])
    add("v.patch_embd.weight", source["embeddings.patch_embedding.weight"])
    add("v.position_embd.weight", source["embeddings.position_embedding.weight"])
    # LLaVA's files call the first matrix of the tower's MLP ffn_down, and llama.cpp's reader expects them to.
    parts = {
        "ln1": "layer_norm1", "ln2": "layer_norm2", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj", "attn_out": "self_attn.out_proj", "ffn_down": "mlp.fc1", "ffn_up": "mlp.fc2",
    }
    for kind in ("weight", "bias"):
        add(f"v.pre_ln.{kind}", source[f"pre_layrnorm.{kind}"])
        for layer in range(layers - 1):
            for name, part in parts.items():
                add(f"v.blk.{layer}.{name}.{kind}", source[f"encoder.layers.{layer}.{part}.{kind}"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--text-width", type=int, default=576)
    options = parser.parse_args()
    random = np.random.default_rng(1)
    tensors = {name: values(name, shape, random) for name, shape in shapes(options.layers).items()}
    # The values that all types hold exactly are BF16's and F16's alike: nobody computes with better weights than the others.
    for name, array in tensors.items():
        tensors[name] = (bf16(array).astype(np.uint32) << 16).view(np.float32)
    write_folder(options.directory / "f32", tensors, options.layers, "F32")
    write_folder(options.directory / "bf16", tensors, options.layers, "BF16")
    write_mmproj(options.directory / "mmproj.gguf", tensors, options.layers, options.text_width, random)
    print(options.directory)


if __name__ == "__main__":
    main()
