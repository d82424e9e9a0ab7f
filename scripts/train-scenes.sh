#!/usr/bin/env bash
# Trains the embedded default models: data, projector, language twice, what plans switch (variants L and H), conversion, scores.
# Hours on two cores. Every step goes on where it was stopped; a step that is done is not done again. Run by `make train-scenes`.
#   SCENES=40000 scripts/train-scenes.sh       pictures to train on; their features take 237 kB each on disk
#   SCENES_EVALUATION=LIST.json …              what is scored instead of the reference script's held-out scenes
#   SCENES_STUDY=2000 …                        how many of them are answered under other plans too
#   NICE=10 …                                  lets other programs go first
set -euo pipefail
cd "$(dirname "$0")/.."
adallava=.build/release/adallava
out=build/scenes
count=${SCENES:-40000}
nice=(nice -n "${NICE:-0}")
mkdir -p "$out/data"

scripts/scenes-tower.sh

data() { # SPLIT COUNT SEED FLAGS…
  local split=$1 number=$2 seed=$3; shift 3
  [ -s "$out/data/$split.json" ] || "${nice[@]}" "$adallava" data scenes --out "$out/data" --split "$split" --count "$number" --seed "$seed" "$@"
}
# Seeds from 1000000 up are for scoring.
data train "$count" 1 --turns 6 --regions --separate 12
data reference 2000 1000001 --reference

train() { # RECIPE RUN
  [ -s "$out/runs/$2/config.json" ] || "${nice[@]}" "$adallava" train "Recipes/scenes/$1.yaml"
}
train 1-projector projector
train 2-language language
train 3-whole whole
train 4-layers layers
train 5-heads heads

# What ships: float16, both variants beside one tower.
models=$out/models
mkdir -p "$models"
[ -s "$models/vision_tower/config.json" ] || cp -r "$out/tower" "$models/vision_tower"
limit=${SCENES_STUDY:-2000}
questions=${SCENES_EVALUATION:-$out/data/reference.json}
for variant in L:layers H:heads; do
  run=${variant#*:} variant=${variant%:*}
  if [ ! -s "$models/$variant/config.json" ]; then
    "$adallava" convert "$out/runs/$run" "$models/$variant" --to f16
    rm -rf "$models/$variant/vision_tower"
    sed -i 's#"mm_vision_tower" *: *"[^"]*"#"mm_vision_tower" : "../vision_tower"#' "$models/$variant/config.json"
  fi
  "$adallava" eval --task scenes --data "$questions" --model "$models/$variant" --budgets 1.0,0.85,0.6,0.25 --output "$out/scores-$variant"
  [ -s "$out/study-$variant.json" ] ||
    "$adallava" explain --data "$questions" --model "$models/$variant" --budgets 0.85,0.6 --limit "$limit" --json > "$out/study-$variant.json"
done
"$adallava" eval --task scenes --data "$questions" --model "$models/L" --blank-images --output "$out/scores-blank"
cp Models/scenes/README.md "$models/README.md"
scripts/scenes-card.py "$models/README.md" --questions "$questions" --answers "$out/data/train-separate.json" --blank "$out/scores-blank" \
  --variant L "$out/scores-L" "$out/study-L.json" --variant H "$out/scores-H" "$out/study-H.json"
echo "The models and their card are in $models; copy them to Models/scenes to make them the default." >&2
