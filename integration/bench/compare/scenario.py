"""What a proxy is to do in a load, without a word about any proxy: how many routes, which plugins, what is behind it."""
from dataclasses import dataclass

ROUTES = 10_000
CONSUMERS = 10
KEY = "bench-key-7"
BODY = 60

# What a client of the plugins sends along.
PLUGIN_FIELDS = {"Origin": "https://app.example", "apikey": KEY}

# The ten plugins, by Heddle's names; what stands for each at a peer is written in the peer's file.
PLUGINS = ["request-id", "fault-injection", "cors", "ip-restriction", "key-auth", "proxy-rewrite", "limit-count", "traffic-split",
           "redirect", "response-rewrite"]


@dataclass(frozen=True)
class Scenario:
    """`upstream` is one of plain, slow, websocket (HTTP/1) and grpc (HTTP/2 in clear). `alone`: a data plane and nothing else, as the peers are. `mesh`: one proxy
    before the client and one before the backend, with mutual TLS and HTTP/2 between them."""
    upstream: str = "plain"
    routes: int = 1
    plugins: bool = False
    workers: int = 1
    alone: bool = False
    mesh: bool = False


def route_paths(count):
    """Half the routes are one path each, half are prefixes; these paths meet all of them."""
    return [f"/exact/{n}" if n % 2 == 0 else f"/tree/{n}/leaf" for n in range(count)]
