#!/usr/bin/env bash
# Makes the virtual environment of the stories' control plane, once: Envoy's own messages and gRPC's Python. It is one of its own, since the package of the
# messages and that of the real Envoy overwrite each other.
set -euo pipefail
target=${CARGO_TARGET_DIR:-$(dirname "$0")/../target}
mkdir -p "$target"
exec 9>"$target/xds.lock"
flock 9
venv=$target/xds
if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import grpc, envoy.service.discovery.v3.ads_pb2_grpc' 2>/dev/null; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check 'grpcio>=1.80' 'xds-protos>=1.80' >&2
fi
