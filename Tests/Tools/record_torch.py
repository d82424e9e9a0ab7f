#!/usr/bin/env python3
"""Writes Tests/Fixtures/torch: weights of other fixtures as torch.save writes them (needs torch, safetensors).

mistral/  two shards with pytorch_model.bin.index.json, a tensor each with another order of its elements and on a shared storage
tower/    ada-L's vision tower as pytorch_model.bin
"""
import json, pathlib, shutil
import torch
from safetensors.torch import load_file

root = pathlib.Path(__file__).parent.parent / "Fixtures"
out = root / "torch"
shutil.rmtree(out, ignore_errors=True)

source, folder = root / "decoders/mistral", out / "mistral"
folder.mkdir(parents=True)
tensors = load_file(source / "model.safetensors")
names = sorted(tensors)
# A matrix whose elements lie column by column, and two vectors on one storage.
column = next(n for n in names if n.endswith("layers.0.self_attn.q_proj.weight"))
tensors[column] = tensors[column].t().contiguous().t()
norms = [n for n in names if n.endswith("layers.0.input_layernorm.weight") or n.endswith("layers.0.post_attention_layernorm.weight")]
joined = torch.cat([tensors[n] for n in norms])
width = len(joined) // 2
for i, n in enumerate(norms):
    tensors[n] = joined[i * width:(i + 1) * width]
half = [n for n in names if "layers.0." in n]
shards = {"pytorch_model-00001-of-00002.bin": half, "pytorch_model-00002-of-00002.bin": [n for n in names if n not in half]}
for name, members in shards.items():
    torch.save({n: tensors[n] for n in members}, folder / name)
index = {"metadata": {"total_size": sum(t.numel() * t.element_size() for t in tensors.values())},
         "weight_map": {n: s for s, members in shards.items() for n in members}}
(folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=1))
shutil.copy(source / "config.json", folder / "config.json")

source, folder = root / "ada-L/vision_tower", out / "tower"
folder.mkdir()
torch.save(load_file(source / "model.safetensors"), folder / "pytorch_model.bin")
for name in ["config.json", "preprocessor_config.json"]:
    shutil.copy(source / name, folder / name)
