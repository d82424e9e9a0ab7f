#!/usr/bin/env bash
# Makes a few pictures, asks about them at several budgets, then asks a small language model a question. Run by `make demo`.
set -euo pipefail
cd "$(dirname "$0")/.."
adallava=.build/release/adallava
out=build/demo
mkdir -p "$out"

echo "== Pictures made by the project's own scenes generator =="
"$adallava" data scenes --out "$out/scenes" --count 4 --seed 1000007 --split demo

show() { printf '\n$ adallava %s\n' "$*"; }
for n in 000000 000001 000002; do
  image=$out/scenes/images/demo-$n.jpg
  show ask "$image" "'Describe the image.'" --budget '1.0 | 0.75 | 0.5'
  for budget in 1.0 0.75 0.5; do
    printf '%-5s' "$budget"
    "$adallava" ask "$image" "Describe the image." --budget "$budget"
  done
done
show ask "$out/scenes/images/demo-000003.jpg" "'How many things are in the image?'" --budget 0.75 --json
"$adallava" ask "$out/scenes/images/demo-000003.jpg" "How many things are in the image?" --budget 0.75 --json

echo
echo "== A text model from a GGUF file: SmolLM2-135M-Instruct =="
model=$(scripts/fetch-smollm2.sh)
show ask "\"Give me three tips for a good night's sleep.\"" --model "$(basename "$model")"
"$adallava" ask "Give me three tips for a good night's sleep." --model "$model" --max-tokens 100
