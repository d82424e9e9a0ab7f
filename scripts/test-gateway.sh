#!/usr/bin/env bash
# Runs Tests/Tools/test_gateway.py with the `smg` and `vllm-router` packages, which it installs in build/clients. Skips with a message where that fails.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ ! -x build/clients/bin/smg ]; then
  mkdir -p build
  if ! { { [ -x build/clients/bin/python ] || python3 -m venv build/clients; } && timeout 600 build/clients/bin/pip install -q --disable-pip-version-check smg==1.13.0; } > build/gateway.log 2>&1; then
    echo "test-gateway: skipped, smg could not be installed; build/gateway.log says why" >&2
    exit 0
  fi
fi
if [ ! -x build/clients/bin/vllm-router ] && ! timeout 600 build/clients/bin/pip install -q --disable-pip-version-check vllm-router==0.1.17 >> build/gateway.log 2>&1; then
  echo "test-gateway: vllm-router could not be installed; build/gateway.log says why" >&2
fi
exec python3 -B Tests/Tools/test_gateway.py "$@"
