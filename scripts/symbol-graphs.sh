#!/usr/bin/env bash
# Writes the symbol graphs (public declarations and their documentation, as JSON) of the library products to build/symbols.
# Reads modules that are built already: `swift build`, with CONFIGURATION=debug for a debug build.
set -euo pipefail
cd "$(dirname "$0")/.."
built=.build/${CONFIGURATION:-release}
if [ ! -e "$built/Modules/AdaImages.swiftmodule" ]; then
  echo "symbol-graphs: $built/Modules has no modules: run \`swift build\` first" >&2
  exit 66
fi
target=$(swift -print-target-info | python3 -c 'import json, sys; print(json.load(sys.stdin)["target"]["triple"])')
maps=()
# SwiftPM writes the maps of C targets into the build folder; those of system libraries are in Sources.
for map in "$built"/*.build/module.modulemap Sources/{CJPEG,CPNG,CWebP}/module.modulemap; do maps+=(-Xcc "-fmodule-map-file=$map"); done
rm -rf build/symbols
for module in AdaLLaVA AdaImages; do
  mkdir -p "build/symbols/$module"
  swift symbolgraph-extract -module-name "$module" -target "$target" -I "$built/Modules" "${maps[@]}" -output-dir "build/symbols/$module" \
    -minimum-access-level public -omit-extension-block-symbols -skip-inherited-docs -skip-synthesized-members
done
