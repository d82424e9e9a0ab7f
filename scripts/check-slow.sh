#!/usr/bin/env bash
# What takes too long for every change, run before an issue is called done (`make check-slow`): SmolLM2's and Gemma 3's tokens against llama.cpp's,
# EfficientNet-Lite's features against PyTorch's, the cost of half the switches, peak memory, the documents' slow commands, and kernels,
# concurrent answers and parsers under sanitizers. Fetches SmolLM2, Gemma 3 270M and EfficientNet-Lite and writes random models into build/models (about 4 GB).
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0
results=()
check() { # NAME COMMAND…
  local name=$1; shift
  printf '\n== %s\n' "$name" >&2
  if "$@" >&2; then results+=("pass  $name"); else results+=("FAIL  $name"); failed=1; fi
}
adallava=.build/release/adallava
bench=.build/release/adallava-bench
swift build -c release --product adallava-bench >&2 || exit 1

source=$(scripts/fetch-smollm2.sh) || exit 1
models=$(dirname "$source")
for type in q8_0 f16; do
  name=$models/SmolLM2-135M-Instruct.$(echo "$type" | tr a-z A-Z).gguf
  [ -s "$name" ] || "$adallava" convert "$source" "$name" --to "$type" || exit 1
done
# The tests are built with their own flags, so in a folder of their own the benchmark's build stays.
check "SmolLM2's greedy tokens are llama.cpp's" env ADALLAVA_SLOW_MODELS="$models" \
  swift test -c release -Xswiftc -enable-testing --filter SmolLM2Tests
scripts/fetch-gemma3.sh > /dev/null || exit 1
check "Gemma 3 270M's greedy tokens are llama.cpp's" swift test -c release -Xswiftc -enable-testing --filter Gemma3Tests
# The published vision towers' features are PyTorch's: the tests run wherever the towers lie in build/models.
for variant in lite0 lite1 lite2; do scripts/fetch-efficientnet.sh $variant > /dev/null || exit 1; done
check "EfficientNet-Lite's features are PyTorch's" swift test -c release -Xswiftc -enable-testing --filter EfficientNetWeightsTests
swift build -c release --product adallava-bench >&2 && swift build -c release --product adallava >&2

for variant in L H; do
  check "decode at half the switches, $variant, SmolLM2's shape: at most 0.62 of the full time" \
    "$bench" plan-cost --shape smollm2-135m --variant $variant --budgets 1.0 0.5 --limit 0.62
  check "decode at half the switches, $variant, 1B: at most 0.62 of the full time" \
    "$bench" plan-cost --shape 1b --variant $variant --budgets 1.0 0.5 --repeats 5 --tokens 16 --prompt 64 --limit 0.62
done
# With a short prefix, half the switches are heads and groups in every layer, not whole layers.
check "the same with heads and groups picked in nearly every layer, 1B" \
  "$bench" plan-cost --shape 1b --variant H --prefix-layers 2 --budgets 1.0 0.5 --repeats 5 --tokens 16 --prompt 64 --limit 0.62

# The sum takes reading and multiplying to overlap fully, and what is between products to cost nothing.
check "a step of 1 to 16 rows, L: at most 1.25 of the sum over layers of the longer of reading and multiplying" "$bench" step-cost --variant L --limit 1.25
check "the same, H" "$bench" step-cost --variant H --limit 1.5

for type in f32 f16 bf16 q8_0 q4_1; do
  check "peak memory, $type: at most 1.25 x weights + KV cache + 100 MB" "$bench" memory --shape smollm2-135m --type $type
done

check "ten minutes of mixed load, and kill -9 under load" Tests/Tools/soak.py --minutes 10

check "README's and docs' slow commands run and print what is written" scripts/check-docs.py --slow

for part in kernels arm answers parsers; do
  check "under sanitizers: $part" scripts/sanitize.sh $part
done

printf '\n%s\n' "${results[@]}"
exit $failed
