#!/usr/bin/env bash
# Compiles every program of Examples against the modules that are built already, links it with their objects, and runs it. Only public declarations are
# visible, as to an app that depends on the package. `make examples` builds the same programs with SwiftPM, which compiles the package a second time.
set -euo pipefail
cd "$(dirname "$0")/.."
built=.build/${CONFIGURATION:-release}
if [ ! -e "$built/Modules/AdaImages.swiftmodule" ]; then
  echo "check-examples: $built/Modules has no modules: run \`swift build\` first" >&2
  exit 66
fi
maps=() objects=()
for map in "$built"/*.build/module.modulemap Sources/{CJPEG,CPNG,CWebP}/module.modulemap; do maps+=(-Xcc "-fmodule-map-file=$map"); done
# The objects of AdaLLaVA and what it needs, as SwiftPM links them into a program, and those of AdaImages.
while IFS= read -r object; do objects+=("${object//\'/}"); done < <(
  grep -v '/adallava_instructions.build/' "$built/adallava-instructions.product/Objects.LinkFileList"
  grep -E '/(AdaImages|CImageShims).build/' "$built/adallava.product/Objects.LinkFileList")
out=build/examples
mkdir -p "$out"
for folder in Examples/Sources/*/; do
  name=$(basename "$folder")
  swiftc -parse-as-library -module-name "$name" -swift-version 6 -I "$built/Modules" "${maps[@]}" "$folder"*.swift "${objects[@]}" \
    -o "$out/$name" $(pkg-config --libs libjpeg libpng libwebpdemux) -lz -lstdc++
  "$out/$name" > "$out/$name.txt"
  test -s "$out/$name.txt"
  echo "example $name: $(tail -n 1 "$out/$name.txt")"
done
