#!/usr/bin/env bash
# Shows on 200 pictures what budgets change, then asks a small language model a question. Run by `make demo`.
set -euo pipefail
cd "$(dirname "$0")/.."
adallava=.build/release/adallava
out=build/demo
mkdir -p "$out"

scripts/demo-scenes.py "$adallava" "$out"

echo
echo "== A text model from a GGUF file: SmolLM2-135M-Instruct =="
show() { printf '\n$ adallava %s\n' "$*"; }
model=$(scripts/fetch-smollm2.sh)
show ask "\"Give me three tips for a good night's sleep.\"" --model "$(basename "$model")"
"$adallava" ask "Give me three tips for a good night's sleep." --model "$model" --max-tokens 100
