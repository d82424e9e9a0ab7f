#!/bin/sh
# Installs every peer that `make bench` measures against.
#
#     setup.sh DIR
#
# Afterwards DIR holds llama.cpp (build-llama.sh), DIR/venv-openvino OpenVINO GenAI and DIR/venv-pytorch PyTorch. DIR must lie outside the
# repository; `make bench` finds it with ADALLAVA_PEERS=DIR, or by itself as ~/.cache/adallava-peers. PYTORCH names what pip installs as
# PyTorch: a build without CUDA is much smaller and as fast on a processor. What is there already is not fetched again.
set -eu

if [ $# -ne 1 ]; then
    echo "usage: setup.sh DIR" >&2
    exit 64
fi
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
directory=$(cd "$1" && pwd)
"$here/build-llama.sh" "$directory"

# install VENV PACKAGES: into a virtual environment of their own.
install() {
    venv=$directory/$1
    shift
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet "$@"
}
install venv-openvino openvino-genai==2026.4.1.0 numpy
install venv-pytorch "${PYTORCH:-torch}" numpy
# What clip_weights.py writes GGUF files with comes with llama.cpp's sources and needs these.
install venv-pytorch tqdm pyyaml requests
echo "peers: $directory" >&2
