#!/usr/bin/env python3
"""Records what Hugging Face transformers answers with tiny Qwen2, Mistral, Phi, Gemma 3 and LFM2 models.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.24.0 safetensors==0.8.0 gguf==0.19.0 numpy==2.4.6
    venv/bin/python record_decoders.py --output DIR

Writes one folder for each model: a random float32 checkpoint, the same weights as GGUF, and expected.json. README.md says what is in them.
Gemma 3 and LFM2 also get a tokenizer and a chat template, and the answers to conversations.
Weights and prompts come from NumPy's PCG64 with the seeds below, so the checkpoints are the same on every machine; logits are those of one
thread, and differ in their last digits elsewhere.

An expectation is only useful if float rounding cannot turn it around, so the script fails when the two best logits of any greedy step
are closer than the fixture's gap, when an answer repeats itself or contains a special token. Then choose another seed.
"""

import argparse
import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3TextConfig, Lfm2Config, MistralConfig, PhiConfig, PreTrainedConfig, Qwen2Config

from decoder_gguf import gguf_tensors, neurons, verify_gguf, write_gguf
from decoder_tokenizers import GEMMA3_TEMPLATE, LFM2_TEMPLATE, tokenizer

LAYERS = 5
HIDDEN = 48
VOCABULARY = 160
TOKENIZER_VOCABULARY = 400  # of the models that have a tokenizer
SPECIAL_TOKENS = 3  # unknown, begin, end
PROMPT_LENGTHS = (1, 7, 40, 300)
PLAN_PROMPT_LENGTHS = (7, 40)
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


def layer_types(most: str, others: str, indices: tuple) -> list[str]:
    return [others if layer in indices else most for layer in range(LAYERS)]


@dataclass
class Fixture:
    name: str
    seed: int
    config: PreTrainedConfig
    # Keys that published config.json files of this family have, and the present transformers no longer writes.
    published_keys: dict
    attention_output: str
    mlp_output: str
    # Module of the layer that has the MLP.
    mlp: str = "mlp"
    embedding_std: float = WEIGHT_STD
    # How many tokens are answered, and the smallest lead that each must have over the second best.
    greedy_tokens: int = 12
    minimum_gap: float = 0.01
    # Keys of config.json that published files of this family do not have.
    unpublished_keys: tuple = ()
    # GGUF stores norms' weights plus this.
    norm_shift: float = 0.0
    # Of the second folder of the family: no GGUF file.
    has_gguf: bool = True
    chat_template: str | None = None
    conversations: list = field(default_factory=list)


GEMMA3 = COMMON | dict(
    vocab_size=TOKENIZER_VOCABULARY, num_attention_heads=4, num_key_value_heads=2, head_dim=16, intermediate_size=70, rms_norm_eps=EPSILON,
    sliding_window=24, bos_token_id=2, eos_token_id=1, pad_token_id=0, attn_implementation="eager",
)  # fmt: skip
LFM2 = COMMON | dict(
    vocab_size=TOKENIZER_VOCABULARY, num_attention_heads=6, num_key_value_heads=2, intermediate_size=100, block_multiple_of=16, norm_eps=EPSILON,
    block_auto_adjust_ff_dim=True, block_ffn_dim_multiplier=1.0, bos_token_id=2, eos_token_id=1, pad_token_id=0, tie_word_embeddings=True,
    rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
)  # fmt: skip
QUESTIONS = ["What is on the left?", "Count  the blue\ncircles, please: 1, 2, 3 … ünï 日本!"]

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
    Fixture(
        "gemma3", 18, Gemma3TextConfig(
            **GEMMA3, query_pre_attn_scalar=16, layer_types=layer_types("sliding_attention", "full_attention", (2, 4)),
            rope_parameters={
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}, "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
            },
        ),
        {"rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "layer_types": layer_types("sliding_attention", "full_attention", (2, 4))},
        "o_proj", "down_proj", greedy_tokens=64, minimum_gap=0.002, unpublished_keys=("tie_word_embeddings",), norm_shift=1.0,
        embedding_std=0.2, chat_template=GEMMA3_TEMPLATE, conversations=QUESTIONS,
    ),
    # What the first one leaves at its usual value: linear scaling of the global layers, another local base, capped logits, a scale of queries, the
    # pattern of layers given by its length.
    Fixture(
        "gemma3-scaled", 1, Gemma3TextConfig(
            **GEMMA3, query_pre_attn_scalar=9, final_logit_softcapping=12.0, layer_types=layer_types("sliding_attention", "full_attention", (1, 3)),
            rope_parameters={
                "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
                "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 20000.0},
            },
        ),
        {
            "rope_theta": 20000.0, "rope_local_base_freq": 500.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0}, "sliding_window_pattern": 2,
        },
        "o_proj", "down_proj", greedy_tokens=24, minimum_gap=0.002, norm_shift=1.0, embedding_std=0.2, has_gguf=False,
    ),
    Fixture(
        "lfm2", 7, Lfm2Config(**LFM2, conv_L_cache=3, conv_bias=False, layer_types=layer_types("conv", "full_attention", (1, 4))),
        {
            "rope_theta": 1000000.0, "block_ff_dim": 100, "block_dim": 48, "conv_dim": 48, "num_heads": 6, "block_norm_eps": EPSILON,
            "full_attn_idxs": [1, 4],
        },
        "out_proj", "w2", mlp="feed_forward", greedy_tokens=64, minimum_gap=0.002, unpublished_keys=("intermediate_size", "tie_word_embeddings"),
        chat_template=LFM2_TEMPLATE, conversations=QUESTIONS,
    ),
    # Four taps, biases, and an MLP whose size stands in the file.
    Fixture(
        "lfm2-bias", 1, Lfm2Config(
            **(LFM2 | dict(block_auto_adjust_ff_dim=False, intermediate_size=64)), conv_L_cache=4, conv_bias=True,
            layer_types=layer_types("conv", "full_attention", (0, 2)),
        ),
        {"rope_theta": 1000000.0, "full_attn_idxs": [0, 2]},
        "out_proj", "w2", mlp="feed_forward", greedy_tokens=24, minimum_gap=0.002, has_gguf=False,
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
                # Where what is added is normed, large, or the scaled embedding decides every answer.
                bounds = (1.5, 4.0) if "post_" in name and fixture.norm_shift else (0.5, 1.5)
                values = generator.uniform(*bounds, shape) - fixture.norm_shift
            else:
                values = generator.standard_normal(shape) * (fixture.embedding_std if "embed_tokens" in name else WEIGHT_STD)
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))
    return model


def save_checkpoint(fixture: Fixture, model: torch.nn.Module, folder: Path) -> None:
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    (folder / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((folder / "config.json").read_text())
    for key in ("rope_parameters", "layer_types", *fixture.unpublished_keys):
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
    size, rest = divmod(neurons(fixture.config), count)
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
        # A convolution's channels are cut into as many groups as attention has heads: here as many as a head has values.
        is_attention = hasattr(layer, "self_attn")
        heads = [head_dim(fixture.config)] * fixture.config.num_attention_heads
        mixer, mlp = layer.self_attn if is_attention else layer.conv, getattr(layer, fixture.mlp)
        multiply_input(getattr(mixer, fixture.attention_output), row["heads"], heads)
        multiply_input(getattr(mlp, fixture.mlp_output), row["groups"], group_sizes(fixture))
        if not row["heads"] and is_attention:
            hooks.append(mixer.register_forward_hook(lambda _module, _input, output: (torch.zeros_like(output[0]), output[1])))
        if not row["heads"] and not is_attention:
            hooks.append(mixer.register_forward_hook(lambda _module, _input, output: torch.zeros_like(output)))
        if not row["groups"]:
            hooks.append(mlp.register_forward_hook(lambda _module, _input, output: torch.zeros_like(output)))
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


def greedy(model: torch.nn.Module, prompt: list[int], count: int) -> tuple[list[int], float]:
    """The most likely tokens, each from a pass over everything before it, and the smallest lead that one of them had."""
    answer, gap = [], float("inf")
    for _ in range(count):
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
        tokens = generator.integers(SPECIAL_TOKENS, fixture.config.vocab_size, length).tolist()
        logits = last_logits(model, tokens)
        answer, gap = greedy(model, tokens, fixture.greedy_tokens)
        prompts.append({"tokens": tokens, "logits": rounded(logits), "greedy": answer, "gap": float(f"{gap:.3g}")})
        if gap < fixture.minimum_gap or len(set(answer)) < MINIMUM_DISTINCT or min(answer) < SPECIAL_TOKENS:
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
    if len(line) < 100 or isinstance(value, str) or isinstance(value, list) and all(isinstance(item, (int, float)) for item in value):
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        return "{\n" + ",\n".join(f"{inner}{json.dumps(key)}: {to_json(item, inner)}" for key, item in value.items()) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + to_json(item, inner) for item in value) + f"\n{indent}]"


# MARK: Conversations


def save_conversations(fixture: Fixture, model: torch.nn.Module, folder: Path) -> None:
    """The tokenizer's files, and what the saved folder answers to a few questions."""
    tokenizer(fixture.config, fixture.chat_template).save_pretrained(folder)
    loaded = AutoTokenizer.from_pretrained(folder)
    answers = []
    for question in fixture.conversations:
        tokens = loaded.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True, tokenize=True, return_dict=False)
        answer, gap = greedy(model, tokens, 64)
        if gap < fixture.minimum_gap or fixture.config.eos_token_id in answer:
            raise SystemExit(f"{fixture.name}: choose another seed: {question}: smallest lead {gap:.2g}, {answer}")
        answers.append({"question": question, "tokens": tokens, "greedy": answer, "text": loaded.decode(answer, skip_special_tokens=True)})
    (folder / "conversations.json").write_text(to_json(answers) + "\n")


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

    if fixture.conversations:
        save_conversations(fixture, model, folder)
    if not fixture.has_gguf:
        return
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
    parser.add_argument("--only", nargs="*", help="the fixtures to record; all")
    arguments = parser.parse_args()
    output = arguments.output
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for fixture in FIXTURES:
        if not arguments.only or fixture.name in arguments.only:
            record(fixture, output)


if __name__ == "__main__":
    main()
