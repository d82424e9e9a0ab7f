"""Tokenizers and chat templates of the tiny models that record_decoders.py makes."""

import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

# Gemma's template without its parts for images, and LFM2's without its parts for tools.
GEMMA3_TEMPLATE = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = '' -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else '') }}
    {{- message['content'] | trim }}
    {{- '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model\n' }}
{%- endif -%}
"""
LFM2_TEMPLATE = """{{- bos_token -}}
{%- for message in messages -%}
    {{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' -}}
{%- endif -%}
"""

SENTENCES = [
    "What is on the left? What is on the right? Count the blue circles.", "A red square is above the green circle; the blue one is below.",
    "user model assistant system answer please count one two three", "The quick brown fox jumps over the lazy dog, 12 times, 345 times.",
]  # fmt: skip


def tokenizer(config: PreTrainedConfig, chat_template: str) -> PreTrainedTokenizerFast:
    """A tokenizer built as the family's is: Gemma's SentencePiece with bytes for unknown characters, LFM2's byte-level BPE."""
    is_gemma = config.model_type == "gemma3_text"
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"] if is_gemma else [
        "<|pad|>", "<|endoftext|>", "<|startoftext|>", "<|im_start|>", "<|im_end|>",
    ]  # fmt: skip
    if is_gemma:
        made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        made.normalizer = normalizers.Replace(" ", "\u2581")
        made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        made.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
        alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
    else:
        made = Tokenizer(models.BPE())
        split = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        made.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(split), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        ])  # fmt: skip
        made.decoder = decoders.ByteLevel()
        alphabet = []
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size, special_tokens=special + alphabet, show_progress=False,
        initial_alphabet=[] if is_gemma else pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train_from_iterator(SENTENCES, trainer)
    if is_gemma:
        # Bytes are pieces of the model and no special tokens.
        saved = json.loads(made.to_str())
        saved["added_tokens"] = [token for token in saved["added_tokens"] if token["content"] in special]
        made = Tokenizer.from_str(json.dumps(saved))
    made.post_processor = processors.TemplateProcessing(single=f"{special[2]} $A", special_tokens=[(special[2], 2)])
    ends = AddedToken(special[1], special=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=special[2], eos_token=ends, pad_token=special[0], unk_token="<unk>" if is_gemma else None,
        chat_template=chat_template,
    )  # fmt: skip
