#!/bin/sh
# Records llama.cpp's greedy tokens of Gemma 3 270M for the prompts in Tests/Fixtures/gemma3/prompts.jsonl.
#
#     record-gemma3.sh PEER MODEL [OUTPUT]
#
# PEER: where build-llama.sh built llama.cpp. MODEL: what scripts/fetch-gemma3.sh prints. OUTPUT: the fixtures' folder if not given.
set -eu

if [ $# -lt 2 ] || [ $# -gt 3 ]; then
    echo "usage: record-gemma3.sh PEER MODEL [OUTPUT]" >&2
    exit 64
fi
here=$(cd "$(dirname "$0")" && pwd)
fixtures=$(cd "$here/../../Tests/Fixtures/gemma3" && pwd)
peer=$1 model=$2 output=${3:-$fixtures}
checksum=$(sha256sum "$model" | cut -d ' ' -f 1)
"$peer/bin/greedy_tokens" "$model" "$fixtures/prompts.jsonl" 32 1 "sha256=$checksum" "source=llama-cpp-python 0.3.36" >"$output/q4_k_m.json"
