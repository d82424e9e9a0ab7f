#!/usr/bin/env bash
# Trains the embedded default models: data, projector, language, random budgets (variants L and H), conversion, scores.
# Hours on two cores. Every step goes on where it was stopped; a step that is done is not done again. Run by `make train-scenes`.
#   SCENES=100000 scripts/train-scenes.sh      pictures to train on; their features take 230 kB each on disk
#   NICE=10 …                                  lets other programs go first
set -euo pipefail
cd "$(dirname "$0")/.."
adallava=.build/release/adallava
out=build/scenes
count=${SCENES:-100000}
nice=(nice -n "${NICE:-0}")
mkdir -p "$out/data"

scripts/fetch-efficientnet.sh lite0

data() { # SPLIT COUNT SEED FLAGS…
  local split=$1 number=$2 seed=$3; shift 3
  [ -s "$out/data/$split.json" ] || "${nice[@]}" "$adallava" data scenes --out "$out/data" --split "$split" --count "$number" --seed "$seed" "$@"
}
# Seeds from 1000000 up are for scoring.
data train "$count" 1 --turns 6 --regions --separate
data held-out 2000 1000001

train() { # RECIPE RUN
  [ -s "$out/runs/$2/config.json" ] || "${nice[@]}" "$adallava" train "Recipes/scenes/$1.yaml"
}
train 1-projector projector
train 2-language language
train 3-layers layers
train 3-heads heads

for variant in layers heads; do
  [ -s "$out/$variant-f16/config.json" ] || "$adallava" convert "$out/runs/$variant" "$out/$variant-f16" --to f16
  "$adallava" eval --task scenes --data "${SCENES_EVALUATION:-$out/data/held-out.json}" --model "$out/$variant-f16" \
    --budgets 1.0,0.85,0.6,0.3 --output "$out/scores-$variant"
done
