#!/usr/bin/env bash
# Makes the virtual environment with the Python clients of the stories (gRPC, SPIFFE), once.
set -euo pipefail
target=${CARGO_TARGET_DIR:-$(dirname "$0")/../target}
mkdir -p "$target"
exec 9>"$target/python.lock"
flock 9
venv=$target/python
if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import grpc, spiffe' 2>/dev/null; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check 'grpcio>=1.60' 'spiffe>=0.2'
fi
