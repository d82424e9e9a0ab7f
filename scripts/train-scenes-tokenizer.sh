#!/usr/bin/env bash
# Makes Recipes/scenes/base/tokenizer.model: a SentencePiece BPE vocabulary with byte fallback, as LLaMA's, over the scenes' questions and answers
# and the conversation template. Needs Debian's sentencepiece; run only when the questions' words change, since models depend on it.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh sentencepiece python3-minimal
out=build/scenes/tokenizer
mkdir -p "$out"
[ -s "$out/data/texts.json" ] || .build/release/adallava data scenes --out "$out/data" --split texts --count 60000 --seed 3 --turns 5
python3 - "$out/data/texts.json" > "$out/texts.txt" <<'PYTHON'
import json, sys
system = ("A chat between a curious human and an artificial intelligence assistant. "
          "The assistant gives helpful, detailed, and polite answers to the human's questions.")
turns = []
for record in json.load(open(sys.argv[1])):
    values = [turn["value"].replace("<image>\n", "") for turn in record["conversations"]]
    turns += [f"USER: {question} ASSISTANT: {answer}" for question, answer in zip(values[::2], values[1::2])]
# The system prompt stands before every conversation; enough of it that its words become tokens.
for line in [system] * (len(turns) // 10) + turns: print(line.replace("\n", "\n"))
PYTHON
spm_train --input="$out/texts.txt" --model_prefix="$out/tokenizer" --model_type=bpe --vocab_size=1024 --character_coverage=1.0 \
  --byte_fallback=true --split_digits=true --normalization_rule_name=identity --remove_extra_whitespaces=false --add_dummy_prefix=true \
  --unk_id=0 --bos_id=1 --eos_id=2 --pad_id=-1 --num_threads=1 --input_sentence_size=0 > "$out/log" 2>&1 || { tail -5 "$out/log" >&2; exit 70; }
cp "$out/tokenizer.model" Recipes/scenes/base/tokenizer.model
wc -c Recipes/scenes/base/tokenizer.model >&2
