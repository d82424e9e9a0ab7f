#!/bin/sh
# Records llama.cpp's greedy tokens for the prompts in Tests/Fixtures/smollm2/prompts.jsonl.
#
#     record-smollm2.sh PEER MODELS [OUTPUT]
#
# PEER: where build-llama.sh built llama.cpp. MODELS: where fetch-smollm2.sh put the Q4_1 file; its Q8_0 and F16 conversions are made
# beside it. OUTPUT: where q8_0.json, f16.json and q4_1.json go (by default the fixtures' folder).
set -eu

if [ $# -lt 2 ] || [ $# -gt 3 ]; then
    echo "usage: record-smollm2.sh PEER MODELS [OUTPUT]" >&2
    exit 64
fi
here=$(cd "$(dirname "$0")" && pwd)
fixtures=$(cd "$here/../../Tests/Fixtures/smollm2" && pwd)
peer=$1 models=$2 output=${3:-$fixtures}
threads=1  # the numbers do not depend on it; one thread does not wait for others on a busy machine
stem=$models/SmolLM2-135M-Instruct
mkdir -p "$output"

for type in Q8_0 F16; do
    [ -f "$stem.$type.gguf" ] && continue
    echo "converting to $type ..." >&2
    "$peer/bin/llama-quantize" --allow-requantize "$stem.Q4_1.gguf" "$stem.$type.gguf" "$type" "$threads" >"$models/quantize.$type.log" 2>&1 || {
        tail -n 5 "$models/quantize.$type.log" >&2
        exit 70
    }
done
for type in Q8_0 F16 Q4_1; do
    echo "running $type ..." >&2
    checksum=$(sha256sum "$stem.$type.gguf" | cut -d ' ' -f 1)
    name=$(echo "$type" | tr '[:upper:]' '[:lower:]')
    "$peer/bin/greedy_tokens" "$stem.$type.gguf" "$fixtures/prompts.jsonl" 64 "$threads" \
        "sha256=$checksum" "source=llama-cpp-python 0.3.36" >"$output/$name.json"
done
