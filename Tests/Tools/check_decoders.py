#!/usr/bin/env python3
"""Computes the answers of record_decoders.py a second time: from the GGUF files, in NumPy's float64, without transformers.

    python3 -m venv venv && venv/bin/pip install gguf numpy
    venv/bin/python check_decoders.py DIR

Unlike the recording, it leaves out what a plan does not keep instead of multiplying by 0. Prints the largest difference for each file.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np


class Decoder:
    def __init__(self, path: Path):
        reader = gguf.GGUFReader(path)
        self.fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("tokenizer.")}
        self.tensors = {t.name: np.array(t.data).reshape(t.shape[::-1]).astype(np.float64) for t in reader.tensors}
        self.architecture = self.fields["general.architecture"]
        self.heads = self.field("attention.head_count")
        self.kv_heads = self.field("attention.head_count_kv")
        self.hidden = self.field("embedding_length")
        self.head_dim = self.field("attention.key_length", self.hidden // self.heads)
        self.rotary = self.field("rope.dimension_count", self.head_dim)
        self.base = self.field("rope.freq_base", 10000.0)
        self.window = self.field("attention.sliding_window", None)
        self.layers = self.field("block_count")
        if isinstance(self.kv_heads, list):  # LFM2: none where a layer has a convolution
            self.kv_heads = max(self.kv_heads)
        # Gemma 3: whether a layer has the window, and a base of its own.
        self.sliding = self.field("attention.sliding_window_pattern", [self.window is not None] * self.layers)
        self.local_base = self.field("rope.freq_base_swa", 10000.0 if self.architecture == "gemma3" else self.base)

    def field(self, name, *default):
        key = f"{self.architecture}.{name}"
        return self.fields.get(key, *default) if default else self.fields[key]

    def linear(self, x, name, columns=None):
        """`columns`: which inputs to read."""
        weight = self.tensors[f"{name}.weight"]
        y = x @ weight.T if columns is None else x[:, columns] @ weight[:, columns].T
        return y + self.tensors.get(f"{name}.bias", 0.0)

    def norm(self, x, name):
        weight = self.tensors[f"{name}.weight"]
        if self.architecture == "phi2":
            x = x - x.mean(-1, keepdims=True)
            scale = np.sqrt((x * x).mean(-1, keepdims=True) + self.field("attention.layer_norm_epsilon"))
            return x / scale * weight + self.tensors[f"{name}.bias"]
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.field("attention.layer_norm_rms_epsilon")) * weight

    def rotate(self, x, base):
        """x: [positions, heads, head_dim]; the dimensions after the rotary ones stay."""
        half = self.rotary // 2
        angles = np.arange(len(x))[:, None] * base ** (-np.arange(half) * 2 / self.rotary)
        cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
        out = x.copy()
        if self.architecture == "llama":
            first, second = slice(0, self.rotary, 2), slice(1, self.rotary, 2)
        else:
            first, second = slice(0, half), slice(half, self.rotary)
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., second] * cos + x[..., first] * sin
        return out

    def attention(self, x, block, kept):
        if f"{block}.attn_qkv.weight" in self.tensors:
            q, k, v = np.split(self.linear(x, f"{block}.attn_qkv"), 3, axis=-1)
        else:
            q, k, v = (self.linear(x, f"{block}.attn_{part}") for part in "qkv")
        q, k, v = (part.reshape(len(x), -1, self.head_dim) for part in (q, k, v))
        if f"{block}.attn_q_norm.weight" in self.tensors:
            q, k = self.norm(q, f"{block}.attn_q_norm"), self.norm(k, f"{block}.attn_k_norm")
        slides = self.sliding[int(block.split(".")[1])]
        q, k = (self.rotate(part, self.local_base if slides else self.base) for part in (q, k))
        query, key = np.arange(len(x))[:, None], np.arange(len(x))[None]
        seen = key <= query
        if slides:
            seen &= query - key < self.window
        out = np.zeros((len(x), self.heads, self.head_dim))
        for head in kept:
            kv = head // (self.heads // self.kv_heads)
            scores = np.where(seen, q[:, head] @ k[:, kv].T / np.sqrt(self.head_dim), -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out[:, head] = weights / weights.sum(-1, keepdims=True) @ v[:, kv]
        columns = np.concatenate([np.arange(head * self.head_dim, (head + 1) * self.head_dim) for head in kept])
        return self.linear(out.reshape(len(x), -1), f"{block}.attn_output", columns)

    def convolution(self, x, block, kept):
        b, c, v = np.split(self.linear(x, f"{block}.shortconv.in_proj"), 3, axis=-1)
        taps = self.tensors[f"{block}.shortconv.conv.weight"]  # [channels, taps]
        seen = np.concatenate([np.zeros((taps.shape[1] - 1, self.hidden)), b * v])
        y = c * sum(seen[k : k + len(x)] * taps[:, k] for k in range(taps.shape[1]))
        size = self.hidden // self.heads
        columns = np.concatenate([np.arange(share * size, (share + 1) * size) for share in kept])
        return self.linear(y, f"{block}.shortconv.out_proj", columns)

    def mlp(self, x, block, kept):
        size, rest = divmod(self.field("feed_forward_length"), self.heads)
        starts = np.cumsum([0] + [size + 1] * rest + [size] * (self.heads - rest))
        columns = np.concatenate([np.arange(starts[group], starts[group + 1]) for group in kept])
        up = self.linear(x, f"{block}.ffn_up")
        if self.architecture == "gemma3":
            gate = self.linear(x, f"{block}.ffn_gate")
            active = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3))) * up
        elif self.architecture == "phi2":
            active = 0.5 * up * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
        else:
            gate = self.linear(x, f"{block}.ffn_gate")
            active = gate / (1 + np.exp(-gate)) * up
        return self.linear(active, f"{block}.ffn_down", columns)

    def post(self, x, name):
        """Gemma's norm of what is added."""
        return self.norm(x, name) if f"{name}.weight" in self.tensors else x

    def logits(self, tokens, plan=None):
        x = self.tensors["token_embd.weight"][tokens]
        if self.architecture == "gemma3":
            x = x * np.sqrt(self.hidden)
        for layer in range(self.field("block_count")):
            row = plan[layer] if plan else {"heads": range(self.heads), "groups": range(self.heads)}
            block = f"blk.{layer}"
            entry = x
            if row["heads"]:
                mix = self.convolution if f"{block}.shortconv.conv.weight" in self.tensors else self.attention
                x = x + self.post(mix(self.norm(entry, f"{block}.attn_norm"), block, row["heads"]), f"{block}.post_attention_norm")
            if row["groups"]:
                # Phi's MLP reads what attention reads.
                normed = self.norm(entry, f"{block}.attn_norm") if self.architecture == "phi2" else self.norm(x, f"{block}.ffn_norm")
                x = x + self.post(self.mlp(normed, block, row["groups"]), f"{block}.post_ffw_norm")
        output = "output" if "output.weight" in self.tensors else "token_embd"
        final = "token_embd_norm" if self.architecture == "lfm2" else "output_norm"
        return self.linear(self.norm(x, final)[-1:], output)[0]


def main() -> None:
    for path in sorted(Path(sys.argv[1]).glob("*/*.gguf")):
        expected = json.loads((path.parent / "expected.json").read_text())
        decoder = Decoder(path)
        prompts = {len(prompt["tokens"]): prompt["tokens"] for prompt in expected["prompts"]}
        plain, planned = [], []
        for prompt in expected["prompts"]:
            plain.append(np.abs(decoder.logits(prompt["tokens"]) - prompt["logits"]).max())
            for step, token in enumerate(prompt["greedy"]):
                assert decoder.logits(prompt["tokens"] + prompt["greedy"][:step]).argmax() == token
        for plan in expected["plans"]:
            for result in plan["results"]:
                planned.append(np.abs(decoder.logits(prompts[result["prompt"]], plan["layers"]) - result["logits"]).max())
        print(f"{path.parent.name}/{path.name}: logits within {max(plain):.1e}, under plans within {max(planned):.1e}, greedy answers the same")


if __name__ == "__main__":
    main()
