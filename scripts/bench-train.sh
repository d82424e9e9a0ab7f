#!/usr/bin/env bash
# Training speed of the default model's shape in samples per second (`make bench-train`): ours with one and two workers, float32 and bfloat16,
# interleaved with a plain PyTorch loop of the same shape where PyTorch is installed (PYTHON names the interpreter that has it). The frozen
# tower's features are computed beforehand, as they are in every pass over the data but the first; that pass is timed too.
#   REPEATS=3 STEPS=12 make bench-train
set -euo pipefail
cd "$(dirname "$0")/.."
adallava=.build/release/adallava
python=${PYTHON:-python3}
repeats=${REPEATS:-3} steps=${STEPS:-12} batch=48
out=build/bench-train
mkdir -p "$out"
[ -s "$out/data/train.json" ] || "$adallava" data scenes --out "$out/data" --count 2400 --seed 1
scripts/scenes-tower.sh
cores=$(nproc)
# Without instructions for it bfloat16 is emulated, many times slower than float32, here as in PyTorch: then it is not measured.
types=(false)
grep -q bf16 /proc/cpuinfo && types+=(true)
best=${types[-1]}
has_torch=0
"$python" -c 'import torch' 2> /dev/null && has_torch=1

median() { sort -n | awk '{ v[NR] = $1 } END { if (NR) printf "%.1f", NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
ours() { # WORKERS BF16 [STEPS]
  rm -rf "$out/run"
  "$adallava" train Recipes/scenes/2-language.yaml --set model_name_or_path=Recipes/scenes/base --set from_scratch=true --set num_hidden_layers=8 \
    --set data_path="$out/data/train.json" --set features_dir="$out/features" --set output_dir="$out/run" --set max_steps="${3:-$steps}" \
    --set per_device_train_batch_size="$batch" --set dataloader_num_workers="$1" --set floor_share=0 --set group_by_modality_length=false --set cpu_workers="$1" --set bf16="$2" --set device=cpu --set save_steps=100000 --set logging_steps=1 \
    2> "$out/log" || { cat "$out/log" >&2; exit 1; }
  # The first steps also wait for the first pictures.
  tail -n +3 "$out/run/training_log.jsonl" | sed 's/.*"samples_per_second":\([0-9.]*\).*/\1/' | median
}
peer() { # THREADS FLAGS
  local flags=${2:-}
  # shellcheck disable=SC2086
  "$python" Benchmarks/peers/train_step.py Recipes/scenes/base --layers 8 --batch "$batch" --steps "$steps" --length 103 --threads "$1" $flags
}
run() { # NAME COMMAND…
  local name=$1; shift
  local value; value=$("$@")
  printf '%s\t%s\n' "$name" "$value" >> "$out/results.tsv"
  printf '  %-44s %s samples/s\n' "$name" "$value" >&2
}
: > "$out/results.tsv"
# One pass over the 2,400 pictures.
rm -rf "$out/features"
run "ours, $cores workers, bf16 $best, with the tower" ours "$cores" "$best" $((2400 / batch))
for repeat in $(seq "$repeats"); do
  echo "repeat $repeat of $repeats, load $(cut -d' ' -f1 /proc/loadavg)" >&2
  for workers in 1 "$cores"; do
    for bf16 in "${types[@]}"; do run "ours, $workers workers, bf16 $bf16" ours "$workers" "$bf16"; done
    if [ "$has_torch" = 1 ]; then
      run "PyTorch, $workers threads, float32" peer "$workers"
      [ "$best" = false ] || run "PyTorch, $workers threads, bfloat16" peer "$workers" --bf16
    fi
    [ "$cores" = 1 ] && break
  done
done
echo
echo "Training speed, default model's shape, batch $batch, median of $repeats repeats of $steps steps ($cores cores, $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2 | xargs))"
printf '| %-44s | samples/s |\n|%s|-----------|\n' "" "----------------------------------------------"
cut -f1 "$out/results.tsv" | awk '!seen[$0]++' | while IFS= read -r name; do
  printf '| %-44s | %9s |\n' "$name" "$(awk -F'\t' -v n="$name" '$1 == n { print $2 }' "$out/results.tsv" | median)"
done
[ "$best" = true ] || echo "This processor has no bfloat16 instructions: not measured."
[ "$has_torch" = 1 ] || echo "PyTorch is not installed for $python: not compared."
