#!/usr/bin/env bash
# Fetches the OpenID provider of the stories, a JavaScript package, once.
set -euo pipefail
target=${CARGO_TARGET_DIR:-$(dirname "$0")/../target}
version=9.13.3
mkdir -p "$target"
exec 9>"$target/node.lock"
flock 9
folder=$target/node/$version
if [ ! -e "$folder/done" ]; then
  mkdir -p "$folder"
  npm install --prefix "$folder" --no-audit --no-fund --loglevel=error --ignore-scripts "oidc-provider@$version" >&2
  touch "$folder/done"
fi
cp "$(dirname "$0")/oidc/provider.mjs" "$folder/provider.mjs"
echo "$folder/provider.mjs"
