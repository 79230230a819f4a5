"""The loads: what each asks of a proxy, how a round of it is measured, and what its figure is. Knows no proxy's configuration."""
import http.client, statistics, time
from dataclasses import dataclass, field
from typing import Callable

from drivers import Idle
from processes import Cpu, Failure, memory_kib
from scenario import BODY, PLUGIN_FIELDS, ROUTES, Scenario

LARGE = 65536
RATE = 5000
MESH_RATE = 1000
IDLE_FIRST = 200
SETTLED = 7  # seconds
MESH = ("heddle", "envoy")

CPU = "µs CPU per request"


@dataclass(frozen=True)
class Load:
    """`drive(drivers, proxy)` is one round. `base` is a scenario that Heddle is measured in besides, to be compared with itself."""
    title: str
    drive: Callable
    scenario: Scenario = Scenario()
    base: Scenario | None = None
    base_title: str = ""
    fields: dict = field(default_factory=dict)
    kind: str = "closed"
    unit: str = CPU
    figure: str = "cpu_us"
    # Those that can do it; all when empty.
    peers: tuple = ()


def wrk(path="/", length=BODY, tls=False, **more):
    def drive(drivers, proxy):
        origin = f"https://localhost:{proxy.https}" if tls else f"http://127.0.0.1:{proxy.http}"
        return drivers.wrk(origin + path, length, **more)
    return drive


def h2load(path="/", length=BODY):
    return lambda drivers, proxy: drivers.h2load(f"https://localhost:{proxy.https}{path}", length)


def over_tls(kind):
    return lambda drivers, proxy: drivers.own(kind, proxy.https, certificate=drivers.certificate())


def in_clear(kind, **options):
    return lambda drivers, proxy: drivers.own(kind, proxy.http, **options)


LOADS = {
    "h1": Load("HTTP/1.1, 64 connections, 60 B", wrk()),
    "tls": Load("HTTP/1.1 over TLS 1.3, 60 B", wrk(tls=True)),
    "h2": Load("HTTP/2 over TLS, 16 × 16 streams, 60 B", h2load()),
    "handshakes": Load("full TLS 1.3 handshake, P-256", over_tls("handshakes"), unit="µs CPU per connection with one request"),
    "64k": Load("HTTP/1.1, 64 KiB", wrk("/64k", LARGE)),
    "h2-64k": Load("HTTP/2 over TLS, 64 KiB", h2load("/64k", LARGE)),
    "grpc": Load("gRPC unary, HTTP/2 over TLS to HTTP/2, 16 × 16 streams", over_tls("grpc"), Scenario("grpc")),
    "routes": Load("10,000 routes, HTTP/1.1, 60 B", wrk(routes=ROUTES), Scenario(routes=ROUTES), Scenario(), "Heddle with one route"),
    "plugins": Load("10 plugins, HTTP/1.1, 60 B", wrk(fields=PLUGIN_FIELDS), Scenario(plugins=True), Scenario(), "Heddle without plugins",
                    PLUGIN_FIELDS),
    "websocket": Load("WebSocket echo, 64 tunnels, 60 B", in_clear("websocket"), Scenario("websocket"), unit="µs CPU per message and its echo"),
    "mesh": Load("two sidecars with mutual TLS between them, HTTP/1.1, 64 connections, 60 B; both together", wrk(), Scenario(mesh=True), peers=MESH),
    "latency": Load(f"latency added before a 100 µs backend, {RATE} requests/s", in_clear("open", rate=RATE), Scenario("slow"),
                    kind="latency", unit="µs added at p50", figure="added_p50_us"),
    "mesh-latency": Load(f"latency added by two sidecars before a 100 µs backend, {MESH_RATE} requests/s on 16 connections",
                         in_clear("open", rate=MESH_RATE, connections=16), Scenario("slow", mesh=True), kind="latency", unit="µs added at p90",
                         figure="added_p90_us", peers=MESH),
    "idle": Load("idle keep-alive connection", None, kind="idle", unit="KiB per connection", figure="kib"),
    "idle-tls": Load("idle TLS connection", None, kind="idle-tls", unit="KiB per connection", figure="kib"),
    "start": Load("resident memory at start, the data plane", None, Scenario(alone=True), Scenario(), "Heddle with its control plane in one process",
                  kind="start", unit="MiB", figure="mib"),
    "workers": Load("two workers, HTTP/1.1, 60 B", wrk(threads=2, connections=128), Scenario(workers=2), Scenario(workers=1),
                    "Heddle with one worker", kind="workers"),
}


class Subject:
    """One proxy in one scenario."""

    def __init__(self, label, proxy):
        self.label, self.proxy, self.rounds = label, proxy, []

    def medians(self):
        keys = [key for key, value in self.rounds[0].items() if isinstance(value, (int, float))]
        out = {key: statistics.median(one[key] for one in self.rounds) for key in keys}
        out["errors"] = sum(one.get("errors", 0) for one in self.rounds)
        failures = [one["first_error"] for one in self.rounds if one.get("errors")]
        return out | ({"first_error": failures[0]} if failures else {})


class Core:
    """How busy a core is between two looks."""

    def __init__(self, core):
        self.core, self.last = core, None
        self.look()

    def look(self):
        """The share of time since the last look in which it was not idle."""
        with open("/proc/stat") as f:
            fields = next(line for line in f if line.startswith(f"cpu{self.core} ")).split()[1:9]
        times = [int(one) for one in fields]
        now, idle = sum(times), times[3] + times[4]
        last, self.last = self.last, (now, idle)
        return 1 - (idle - last[1]) / max(now - last[0], 1) if last else 0


def closed(load, drivers, subject):
    """One round with CPU: of the proxy over the requests that were answered well."""
    proxy = subject.proxy
    load_core, proxy_core = Core(drivers.place.load_core), Core(drivers.place.proxy_core)
    start, before = time.monotonic(), Cpu(proxy.pids)
    result = load.drive(drivers, proxy)
    user, system = before.until(Cpu(proxy.pids))
    wall, count = time.monotonic() - start, max(result["requests"], 1)
    busy = (user + system) / wall
    result["rps"] = result["requests"] / max(result.pop("seconds"), 1e-9)
    return result | {"cpu_us": (user + system) / count * 1e6, "user_us": user / count * 1e6, "system_us": system / count * 1e6,
                     "mib": memory_kib(proxy.pids) / 1024, "proxy_busy": busy, "load_busy": load_core.look(), "others_busy": max(proxy_core.look() - busy, 0)}


def idle(place, proxy, connections, tls):
    """KiB per connection that has asked once; all must still be open afterwards."""
    # Whoever gives back the memory of its start has done so by then: what it takes again must not count as the connections'.
    time.sleep(SETTLED)
    client = Idle(place, proxy.https if tls else proxy.http, tls)
    try:
        client.say(IDLE_FIRST)
        time.sleep(0.3)
        before = memory_kib(proxy.pids)
        client.say(connections)
        time.sleep(0.5)
        grown = memory_kib(proxy.pids) - before
        checked = client.say("check")
        if checked["alive"] != checked["of"]:
            raise Failure(f"{proxy.name}: of {checked['of']} idle connections only {checked['alive']} were still open: {checked['first_error']}")
        return {"kib": grown / connections, "connections": connections, "mib": memory_kib(proxy.pids) / 1024}
    finally:
        client.stop()


def ask(port, path="/", fields=None):
    """(status, fields, body) of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=fields or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def prove(load, drivers, proxy, scenario):
    """Waits until the proxy serves, and checks that it really does what the scenario says."""
    path = f"/tree/{ROUTES - 1}/leaf" if scenario.routes > 1 else "/"
    deadline = time.monotonic() + 30
    while True:
        try:
            if scenario.upstream in ("grpc", "websocket"):
                small = {"connections": 1, "streams": 1}
                tls = {"certificate": drivers.certificate()} if scenario.upstream == "grpc" else {}
                drivers.own(scenario.upstream, proxy.https if tls else proxy.http, seconds=0.1, **small, **tls)
                return
            answer = ask(proxy.http, path, load.fields)
            if answer[0] == 200 and len(answer[2]) == BODY:
                break
            problem = f"status {answer[0]}, {len(answer[2])} bytes"
        except (OSError, http.client.HTTPException, Failure) as error:
            problem = str(error)
        if time.monotonic() > deadline or proxy.process.poll() is not None:
            raise Failure(f"{proxy.name} does not serve {path}: {problem}")
        time.sleep(0.05)
    if scenario.routes > 1 and ask(proxy.http, "/nowhere")[0] != 404:
        raise Failure(f"{proxy.name}: a path without a route is not answered with 404")
    if scenario.plugins:
        missing = [name for name in ("x-request-id", "access-control-allow-origin", "x-served-by") if name not in answer[1]]
        if missing or ask(proxy.http)[0] != 401:
            raise Failure(f"{proxy.name}: the plugins do not work (without a key: {ask(proxy.http)[0]}; fields missing: {missing})")
