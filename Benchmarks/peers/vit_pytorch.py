#!/usr/bin/env python3
"""Times CLIP's vision tower in PyTorch on the weights that clip_weights.py wrote.

    vit_pytorch.py DIR/f32 --threads 2 --type float32|bfloat16

For each line on standard input one picture is encoded and {"milliseconds": …} is printed as a line. The tower runs up to hidden state -2, as
LLaVA's does: 23 of 24 layers, 577 positions; eager mode, fused attention.
"""
import argparse
import json
import mmap
import struct
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def attention(q, k, v):
    """Fused where PyTorch has it (2.0 on), written out where not."""
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v)
    return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1) @ v


def read(folder: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    with open(folder / "model.safetensors", "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        tensor = torch.frombuffer(bytearray(data[start:end]), dtype=TYPES[entry["dtype"]])
        tensors[name.removeprefix("vision_model.")] = tensor.reshape(entry["shape"]).to(dtype)
    return tensors


class Tower:
    def __init__(self, folder: Path, dtype: torch.dtype):
        self.config = json.loads((folder / "config.json").read_text())
        self.weights = read(folder, dtype)
        self.layers = self.config["num_hidden_layers"] - 1

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        w, c = self.weights, self.config
        width, epsilon, heads = c["hidden_size"], c["layer_norm_eps"], c["num_attention_heads"]

        def norm(x, name):
            return F.layer_norm(x, (width,), w[f"{name}.weight"], w[f"{name}.bias"], epsilon)

        def linear(x, name):
            return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

        x = F.conv2d(pixels, w["embeddings.patch_embedding.weight"], stride=c["patch_size"]).flatten(2).transpose(1, 2)
        x = torch.cat([w["embeddings.class_embedding"].expand(1, 1, -1), x], 1) + w["embeddings.position_embedding.weight"]
        x = norm(x, "pre_layrnorm")
        for layer in range(self.layers):
            name = f"encoder.layers.{layer}"
            y = norm(x, f"{name}.layer_norm1")
            q, k, v = (linear(y, f"{name}.self_attn.{part}_proj").unflatten(-1, (heads, -1)).transpose(1, 2) for part in "qkv")
            x = x + linear(attention(q, k, v).transpose(1, 2).flatten(2), f"{name}.self_attn.out_proj")
            y = linear(norm(x, f"{name}.layer_norm2"), f"{name}.mlp.fc1")
            x = x + linear(y * torch.sigmoid(1.702 * y), f"{name}.mlp.fc2")
        return x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--type", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.type)
    with torch.inference_mode():
        tower = Tower(options.folder, dtype)
        side = tower.config["image_size"]
        pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1)).to(dtype)
        tower(pixels)
        print(json.dumps({"ready": True, "version": torch.__version__}), flush=True)
        for _ in sys.stdin:
            start = time.perf_counter()
            tower(pixels)
            print(json.dumps({"milliseconds": 1000 * (time.perf_counter() - start)}), flush=True)


if __name__ == "__main__":
    main()
