#!/usr/bin/env python3
"""Records what Hugging Face transformers answers with tiny vision-language models.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.24.0 pillow==13.0.0 num2words numpy==2.4.6
    venv/bin/python record_vision.py --output Tests/Fixtures/vision [FAMILY ...]

Writes one folder for each model: a random float32 checkpoint as `save_pretrained` of model and processor writes it, and expected.json with
prompts, hashes of pixel values, logits and greedy answers. Tests/Fixtures/README.md says what is in them.

Image processors that compute with Pillow are the ones to match, and are taken where transformers has one; without torchvision it saves their names. LFM2-VL
has one on torchvision only (torchvision==0.29.2), whose arithmetic on bytes needs AVX2. Where a seed gives an answer that float rounding could turn around,
or one that ends early or repeats itself, the next seed is tried.
"""

import argparse
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "Tests/Fixtures/images"
WEIGHT_STD = 0.3
GREEDY_TOKENS = 64
MINIMUM_GAP = 2e-3
MINIMUM_DISTINCT = 12
COMMON = dict(attn_implementation="eager", dtype="float32")
TEXT = dict(
    hidden_size=48, num_hidden_layers=5, num_attention_heads=6, num_key_value_heads=2, intermediate_size=64, max_position_embeddings=2048,
    rms_norm_eps=1e-3, rope_parameters={"rope_type": "default", "rope_theta": 100000.0}, initializer_range=WEIGHT_STD,
)  # fmt: skip
# (pictures, what is asked): one picture of each shape, two in one prompt, none.
ASKED = [
    (["im0.png"], "What is on the left?"),
    (["im1.png"], "How many are there?\n\nTwo?"),
    (["im2.png"], "Which colour has it?"),
    (["im3.png", "im2.png"], "What differs?"),
    ([], "Name three rivers."),
]  # fmt: skip


def tokenizer(special: list[str], bos: str | None, eos: str, pad: str, adds_bos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on this file."""
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=[], show_progress=False)
    source = re.sub(r"[^\x00-\x7f]", "", "\n\n".join(text for _, text in ASKED) * 4 + "\n\n".join(__doc__.split(". ")))
    model.train_from_iterator([source], trainer)
    model.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    if adds_bos:
        model.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, model.token_to_id(bos))])
    return PreTrainedTokenizerFast(tokenizer_object=model, bos_token=bos, eos_token=eos, pad_token=pad, clean_up_tokenization_spaces=False)


def fill(model: torch.nn.Module, seed: int) -> None:
    """Draws every parameter anew, norms and biases too."""
    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            shape = tuple(parameter.shape)
            if re.search(r"norm\d?\.weight|layrnorm\.weight", name):
                values = generator.uniform(0.5, 1.5, shape)
            else:
                values = generator.standard_normal(shape) * WEIGHT_STD
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f4").tobytes()).hexdigest()


def rounded(values: torch.Tensor) -> list[float]:
    return [float(f"{value:.8g}") for value in values.tolist()]


def messages(pictures: list[str], text: str) -> list[dict]:
    return [{"role": "user", "content": [{"type": "image"} for _ in pictures] + [{"type": "text", "text": text}]}]


def greedy(model, inputs) -> tuple[list[int], torch.Tensor, float]:
    """The answer, the logits of its tokens, and the smallest lead of a token over the second."""
    out = model.generate(
        **inputs, do_sample=False, max_new_tokens=GREEDY_TOKENS, return_dict_in_generate=True, output_logits=True, eos_token_id=None,
        pad_token_id=0)  # fmt: skip
    logits = torch.cat(out.logits)
    best = logits.topk(2).values
    return out.sequences[0, inputs["input_ids"].shape[1] :].tolist(), logits, float((best[:, 0] - best[:, 1]).min())


def record(family: str, model, processor, folder: Path, ends: set[int]) -> bool:
    """One folder; false where the seed is no good."""
    cases = []
    for pictures, text in ASKED:
        images = [Image.open(PICTURES / name).convert("RGB") for name in pictures]
        prompt = processor.apply_chat_template(messages(pictures, text), add_generation_prompt=True, tokenize=False)
        # As apply_chat_template(tokenize=True) decides it.
        bos = processor.tokenizer.bos_token
        adds = not (bos and prompt.startswith(bos))
        inputs = processor(text=prompt, images=images or None, return_tensors="pt", add_special_tokens=adds)
        if not family.startswith("qwen"):
            inputs.pop("mm_token_type_ids", None)
        inputs.pop("token_type_ids", None) if family != "gemma3" else None
        with torch.no_grad():
            tokens, logits, gap = greedy(model, inputs)
        if gap < MINIMUM_GAP or len(set(tokens)) < MINIMUM_DISTINCT or ends & set(tokens):
            print(f"{family}: gap {gap:.4f}, {len(set(tokens))} distinct: next seed")
            return False
        case = {
            "pictures": pictures, "question": text, "prompt": prompt, "input_ids": inputs["input_ids"][0].tolist(), "greedy": tokens, "gap": gap,
            "logits": rounded(logits[0]), "last_logits": rounded(logits[-1]),
        }  # fmt: skip
        if images:
            values = inputs["pixel_values"].numpy()
            if family.startswith("qwen"):
                # Rows of patches, image by image.
                values = np.split(values, np.cumsum(inputs["image_grid_thw"].prod(-1).numpy())[:-1])
            elif family.startswith("lfm2"):
                # Rows of patches, filled up to the longest tile.
                values = [tile[: rows * columns] for tile, (rows, columns) in zip(values, inputs["spatial_shapes"].tolist())]
            else:
                values = values.reshape(-1, *values.shape[-3:])
                # Batches fill up with tiles of zeros.
                values = np.stack([tile for tile in values if tile.any()])
            case |= {"tiles": len(values), "tile_hashes": [digest(tile) for tile in values]}
            with torch.no_grad():
                features = model.get_image_features(
                    **{name: inputs[name] for name in ("pixel_values", "pixel_attention_mask", "spatial_shapes", "image_sizes", "image_grid_thw") if name in inputs})
            features = getattr(features, "pooler_output", features)
            features = torch.cat([part.reshape(-1, part.shape[-1]) for part in features])
            case |= {"feature_rows": features.shape[0], "feature_row": rounded(features[-1])}
        cases.append(case)
    if folder.exists():
        shutil.rmtree(folder)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    write_expected(folder, cases)
    return True


def write_expected(folder: Path, cases: list[dict]) -> None:
    text = json.dumps({"transformers": transformers.__version__, "cases": cases}, indent=1)
    (folder / "expected.json").write_text(re.sub(r"\s*\n\s+(?=[-\d\]])", "", text) + "\n")


# MARK: Idefics3 and SmolVLM

IDEFICS_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}{% if message['content'][0]['type'] == 'image' %}{{':'}}"
    "{% else %}{{': '}}{% endif %}{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def idefics(family: str, folder: Path) -> None:
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor, SmolVLMConfig, SmolVLMForConditionalGeneration
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    # Rows and columns beyond the third have no token of their own in one of them, and are spelled.
    known = 3 if family == "idefics3" else 4
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<global-img>"]
    special += [f"<row_{row + 1}_col_{column + 1}>" for row in range(known) for column in range(known)]
    special += ["<fake_token_around_image>", "<image>", "<end_of_utterance>"]
    text = tokenizer(special, "<|im_start|>", "<end_of_utterance>", "<|im_end|>")
    if family == "idefics3":
        # 6 x 6 patches: 1/6 is no binary fraction, so positions show how they are computed.
        (side, patch, scale, longest), splits = (42, 7, 3, 168), True
        classes, image_class = (Idefics3Config, Idefics3ForConditionalGeneration), Idefics3ImageProcessorPil
    else:
        (side, patch, scale, longest), splits = (32, 8, 2, 96), True
        classes, image_class = (SmolVLMConfig, SmolVLMForConditionalGeneration), SmolVLMImageProcessorPil
    image = image_class(
        do_image_splitting=splits, max_image_size={"longest_edge": side}, size={"longest_edge": longest}, resample=1, image_mean=[0.5] * 3,
        image_std=[0.5] * 3)  # fmt: skip
    # SmolVLMProcessor asks for a processor of videos, which needs torchvision; for images both write the same prompt.
    processor = Idefics3Processor(image, text, image_seq_len=(side // patch // scale) ** 2, chat_template=IDEFICS_TEMPLATE)
    ids = {name: text.convert_tokens_to_ids(name) for name in ["<image>", "<|im_start|>", "<end_of_utterance>", "<|im_end|>"]}
    config = classes[0](
        image_token_id=ids["<image>"], scale_factor=scale, tie_word_embeddings=family == "smolvlm", **COMMON,
        text_config=dict(
            model_type="llama", vocab_size=len(text), bos_token_id=ids["<|im_start|>"], eos_token_id=ids["<end_of_utterance>"],
            pad_token_id=ids["<|im_end|>"], **TEXT, tie_word_embeddings=family == "smolvlm"),
        vision_config=dict(
            hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, image_size=side, patch_size=patch,
            layer_norm_eps=1e-3),
    )  # fmt: skip
    for seed in range(1, 100):
        model = classes[1]._from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
        fill(model, seed)
        model.generation_config.eos_token_id = ids["<end_of_utterance>"]
        # Tokens that end an answer by their names, whatever generation_config.json says.
        if record(family, model, processor, folder, {ids["<end_of_utterance>"], ids["<|im_end|>"], text.convert_tokens_to_ids("<|endoftext|>")}):
            break
    if family == "smolvlm":
        as_published(folder, "SmolVLMProcessor", "SmolVLMImageProcessor")


def as_published(folder: Path, processor_class: str, image_class: str) -> None:
    """The files as transformers 4 saves them, and as most published folders have them."""
    saved = json.loads((folder / "processor_config.json").read_text())
    image = saved.pop("image_processor") | {"image_processor_type": image_class, "processor_class": processor_class}
    (folder / "preprocessor_config.json").write_text(json.dumps(image, indent=2) + "\n")
    saved.pop("tokenizer", None)
    (folder / "processor_config.json").write_text(json.dumps(saved | {"processor_class": processor_class}, indent=2) + "\n")
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}) + "\n")
    config = json.loads((folder / "config.json").read_text())
    for part in (config, config["text_config"], config["vision_config"]):
        if "dtype" in part:
            part["torch_dtype"] = part.pop("dtype")
    rope = config["text_config"].pop("rope_parameters")
    config["text_config"] |= {"rope_theta": rope["rope_theta"], "rope_scaling": None, "pixel_shuffle_factor": config["scale_factor"], "use_resampler": False}
    # What SmolVLM's published files leave out are transformers' defaults; so is this.
    del config["vision_config"]["hidden_act"]
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


# MARK: LLaVA-1.5 and LLaVA-1.6

VICUNA_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{# Render all text next #}{% if message['role'] != 'assistant' %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' '}}{% endfor %}{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
MISTRAL_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] }}{% endfor %}{{' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' }}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] }}{% endgeneration %}{% endfor %}{{ '</s> ' }}{% endif %}{% endfor %}"
)
CLIP = dict(
    model_type="clip_vision_model", hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4, image_size=28, patch_size=7,
    projection_dim=32, layer_norm_eps=1e-3,
)  # fmt: skip


def llava(family: str, folder: Path) -> None:
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaNextConfig, LlavaNextForConditionalGeneration
    from transformers import LlavaNextProcessor, LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    is_next, is_mistral = family.startswith("llava-next"), family.endswith("mistral")
    # This vocabulary has a beginning of sequence that templates do not write.
    text = tokenizer(["<unk>", "<s>", "</s>", "<image>", "<pad>"], "<s>", "</s>", "<pad>", adds_bos=True)
    sizes = dict(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    grid = {"image_grid_pinpoints": [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]} if is_next else {}
    image = (LlavaNextImageProcessorPil if is_next else CLIPImageProcessorPil)(**sizes, **grid)
    processor = (LlavaNextProcessor if is_next else LlavaProcessor)(
        image, text, patch_size=7, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=MISTRAL_TEMPLATE if is_mistral else VICUNA_TEMPLATE)  # fmt: skip
    ids = {name: text.convert_tokens_to_ids(name) for name in ["<image>", "<s>", "</s>", "<pad>"]}
    family_text = dict(model_type="mistral", sliding_window=64, head_dim=8) if is_mistral else dict(model_type="llama")
    config = (LlavaNextConfig if is_next else LlavaConfig)(
        image_token_index=ids["<image>"], tie_word_embeddings=False, **COMMON, **grid, vision_config=CLIP, vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        text_config=dict(
            vocab_size=len(text), bos_token_id=ids["<s>"], eos_token_id=ids["</s>"], pad_token_id=ids["<pad>"], tie_word_embeddings=False, **TEXT,
            **family_text),
    )  # fmt: skip
    for seed in range(1, 100):
        kind = LlavaNextForConditionalGeneration if is_next else LlavaForConditionalGeneration
        model = kind._from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
        fill(model, seed)
        model.generation_config.eos_token_id = ids["</s>"]
        if record(family, model, processor, folder, {ids["</s>"]}):
            break


# MARK: Qwen2-VL and Qwen2.5-VL

QWEN_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def qwen(family: str, folder: Path) -> None:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    # A processor of videos needs torchvision; for images nothing of it is used.
    class Processor(Qwen2VLProcessor):
        attributes = ["image_processor", "tokenizer"]

        def __init__(self, image_processor, tokenizer, chat_template=None):
            super().__init__(image_processor, tokenizer, None, chat_template=chat_template)

        def check_argument_for_proper_class(self, name, argument):
            return None if argument is None else super().check_argument_for_proper_class(name, argument)

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
    text = tokenizer(special, None, "<|im_end|>", "<|endoftext|>")
    ids = {name: text.convert_tokens_to_ids(name) for name in special}
    image = Qwen2VLImageProcessorPil(size={"shortest_edge": 4 * 28 * 28, "longest_edge": 14 * 28 * 28})
    processor = Processor(image, text, chat_template=QWEN_TEMPLATE)
    tower = dict(depth=3, num_heads=4, patch_size=14, spatial_merge_size=2, temporal_patch_size=2)
    if family == "qwen2-vl":
        classes = (Qwen2VLConfig, Qwen2VLForConditionalGeneration)
        tower |= dict(embed_dim=32, hidden_size=48, mlp_ratio=2)
    else:
        classes = (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration)
        # Windows of 2 x 2 merged patches in all layers but one.
        tower |= dict(hidden_size=32, out_hidden_size=48, intermediate_size=44, window_size=56, fullatt_block_indexes=[1])
    rope = {"rope_type": "default", "rope_theta": 100000.0, "mrope_section": [2, 1, 1]}
    config = classes[0](
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"], vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"], tie_word_embeddings=family == "qwen2-vl", **COMMON, vision_config=tower,
        text_config=TEXT | dict(
            vocab_size=len(text), bos_token_id=ids["<|endoftext|>"], eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"],
            rope_parameters=rope, tie_word_embeddings=family == "qwen2-vl"),
    )  # fmt: skip
    for seed in range(1, 100):
        model = classes[1]._from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
        fill(model, seed)
        model.generation_config.eos_token_id = ids["<|im_end|>"]
        if record(family, model, processor, folder, {ids["<|im_end|>"], ids["<|endoftext|>"]}):
            break
    if family == "qwen2-vl":
        qwen_as_published(folder)


def qwen_as_published(folder: Path) -> None:
    """The files as transformers 4 saves them: the text model's fields beside vision_config."""
    image = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    size = image.pop("size")
    image |= {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"], "processor_class": "Qwen2VLProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(image, indent=2) + "\n")
    (folder / "processor_config.json").unlink()
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}) + "\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "qwen2_vl", **{name: value for name, value in config.pop("text_config").items() if name not in ("model_type", "layer_types")}}
    rope = config.pop("rope_parameters")
    config |= {"rope_theta": rope["rope_theta"], "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]}, "torch_dtype": config.pop("dtype")}
    vision = config["vision_config"]
    config["vision_config"] = {name: vision[name] for name in ("depth", "embed_dim", "hidden_size", "mlp_ratio", "num_heads", "patch_size", "spatial_merge_size")}
    config["vision_config"] |= {"in_chans": 3, "spatial_patch_size": 14, "temporal_patch_size": 2, "model_type": "qwen2_vl"}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


# MARK: LFM2-VL

LFM2_TEMPLATE = (
    "{{- bos_token -}}{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' %}{{ '<image>' }}{% elif content['type'] == 'text' %}"
    "{{ content['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def lfm2(family: str, folder: Path) -> None:
    from transformers import Lfm2VlConfig, Lfm2VlForConditionalGeneration, Lfm2VlProcessor
    from transformers.models.lfm2_vl.image_processing_lfm2_vl import Lfm2VlImageProcessor

    splits = family == "lfm2-vl"
    # Columns beyond the second have no token of their own, and are spelled.
    special = ["<|pad|>", "<|startoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<|image_start|>", "<|image_end|>"]
    special += [f"<|img_row_{row + 1}_col_{column + 1}|>" for row in range(2) for column in range(2)] + ["<|img_thumbnail|>"]
    text = tokenizer(special, "<|startoftext|>", "<|im_end|>", "<|pad|>")
    ids = {name: text.convert_tokens_to_ids(name) for name in special}
    if splits:
        # The square picture stays one; the others are cut into 6 and 2 tiles.
        sizes = dict(
            downsample_factor=2, tile_size=24, min_tiles=2, max_tiles=6, min_image_tokens=4, max_image_tokens=12, max_pixels_tolerance=4.5, resample=2)
    else:
        # Never cut; two pictures are made larger.
        sizes = dict(downsample_factor=3, do_image_splitting=False, min_image_tokens=36, max_image_tokens=60, resample=3)
    image = Lfm2VlImageProcessor(encoder_patch_size=4, **sizes)
    processor = Lfm2VlProcessor(image, text, chat_template=LFM2_TEMPLATE)
    rope = {"rope_type": "default", "rope_theta": 1000000.0}
    config = Lfm2VlConfig(
        image_token_id=ids["<image>"], tie_word_embeddings=splits, **COMMON, downsample_factor=sizes["downsample_factor"], projector_hidden_size=40,
        projector_use_layernorm=splits, projector_bias=splits,
        text_config=dict(
            model_type="lfm2", vocab_size=len(text), bos_token_id=ids["<|startoftext|>"], eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|pad|>"],
            hidden_size=48, num_hidden_layers=5, num_attention_heads=6, num_key_value_heads=2, intermediate_size=100, block_multiple_of=16, norm_eps=1e-3,
            max_position_embeddings=2048, rope_parameters=rope, conv_L_cache=3, conv_bias=False, tie_word_embeddings=splits,
            layer_types=["full_attention" if layer in (1, 4) else "conv" for layer in range(5)]),
        vision_config=dict(
            model_type="siglip2_vision_model", hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, patch_size=4,
            num_patches=25 if splits else 36, layer_norm_eps=1e-3, vision_use_head=False),
    )  # fmt: skip
    for seed in range(1, 100):
        model = Lfm2VlForConditionalGeneration._from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
        fill(model, seed)
        model.generation_config.eos_token_id = ids["<|im_end|>"]
        if record(family, model, processor, folder, {ids["<|im_end|>"], ids["<|endoftext|>"]}):
            break
    if not splits:
        lfm2_as_published(folder)


def lfm2_as_published(folder: Path) -> None:
    """The files as transformers 4 saves them, with the names of fields that the first published checkpoints have."""
    saved = json.loads((folder / "processor_config.json").read_text())
    image = saved.pop("image_processor") | {"image_processor_type": "Lfm2VlImageProcessorFast", "processor_class": "Lfm2VlProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(image, indent=2) + "\n")
    saved.pop("tokenizer", None)
    (folder / "processor_config.json").write_text(json.dumps(saved | {"processor_class": "Lfm2VlProcessor"}, indent=2) + "\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "lfm2-vl", "torch_dtype": config.pop("dtype"), "tie_embedding": config.pop("tie_word_embeddings"), "vision_feature_layer": -1}
    text = config["text_config"]
    text |= {"torch_dtype": text.pop("dtype", "float32"), "rope_theta": text.pop("rope_parameters")["rope_theta"]}
    config["vision_config"].pop("dtype", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


# MARK: Mipha


def mipha(family: str, folder: Path) -> None:
    """Mipha's own layout, whose classes are not in transformers: SigLIP's tower, two linear layers and Phi-2, put together here.

    Prompts are LLaVA's: -200 where an image goes, and pictures are squared with their mean colour first.
    """
    from transformers import PhiConfig, PhiForCausalLM, SiglipVisionConfig, SiglipVisionModel
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    text = tokenizer(["<|endoftext|>"], "<|endoftext|>", "<|endoftext|>", "<|endoftext|>")
    end = text.eos_token_id
    tower_config = SiglipVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4, image_size=35, patch_size=7, layer_norm_eps=1e-3)
    phi = {name: value for name, value in TEXT.items() if name not in ("rms_norm_eps", "num_key_value_heads")}
    config = PhiConfig(
        vocab_size=len(text), bos_token_id=end, eos_token_id=end, layer_norm_eps=1e-3, hidden_act="gelu_new", tie_word_embeddings=False,
        **COMMON, **phi | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}},
    )  # fmt: skip
    image_processor = SiglipImageProcessorPil(size={"height": 35, "width": 35}, resample=3)

    def squared(picture: Image.Image) -> Image.Image:
        side = max(picture.size)
        square = Image.new("RGB", (side, side), tuple(int(mean * 255) for mean in image_processor.image_mean))
        square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        return square

    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.tower = SiglipVisionModel._from_config(tower_config, attn_implementation="eager")
            self.projector = torch.nn.Sequential(torch.nn.Linear(32, 48), torch.nn.GELU(), torch.nn.Linear(48, 48))
            self.phi = PhiForCausalLM._from_config(config, attn_implementation="eager")

        def features(self, pixels):
            return self.projector(self.tower(pixels, output_hidden_states=True).hidden_states[-2])

        def tensors(self) -> dict:
            state = {name: value for name, value in self.phi.state_dict().items()}
            state |= {f"model.vision_tower.vision_model.{name}": value for name, value in self.tower.state_dict().items() if not name.startswith("head.")}
            state |= {f"model.mm_projector.{name}": value for name, value in self.projector.state_dict().items()}
            return {name: value.contiguous() for name, value in state.items()}

    for seed in range(1, 100):
        model = Whole().eval()
        fill(model, seed)
        cases = []
        with torch.no_grad():
            for pictures, question in ASKED:
                prompt = f"USER: {'<image>' * len(pictures)}{question} ASSISTANT:"
                parts = prompt.split("<image>")
                ids, embeddings, images = [], [], []
                for index, part in enumerate(parts):
                    if index > 0:
                        picture = Image.open(PICTURES / pictures[index - 1]).convert("RGB")
                        images.append(image_processor(squared(picture), return_tensors="pt")["pixel_values"])
                        embeddings.append(model.features(images[-1])[0])
                        ids.append(-200)
                    part_ids = text(part)["input_ids"]
                    ids += part_ids
                    embeddings.append(model.phi.get_input_embeddings()(torch.tensor(part_ids, dtype=torch.long)))
                out = model.phi.generate(
                    inputs_embeds=torch.cat(embeddings)[None], do_sample=False, max_new_tokens=GREEDY_TOKENS, return_dict_in_generate=True,
                    output_logits=True, eos_token_id=None, pad_token_id=0)  # fmt: skip
                logits = torch.cat(out.logits)
                best = logits.topk(2).values
                case = {
                    "pictures": pictures, "question": question, "prompt": prompt, "input_ids": ids, "greedy": out.sequences[0].tolist(),
                    "gap": float((best[:, 0] - best[:, 1]).min()), "logits": rounded(logits[0]), "last_logits": rounded(logits[-1]),
                }  # fmt: skip
                if images:
                    case |= {
                        "tiles": len(images), "tile_hashes": [digest(image.numpy()) for image in images],
                        "feature_rows": sum(len(part) for part in embeddings[1::2]), "feature_row": rounded(embeddings[-2][-1]),
                    }  # fmt: skip
                cases.append(case)
        if all(c["gap"] >= MINIMUM_GAP and len(set(c["greedy"])) >= MINIMUM_DISTINCT and end not in c["greedy"] for c in cases):
            break
        print(f"{family}: next seed")
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    save_file(model.tensors(), folder / "model.safetensors", metadata={"format": "pt"})
    text.save_pretrained(folder)
    image_processor.save_pretrained(folder)
    fields = config.to_dict() | {
        "architectures": ["MiphaPhiForCausalLM"], "model_type": "mipha_phi", "torch_dtype": "float32", "image_aspect_ratio": "pad",
        "vision_config": {
            "vision_tower": tower_config.to_dict() | {
                "model_type": "siglip_vision_model", "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2,
                "vision_model_name_or_path": "google/siglip-so400m-patch14-384"},
            "mm_projector": {"mm_projector_type": "mlp2x_gelu", "mm_hidden_size": 32, "hidden_size": 48, "model_type": "mipha_projector"},
        },
    }  # fmt: skip
    fields = {name: value for name, value in fields.items() if value is not None and name not in ("dtype", "_attn_implementation")}
    (folder / "config.json").write_text(json.dumps(fields, indent=2, default=str) + "\n")
    write_expected(folder, cases)


FAMILIES = {"idefics3": idefics, "smolvlm": idefics, "llava": llava, "llava-next": llava, "llava-next-mistral": llava, "mipha": mipha,
            "qwen2-vl": qwen, "qwen2.5-vl": qwen, "lfm2-vl": lfm2, "lfm2-vl-whole": lfm2}


def record_filters(file: Path) -> None:
    """SHA-256 of what Pillow resizes pictures to, with each filter: wider and narrower, and where it takes columns before rows."""
    filters = {"lanczos": Image.Resampling.LANCZOS, "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    cases = []
    for name in ("im1.png", "im2.png", "im3.png"):
        picture = Image.open(PICTURES / name).convert("RGB")
        for width, height in ((31, 62), (28, 20), (200, 40), (44, 97), (130, 201), (picture.width, 33)):
            for filter_name, number in filters.items():
                pixels = picture.resize((width, height), number).tobytes()
                cases.append({"picture": name, "width": width, "height": height, "filter": filter_name, "sha256": hashlib.sha256(pixels).hexdigest()})
    file.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


def record_sizes(file: Path) -> None:
    """What Qwen2-VL's processor resizes pictures to, with three ranges of pixels: width, height, range, new width, new height."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    generator, cases = np.random.default_rng(7), []
    ranges = [(56 * 56, 28 * 28 * 1280), (4 * 28 * 28, 14 * 28 * 28), (256 * 28 * 28, 16384 * 28 * 28)]
    fixed = [(28, 28), (14, 14), (42, 70), (1, 150), (150, 1), (4000, 3000), (8192, 8192), (70, 42), (1680, 10)]
    for width, height in fixed + [tuple(int(side) for side in np.exp(generator.uniform(2, 8.5, 2))) for _ in range(120)]:
        if max(width, height) / min(width, height) > 200:
            continue
        for index, (least, most) in enumerate(ranges):
            rows, columns = smart_resize(height, width, 28, least, most)
            cases.append([width, height, index, columns, rows])
    file.write_text(json.dumps({"ranges": ranges, "cases": cases}) + "\n")


def record_lfm2(file: Path) -> None:
    """What LFM2-VL's processor makes of pictures. `cases`, for each of `settings` (fewest and most tokens, fewest and most tiles, a tile's and a patch's pixels,
    patches of a token's side, tolerance): width, height, setting, columns, rows, width and height of the whole. `resized`: SHA-256 of bytes that torchvision
    resizes."""
    from torchvision.transforms.v2 import functional, InterpolationMode
    from transformers.models.lfm2_vl.image_processing_lfm2_vl import Lfm2VlImageProcessor

    generator, cases = np.random.default_rng(7), []
    settings = [(64, 256, 2, 10, 512, 16, 2, 2.0), (4, 12, 2, 6, 24, 4, 2, 4.5), (32, 64, 1, 4, 128, 14, 1, 1.5)]
    fixed = [(32, 32), (16, 16), (24, 40), (1, 150), (150, 1), (4000, 3000), (8192, 8192), (512, 512), (1024, 512), (1680, 10), (45, 100), (720, 725)]
    for width, height in fixed + [tuple(int(side) for side in np.exp(generator.uniform(2, 8.5, 2))) for _ in range(120)]:
        for index, (least, most, few, many, side, patch, factor, tolerance) in enumerate(settings):
            processor = Lfm2VlImageProcessor()
            sizes = dict(max_image_tokens=most, encoder_patch_size=patch, downsample_factor=factor)
            whole = processor.smart_resize(height, width, min_image_tokens=least, **sizes)
            columns = rows = 1
            if processor._is_image_too_large(height, width, max_pixels_tolerance=tolerance, **sizes):
                columns, rows = processor._get_grid_layout(height, width, few, many, side)[:2]
            cases.append([width, height, index, columns, rows, *whole])
    resized = []
    for name in ("im1.png", "im2.png", "im3.png"):
        picture = torch.from_numpy(np.array(Image.open(PICTURES / name).convert("RGB"))).permute(2, 0, 1).contiguous()
        for width, height in ((31, 62), (28, 20), (200, 40), (44, 97), (130, 201), (picture.shape[2], 33), (8, 8)):
            for filter_name in ("bilinear", "bicubic"):
                pixels = functional.resize(picture, [height, width], interpolation=InterpolationMode(filter_name), antialias=True)
                pixels = pixels.permute(1, 2, 0).contiguous().numpy().tobytes()
                resized.append({"picture": name, "width": width, "height": height, "filter": filter_name, "sha256": hashlib.sha256(pixels).hexdigest()})
    lines = ",\n".join(json.dumps(case) for case in resized)
    file.write_text(f'{{"settings": {json.dumps(settings)}, "cases": {json.dumps(cases)}, "resized": [\n{lines}\n]}}\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("families", nargs="*", default=list(FAMILIES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    record_filters(arguments.output / "filters.json")
    record_sizes(arguments.output / "qwen2-vl-sizes.json")
    if any(family.startswith("lfm2") for family in arguments.families or FAMILIES):
        record_lfm2(arguments.output / "lfm2-vl-sizes.json")
    for family in arguments.families or FAMILIES:
        FAMILIES[family](family, arguments.output / family)
        print(family, sum(file.stat().st_size for file in (arguments.output / family).iterdir()), "bytes")


if __name__ == "__main__":
    main()
