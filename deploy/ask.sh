#!/usr/bin/env bash
# Asks a server on this machine over REST: tfavmae serve, or TF Serving.
# Usage: deploy/ask.sh MODEL [FILE]; a file is for `tfavmae serve` alone.
set -euo pipefail
model=${1:?name of the model}
base=http://localhost:${PORT:-8501}/v1/models/$model

curl --fail-with-body --silent --show-error "$base"
curl --fail-with-body --silent --show-error "$base/metadata"
if [ $# -gt 1 ]; then
  curl --fail-with-body --silent --show-error --form "file=@$2" "$base:classify?top=3"
fi
