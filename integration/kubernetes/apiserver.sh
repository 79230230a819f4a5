#!/usr/bin/env bash
# Builds a kube-apiserver for record.py and prints where it is: Debian 12 is the last release with all sources of one (1.20.2). Sources and compiler come
# from the machine's own package sources, asked for that suite in folders of our own; nothing is installed. It takes 2 GiB and, on two cores, ten minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(realpath -m "${CARGO_TARGET_DIR:-target}")/kubernetes
suite=bookworm
version=v1.20.2

mkdir -p "$folder"
exec 9>"$folder.lock"
flock 9
if "$folder/kube-apiserver" --version >/dev/null 2>&1; then echo "$folder/kube-apiserver"; exit 0; fi

work=$folder/work
rm -rf "$work"
mkdir -p "$work"/lists/partial "$work"/archives/partial "$work"/parts "$work"/packages "$work"/go/src/k8s.io
uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
if [ -z "$uri" ]; then
  echo "kube-apiserver: no package source is known to apt (run: apt-get update)" >&2
  exit 1
fi
printf '%s [signed-by=%s] %s %s main\n' deb "$keyring" "$uri" "$suite" deb-src "$keyring" "$uri" "$suite" >"$work/sources.list"
options=(-o "Dir::Etc::SourceList=$work/sources.list" -o "Dir::Etc::SourceParts=$work/parts" -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work"
  -o "Dir::Cache::Archives=$work/archives" -o APT::Sandbox::User=root -o Acquire::Check-Valid-Until=false)
apt-get "${options[@]}" update -qq
(
  cd "$work/packages"
  apt-get "${options[@]}" source -qq --download-only kubernetes >/dev/null
  apt-get "${options[@]}" download -qq golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev
  for package in *.deb; do dpkg-deb -x "$package" "$work/root"; done
)
sources=$work/go/src/k8s.io/kubernetes
mkdir "$sources"
tar -xzf "$work"/packages/kubernetes_*.orig.tar.gz -C "$sources" --strip-components=1
# The copy that this release brings ends with a fault under compilers since 1.18, as soon as a webhook answers with a patch.
reflect2=$sources/vendor/github.com/modern-go/reflect2
rm "$reflect2"/*.go "$reflect2"/*.s
cp "$work"/root/usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} "$reflect2"

export GOROOT=$work/root/usr/lib/go-1.19 GOPATH=$work/go GOCACHE=$work/cache GO111MODULE=off GOPROXY=off GOTOOLCHAIN=local CGO_ENABLED=0
go=$GOROOT/bin/go
cd "$sources"
# What the API's own description is made of is not among the sources.
"$go" build -o "$work/openapi-gen" k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen
described=$(find -H cmd pkg plugin vendor/k8s.io -follow -name '*.go' -not -path '*/code-generator/*' -not -path '*/sample-apiserver/*' -print0 \
  | xargs -0 grep -l '+k8s:openapi-gen=' | xargs -n1 dirname | LC_ALL=C sort -u | sed 's#^#k8s.io/kubernetes/#' | paste -sd,)
"$work/openapi-gen" --logtostderr -i "$described" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
  -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$work/violations"
flags="-s -w"
for package in component-base/version client-go/pkg/version; do
  flags+=" -X k8s.io/kubernetes/vendor/k8s.io/$package.gitVersion=$version -X k8s.io/kubernetes/vendor/k8s.io/$package.gitMajor=1"
  flags+=" -X k8s.io/kubernetes/vendor/k8s.io/$package.gitMinor=20"
done
"$go" build -ldflags "$flags" -o "$folder/kube-apiserver" k8s.io/kubernetes/cmd/kube-apiserver
rm -rf "$work"
echo "$folder/kube-apiserver"
