#!/usr/bin/env bash
# The speed requirements, each in one run against its peers on the same files (`make bench`): prints one table and writes
# build/bench/results.json. Sections: smollm2 busy linearity vision seven-b startup overhead avx2; all without any.
#   scripts/bench.sh smollm2 busy --repeats 5 --types Q8_0
# Peers lie outside the repository, where Benchmarks/peers/setup.sh DIR puts them: ADALLAVA_PEERS or --peers names DIR. What is missing is
# said and left out. Measure while nothing else runs. Benchmarks/RESULTS.md says what each number is. ADALLAVA_BUILD names a folder with
# adallava and adallava-bench that are measured instead of a build of this checkout.
set -euo pipefail
cd "$(dirname "$0")/.."
exec python3 Benchmarks/harness/bench.py "$@"
