#!/usr/bin/env bash
# Builds the documentation of the library products with docc, warnings as errors, into build/documentation/*.doccarchive.
# Reads modules that are built already: `swift build`, with CONFIGURATION=debug for a debug build.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v docc > /dev/null; then
  docc=$(dirname "$(readlink -f "$(command -v swift)")")/docc
  [ -x "$docc" ] || docc="xcrun docc"
fi
scripts/symbol-graphs.sh
rm -rf build/documentation
mkdir -p build/documentation
for module in AdaLLaVA AdaImages; do
  catalogue=(); [ ! -d "Sources/$module/$module.docc" ] || catalogue=("Sources/$module/$module.docc")
  ${docc:-docc} convert "${catalogue[@]}" --additional-symbol-graph-dir "build/symbols/$module" --warnings-as-errors \
    --fallback-display-name "$module" --fallback-bundle-identifier "$module" --output-dir "build/documentation/$module.doccarchive"
done
