#!/usr/bin/env python3
"""Records what Hugging Face transformers answers with tiny Qwen2, Mistral and Phi models.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.24.0 safetensors==0.8.0 gguf==0.19.0 numpy==2.4.6
    venv/bin/python record_decoders.py --output DIR

Writes one folder for each model: a random float32 checkpoint, the same weights as GGUF, and expected.json. README.md says what is in them.
Weights and prompts come from NumPy's PCG64 with the seeds below, so the checkpoints are the same on every machine; logits are those of one
thread, and differ in their last digits elsewhere.

An expectation is only useful if float rounding cannot turn it around, so the script fails when the two best logits of any greedy step
are closer than MINIMUM_GAP, when an answer repeats itself or contains a special token. Then choose another seed.
"""

import argparse
import json
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, MistralConfig, PhiConfig, PreTrainedConfig, Qwen2Config

LAYERS = 5
HIDDEN = 48
VOCABULARY = 160
SPECIAL_TOKENS = 3  # unknown, begin, end
PROMPT_LENGTHS = (1, 7, 40, 300)
PLAN_PROMPT_LENGTHS = (7, 40)
GREEDY_TOKENS = 12
MINIMUM_GAP = 0.01
MINIMUM_DISTINCT = 5  # different tokens in each greedy answer
WEIGHT_STD = 0.3
# Larger than any published model's, so that an engine that takes another one is off by more than rounding.
EPSILON = 1e-3

COMMON = dict(
    vocab_size=VOCABULARY, hidden_size=HIDDEN, num_hidden_layers=LAYERS, max_position_embeddings=512, initializer_range=WEIGHT_STD,
    bos_token_id=1, eos_token_id=2, attn_implementation="eager", dtype="float32",
)  # fmt: skip
QWEN2 = dict(
    intermediate_size=64, num_attention_heads=6, num_key_value_heads=2, rms_norm_eps=EPSILON,
    rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
)  # fmt: skip


@dataclass
class Fixture:
    name: str
    seed: int
    config: PreTrainedConfig
    # Keys that published config.json files of this family have, and the present transformers no longer writes.
    published_keys: dict
    attention_output: str
    mlp_output: str


FIXTURES = [
    Fixture(
        "qwen2", 1, Qwen2Config(**COMMON, **QWEN2, tie_word_embeddings=False),
        # Published Qwen2 files name a window and turn it off.
        {"rope_theta": 1000000.0, "use_sliding_window": False, "sliding_window": 16, "max_window_layers": LAYERS},
        "o_proj", "down_proj",
    ),
    Fixture(
        "qwen2-tied", 2, Qwen2Config(**COMMON, **QWEN2, tie_word_embeddings=True),
        {"rope_theta": 1000000.0, "use_sliding_window": False, "sliding_window": 16, "max_window_layers": LAYERS},
        "o_proj", "down_proj",
    ),
    Fixture(
        "mistral", 1, MistralConfig(
            **COMMON, intermediate_size=46, num_attention_heads=4, num_key_value_heads=2, head_dim=16, sliding_window=24, rms_norm_eps=EPSILON,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        ),
        {"rope_theta": 10000.0}, "o_proj", "down_proj",
    ),
    Fixture(
        "phi2", 14, PhiConfig(
            **COMMON, intermediate_size=64, num_attention_heads=6, hidden_act="gelu_new", qk_layernorm=False, layer_norm_eps=EPSILON,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        ),
        {"rope_theta": 10000.0, "partial_rotary_factor": 0.5}, "dense", "fc2",
    ),
]  # fmt: skip


# MARK: Checkpoints


def random_model(fixture: Fixture) -> torch.nn.Module:
    """The model with every parameter drawn anew, norms and biases too."""
    model = AutoModelForCausalLM.from_config(fixture.config, attn_implementation="eager", dtype=torch.float32).eval()
    generator = np.random.default_rng(fixture.seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            shape = tuple(parameter.shape)
            if name.endswith("norm.weight"):
                values = generator.uniform(0.5, 1.5, shape)
            else:
                values = generator.standard_normal(shape) * WEIGHT_STD
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))
    return model


def save_checkpoint(fixture: Fixture, model: torch.nn.Module, folder: Path) -> None:
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    (folder / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((folder / "config.json").read_text())
    for key in ("rope_parameters", "layer_types"):
        config.pop(key, None)
    config["torch_dtype"] = config.pop("dtype")
    config |= {"rope_scaling": None} | fixture.published_keys
    (folder / "config-published.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


# MARK: Plans


def keep_all(fixture: Fixture) -> list[dict]:
    every = list(range(fixture.config.num_attention_heads))
    return [{"heads": every, "groups": every} for _ in range(LAYERS)]


def plans(fixture: Fixture) -> list[dict]:
    """What to run: for each layer the attention heads and neuron groups that are kept. The first two layers are always whole."""
    count = fixture.config.num_attention_heads
    last = count - 1
    # All heads that read the first key/value head.
    sharing = count // fixture.config.num_key_value_heads
    after_first_kv = list(range(sharing, count)) if sharing > 1 else list(range(count // 2, count))
    some = {"heads": [0, last], "groups": [1, 2]}
    nothing = {"heads": [], "groups": []}

    def plan(name: str, variant: str, changes: dict[int, dict]) -> dict:
        layers = keep_all(fixture)
        for layer, change in changes.items():
            layers[layer] = layers[layer] | change
        return {"name": name, "variant": variant, "layers": layers}

    return [
        plan("L", "L", {2: nothing, 4: nothing}),
        plan("L, neighbours", "L", {2: nothing, 3: nothing}),
        plan("H", "H", {
            2: some,
            3: {"heads": after_first_kv, "groups": [0, last]},
            4: {"groups": [0] + list(range(2, count))},
        }),
        plan("H, no heads in layer 3", "H", {2: some, 3: {"heads": [], "groups": [0, last]}}),
        plan("H, no groups in layer 2", "H", {2: {"heads": [1, last], "groups": []}, 4: some}),
        plan("H, all kinds", "H", {2: {"heads": [], "groups": [1]}, 3: nothing, 4: {"heads": [2], "groups": []}}),
    ]  # fmt: skip


def group_sizes(fixture: Fixture) -> list[int]:
    """The neurons are cut into as many groups as there are heads; the first groups get one neuron more when that leaves a rest."""
    count = fixture.config.num_attention_heads
    size, rest = divmod(fixture.config.intermediate_size, count)
    return [size + 1] * rest + [size] * (count - rest)


def head_dim(config: PreTrainedConfig) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


@contextmanager
def running(plan: dict, fixture: Fixture, model: torch.nn.Module):
    """Runs the model under a plan. What is not kept is multiplied by 0 in front of the output projection, whose bias stays. Attention
    without a head, or an MLP without a group, gives nothing at all, not even the bias; without both, the layer changes nothing."""
    hooks = []

    def multiply_input(module: torch.nn.Module, kept: list[int], sizes: list[int]) -> None:
        factors = torch.repeat_interleave(torch.tensor([float(unit in kept) for unit in range(len(sizes))]), torch.tensor(sizes))
        hooks.append(module.register_forward_pre_hook(lambda _, arguments: (arguments[0] * factors,)))

    for layer, row in zip(model.model.layers, plan["layers"], strict=True):
        heads = [head_dim(fixture.config)] * fixture.config.num_attention_heads
        multiply_input(getattr(layer.self_attn, fixture.attention_output), row["heads"], heads)
        multiply_input(getattr(layer.mlp, fixture.mlp_output), row["groups"], group_sizes(fixture))
        if not row["heads"]:
            hooks.append(layer.self_attn.register_forward_hook(lambda _module, _input, output: (torch.zeros_like(output[0]), output[1])))
        if not row["groups"]:
            hooks.append(layer.mlp.register_forward_hook(lambda _module, _input, output: torch.zeros_like(output)))
        if not row["heads"] and not row["groups"]:
            # Already so; said once more because it is what "skipped" means.
            hooks.append(layer.register_forward_hook(lambda _module, inputs, _output: inputs[0]))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


# MARK: Expectations


def last_logits(model: torch.nn.Module, tokens: list[int]) -> np.ndarray:
    with torch.no_grad():
        return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].numpy()


def greedy(model: torch.nn.Module, prompt: list[int]) -> tuple[list[int], float]:
    """The most likely tokens, each from a pass over everything before it, and the smallest lead that one of them had."""
    answer, gap = [], float("inf")
    for _ in range(GREEDY_TOKENS):
        logits = last_logits(model, prompt + answer)
        second, first = np.sort(logits)[-2:]
        gap = min(gap, float(first - second))
        answer.append(int(logits.argmax()))
    return answer, gap


def rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values]


def expectations(fixture: Fixture, model: torch.nn.Module) -> dict:
    generator = np.random.default_rng([fixture.seed, 1])
    prompts, problems = [], []
    for length in PROMPT_LENGTHS:
        tokens = generator.integers(SPECIAL_TOKENS, VOCABULARY, length).tolist()
        logits = last_logits(model, tokens)
        answer, gap = greedy(model, tokens)
        prompts.append({"tokens": tokens, "logits": rounded(logits), "greedy": answer, "gap": float(f"{gap:.3g}")})
        if gap < MINIMUM_GAP or len(set(answer)) < MINIMUM_DISTINCT or min(answer) < SPECIAL_TOKENS:
            problems.append(f"length {length}: {answer}, smallest lead {gap:.2g}")
    if problems:
        raise SystemExit(f"{fixture.name}: choose another seed\n" + "\n".join(problems))

    whole = last_logits(model, prompts[1]["tokens"])
    with running({"layers": keep_all(fixture)}, fixture, model):
        np.testing.assert_array_equal(last_logits(model, prompts[1]["tokens"]), whole)
    recorded = []
    for plan in plans(fixture):
        results = []
        for prompt in prompts:
            if len(prompt["tokens"]) in PLAN_PROMPT_LENGTHS:
                with running(plan, fixture, model):
                    logits = last_logits(model, prompt["tokens"])
                results.append({"prompt": len(prompt["tokens"]), "logits": rounded(logits)})
        recorded.append(plan | {"results": results})
    return {
        "recorded_with": {"transformers": transformers.__version__, "torch": torch.__version__, "numpy": np.__version__},
        "seed": fixture.seed,
        "head_count": fixture.config.num_attention_heads,
        "group_sizes": group_sizes(fixture),
        "prompts": prompts,
        "plans": recorded,
    }


def to_json(value, indent: str = "") -> str:
    """JSON with lists of numbers, and whatever else is short, on one line."""
    line = json.dumps(value)
    if len(line) < 100 or isinstance(value, list) and all(isinstance(item, (int, float)) for item in value):
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        return "{\n" + ",\n".join(f"{inner}{json.dumps(key)}: {to_json(item, inner)}" for key, item in value.items()) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + to_json(item, inner) for item in value) + f"\n{indent}]"


# MARK: GGUF

LAYER_NAMES = {
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
    "model.final_layernorm": "output_norm",
    "lm_head": "output",
} | {f"model.layers.{layer}.{source}": f"blk.{layer}.{name}" for layer in range(LAYERS) for source, name in LAYER_NAMES.items()}


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
        name = f"{NAMES[module]}.{kind}"
        if config.model_type == "mistral":  # becomes llama.cpp's "llama", the only one of these architectures that rotates neighbours
            if name.endswith("attn_q.weight"):
                values = interleave_rotary_pairs(values, config.num_attention_heads)
            elif name.endswith("attn_k.weight"):
                values = interleave_rotary_pairs(values, config.num_key_value_heads)
        tensors[name] = values
    if fused:
        for layer in range(LAYERS):
            for kind in ("weight", "bias"):
                tensors[f"blk.{layer}.attn_qkv.{kind}"] = np.concatenate([tensors.pop(f"blk.{layer}.attn_{part}.{kind}") for part in "qkv"])
    return tensors


def write_gguf(name: str, config: PreTrainedConfig, tensors: dict[str, np.ndarray], path: Path) -> None:
    """The metadata that llama.cpp's convert_hf_to_gguf.py writes for the architecture, and a vocabulary of names only."""
    architecture = {"qwen2": "qwen2", "mistral": "llama", "phi": "phi2"}[config.model_type]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(f"Tiny random {name}")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)  # the converter says 4 * hidden_size for phi2, true for the published models
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    if architecture == "phi2":
        writer.add_layer_norm_eps(config.layer_norm_eps)
        writer.add_rope_dimension_count(int(config.rope_parameters["partial_rotary_factor"] * config.hidden_size) // config.num_attention_heads)
    else:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if architecture == "llama":
        writer.add_vocab_size(config.vocab_size)
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_sliding_window(config.sliding_window)  # not the converter's: llama.cpp ignores the window of Mistral 7B v0.1

    writer.add_tokenizer_model("llama" if architecture == "llama" else "gpt2")
    writer.add_tokenizer_pre({"llama": "default", "qwen2": "qwen2", "phi2": "gpt-2"}[architecture])
    writer.add_token_list(["<unk>", "<s>", "</s>", "a", "b", "ab"] + [f"token{token}" for token in range(6, VOCABULARY)])
    if architecture == "llama":
        writer.add_token_scores([0.0] * VOCABULARY)
    special = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    writer.add_token_types(special + [gguf.TokenType.NORMAL] * (VOCABULARY - len(special)))
    if architecture != "llama":
        writer.add_token_merges(["a b"])
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)
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
        values = found.pop(f"{NAMES[module]}.{kind}")
        if config.model_type == "mistral" and module.endswith("q_proj"):
            values = separate_rotary_pairs(values, config.num_attention_heads)
        if config.model_type == "mistral" and module.endswith("k_proj"):
            values = separate_rotary_pairs(values, config.num_key_value_heads)
        np.testing.assert_array_equal(values, expected, err_msg=f"{source} in {path.name}")
    if found:
        raise ValueError(f"{path.name}: {sorted(found)} not in the checkpoint")


# MARK: All together


def verify_checkpoint(model: torch.nn.Module, folder: Path, tokens: list[int]) -> None:
    """Either configuration file, with the saved weights, answers as the model in memory does."""
    expected = last_logits(model, tokens)
    weights = {name: torch.from_numpy(values) for name, values in load_file(folder / "model.safetensors").items()}
    for file in ("config.json", "config-published.json"):
        config = type(model.config).from_json_file(folder / file)
        loaded = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
        missing = loaded.load_state_dict(weights, strict=False)
        loaded.tie_weights()
        if missing.unexpected_keys or set(missing.missing_keys) - ({"lm_head.weight"} if config.tie_word_embeddings else set()):
            raise ValueError(f"{folder.name}/{file}: {missing}")
        np.testing.assert_array_equal(last_logits(loaded, tokens), expected, err_msg=f"{folder.name}/{file}")


def record(fixture: Fixture, output: Path) -> None:
    folder = output / fixture.name
    folder.mkdir(parents=True, exist_ok=True)
    model = random_model(fixture)
    expected = expectations(fixture, model)
    save_checkpoint(fixture, model, folder)
    (folder / "expected.json").write_text(to_json(expected) + "\n")
    verify_checkpoint(model, folder, expected["prompts"][-1]["tokens"])

    checkpoint = load_file(folder / "model.safetensors")
    files = {f"{fixture.name}.gguf": fixture.name == "phi2"}
    if fixture.name == "phi2":
        files["phi2-split.gguf"] = False
    for file, fused in files.items():
        write_gguf(fixture.name, fixture.config, gguf_tensors(fixture.config, checkpoint, fused), folder / file)
        verify_gguf(fixture.config, checkpoint, folder / file)
    print(fixture.name, "smallest lead", min(prompt["gap"] for prompt in expected["prompts"]), [prompt["greedy"] for prompt in expected["prompts"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    output = parser.parse_args().output
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for fixture in FIXTURES:
        record(fixture, output)


if __name__ == "__main__":
    main()
