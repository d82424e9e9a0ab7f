#!/usr/bin/env bash
# Puts the embedded model's tower into build/scenes/tower, once: EfficientNet-Lite0, with colours beside its maps.
set -euo pipefail
cd "$(dirname "$0")/.."
out=build/scenes/tower
[ ! -s "$out/config.json" ] || exit 0
tower=$(scripts/fetch-efficientnet.sh lite0)
mkdir -p "$out"
cp "$tower/model.safetensors" "$tower/preprocessor_config.json" "$out"
# The configuration comes last: it says that the rest is there.
sed 's/"stride8"\]/"stride8", "color8"]/' "$tower/config.json" > "$out/config.json.partial"
mv "$out/config.json.partial" "$out/config.json"
