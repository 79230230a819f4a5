#!/usr/bin/env bash
# Brings a real Consul for the stories: Debian 11 was the last release with a package of it. The machine's own package sources are asked for that
# suite, in folders of our own, so that nothing is installed and nothing that the machine knows about packages changes.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${CARGO_TARGET_DIR:-target}")/consul
suite=bullseye

mkdir -p "$folder"
exec 9>"$folder.lock"
flock 9
if [ -x "$folder/consul" ] && "$folder/consul" version >/dev/null 2>&1; then exit 0; fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/lists/partial "$work"/archives/partial "$work"/parts
# The first archive that the machine names is its main one; security and updates lie elsewhere and have no Consul.
uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
if [ -z "$uri" ]; then
  echo "consul: no package source is known to apt (run: apt-get update)" >&2
  exit 1
fi
echo "deb [signed-by=$keyring] $uri $suite main" >"$work/sources.list"
options=(-o "Dir::Etc::SourceList=$work/sources.list" -o "Dir::Etc::SourceParts=$work/parts" -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work"
  -o "Dir::Cache::Archives=$work/archives" -o APT::Sandbox::User=root -o Acquire::Check-Valid-Until=false)
apt-get "${options[@]}" update -qq
(cd "$work" && apt-get "${options[@]}" download -qq consul)
dpkg-deb --fsys-tarfile "$work"/consul_*.deb | tar -x -C "$folder" --strip-components=3 ./usr/bin/consul
"$folder/consul" version >/dev/null
