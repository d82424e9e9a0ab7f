#!/usr/bin/env bash
# Runs Tests/Tools/test_clients.py with the `openai` and `anthropic` packages, which it installs in build/clients. Skips with a message where that fails.
set -euo pipefail
cd "$(dirname "$0")/.."
python=build/clients/bin/python
if ! "$python" -c 'import anthropic, openai' 2> /dev/null; then
  mkdir -p build
  if ! { python3 -m venv build/clients && timeout 300 "$python" -m pip install -q --disable-pip-version-check openai anthropic; } > build/clients.log 2>&1; then
    echo "test-clients: skipped, the packages could not be installed; build/clients.log says why" >&2
    exit 0
  fi
fi
exec "$python" -B Tests/Tools/test_clients.py "$@"
