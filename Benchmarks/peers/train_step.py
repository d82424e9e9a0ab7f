#!/usr/bin/env python3
"""A plain PyTorch training loop of a model with the shape of a checkpoint folder's config.json: what `make bench-train` compares with.

    train_step.py MODEL_FOLDER --batch 48 --steps 12 --length 113 --threads 1 [--bf16]

Eager mode, AdamW, a CLIP-like tower (a frozen one of another kind gives random features), an mlp2x_gelu projector and a LLaMA decoder, all
layers running, random pictures and tokens, the loss on the last two positions of each sample, as an answer of one word has. Prints samples per
second, the median over steps.
"""
import argparse, json, os, statistics, time

import torch
import torch.nn as nn
import torch.nn.functional as F


def attention(q, k, v):
    if hasattr(F, "scaled_dot_product_attention"): return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    # PyTorch before 2.0, as Debian has it.
    ahead = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).triu(1)
    return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(ahead, float("-inf")).softmax(-1) @ v


class VisionLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        h = c["hidden_size"]
        self.heads, self.norm1, self.norm2 = c["num_attention_heads"], nn.LayerNorm(h), nn.LayerNorm(h)
        self.q, self.k, self.v, self.o = (nn.Linear(h, h) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(h, c["intermediate_size"]), nn.Linear(c["intermediate_size"], h)

    def forward(self, x):
        y = self.norm1(x)
        q, k, v = (m(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for m in (self.q, self.k, self.v))
        x = x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        y = self.fc1(self.norm2(x))
        return x + self.fc2(y * torch.sigmoid(1.702 * y))


class Tower(nn.Module):
    def __init__(self, c):
        super().__init__()
        h, side = c["hidden_size"], c["image_size"] // c["patch_size"]
        self.patches = nn.Conv2d(3, h, c["patch_size"], c["patch_size"], bias=False)
        self.first, self.places = nn.Parameter(torch.randn(h) * 0.02), nn.Parameter(torch.randn(side * side + 1, h) * 0.02)
        self.norm, self.layers = nn.LayerNorm(h), nn.ModuleList(VisionLayer(c) for _ in range(c["num_hidden_layers"]))

    def forward(self, pixels):
        x = self.patches(pixels).flatten(2).transpose(1, 2)
        x = self.norm(torch.cat([self.first.expand(len(x), 1, -1), x], 1) + self.places)
        for layer in self.layers: x = layer(x)
        return x[:, 1:]


class RMSNorm(nn.Module):
    def __init__(self, h):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(h))

    def forward(self, x):
        y = x.float()
        return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype) * self.weight


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        h, m = c["hidden_size"], c["intermediate_size"]
        self.heads, self.norm1, self.norm2 = c["num_attention_heads"], RMSNorm(h), RMSNorm(h)
        self.q, self.k, self.v, self.o = (nn.Linear(h, h, bias=False) for _ in range(4))
        self.gate, self.up, self.down = nn.Linear(h, m, bias=False), nn.Linear(h, m, bias=False), nn.Linear(m, h, bias=False)

    def forward(self, x, cos, sin):
        y = self.norm1(x)
        q, k, v = (m(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for m in (self.q, self.k, self.v))
        turn = lambda t: t * cos + torch.cat([-t.chunk(2, -1)[1], t.chunk(2, -1)[0]], -1) * sin
        y = attention(turn(q), turn(k), v)
        x = x + self.o(y.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Model(nn.Module):
    def __init__(self, c, v):
        super().__init__()
        h = c["hidden_size"]
        self.tower = Tower(v) if v else nn.Identity()
        self.projector = nn.Sequential(nn.Linear(c["mm_hidden_size"], h), nn.GELU(), nn.Linear(h, h))
        self.embed, self.norm = nn.Embedding(c["vocab_size"], h), RMSNorm(h)
        self.layers, self.head = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"])), nn.Linear(h, c["vocab_size"], bias=False)
        self.dim = h // c["num_attention_heads"]

    def forward(self, pixels, tokens, targets):
        x = torch.cat([self.projector(self.tower(pixels)), self.embed(tokens)], 1)
        angles = torch.outer(torch.arange(x.shape[1]), 10000.0 ** (-torch.arange(0, self.dim, 2) / self.dim)).repeat(1, 2)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for layer in self.layers: x = layer(x, cos, sin)
        scored = self.head(self.norm(x[:, -targets.shape[1]:]))
        return F.cross_entropy(scored.float().flatten(0, 1), targets.flatten())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--batch", type=int, default=48); parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--length", type=int, default=113); parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--layers", type=int, help="decoder layers, instead of config.json's")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with open(os.path.join(options.model, "config.json")) as file: c = json.load(file)
    c["num_hidden_layers"] = options.layers or c["num_hidden_layers"]
    with open(os.path.join(options.model, c["mm_vision_tower"], "config.json")) as file: v = json.load(file)
    is_clip = v["model_type"] == "clip_vision_model"
    model = Model(c, v if is_clip else None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    patches = (v["image_size"] // (v["patch_size"] if is_clip else 32)) ** 2
    speeds = []
    for step in range(options.steps):
        pixels = torch.randn(options.batch, *((3, v["image_size"], v["image_size"]) if is_clip else (patches, c["mm_hidden_size"])))
        tokens = torch.randint(0, c["vocab_size"], (options.batch, options.length - patches))
        started = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.bf16): loss = model(pixels, tokens, tokens[:, -2:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(); optimizer.zero_grad()
        if step > 1: speeds.append(options.batch / (time.perf_counter() - started))
    print(f"{statistics.median(speeds):.1f}")


if __name__ == "__main__": main()
