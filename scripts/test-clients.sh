#!/usr/bin/env bash
# Runs Tests/Tools/test_clients.py with the `openai`, `anthropic`, `litellm` and `schemathesis` packages, which it installs in build/clients, and promtool
# (Debian's package prometheus) where it is. What cannot be installed is said, and its tests are left out.
set -euo pipefail
cd "$(dirname "$0")/.."
python=build/clients/bin/python
mkdir -p build
[ -x "$python" ] || python3 -m venv build/clients > build/clients.log 2>&1 || true
for package in openai anthropic litellm schemathesis; do
  if ! "$python" -c "import $package" 2> /dev/null; then
    timeout 300 "$python" -m pip install -q --disable-pip-version-check "$package" >> build/clients.log 2>&1 ||
      echo "test-clients: $package could not be installed; build/clients.log says why" >&2
  fi
done
[ -x "$python" ] || { echo "test-clients: skipped, there is no python3-venv" >&2; exit 0; }
exec "$python" -B Tests/Tools/test_clients.py "$@"
