#!/bin/bash
# benchmarks/gpu_table.sh [WHEELS [ARGUMENTS...]]: installs the wheels of a folder, without
# a network, into an environment over this Python's packages, and runs gpu_table.py.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
wheels=${1:-}
python=python3
if [ -n "$wheels" ]; then
  environment=${TMPDIR:-/tmp}/tfavmae-gpu-table
  python3 -m venv --system-site-packages "$environment"
  python=$environment/bin/python
  "$python" -m pip install --quiet --no-index --no-deps "$wheels"/*.whl
fi
exec "$python" "$here/gpu_table.py" "${@:2}"
