#!/usr/bin/env bash
# The server beside llama-server on the same GGUF and prompts, with a bounded client on loopback (`make bench-serve`): one table, and build/bench/serve.json.
#   scripts/bench-serve.sh --seconds 2 --rounds 1 --clients 1,8
# SmolLM2 is fetched and converted into build/models unless --gguf names a file; llama-server is looked for in bin/ of the folder that ADALLAVA_PEERS names,
# where Benchmarks/peers/setup.sh puts it. What is missing is said and left out. Measure while nothing else runs.
set -euo pipefail
cd "$(dirname "$0")/.."
arguments=()
if [[ " $* " != *" --gguf "* ]]; then
  if source=$(scripts/fetch-smollm2.sh); then
    gguf=$(dirname "$source")/SmolLM2-135M-Instruct.Q8_0.gguf
    [ -s "$gguf" ] || .build/release/adallava convert "$source" "$gguf" --to q8_0 >&2
    arguments+=(--gguf "$gguf")
  else
    echo "bench-serve: SmolLM2 could not be fetched; only the embedded model is measured" >&2
  fi
fi
llama=${ADALLAVA_PEERS:-build/peers}/bin/llama-server
if [ -x "$llama" ]; then arguments+=(--llama "$llama"); else echo "bench-serve: $llama is not there; our server alone is measured" >&2; fi
exec python3 -B Benchmarks/harness/serve.py ${arguments[@]+"${arguments[@]}"} "$@"
