"""Heddle, everything on as shipped: control side, metrics, access log (JSON to a file)."""
from processes import free_port
from scenario import CONSUMERS


def configure(place, scenario, http, https):
    if scenario.mesh:
        return mesh(place, scenario, http)
    upstream = f'nodes: {{ "127.0.0.1:{place.upstreams[scenario.upstream]}": 1 }}'
    if scenario.upstream == "grpc":
        upstream += ", scheme: grpc"
    indent = lambda name: "".join(f"      {line}\n" for line in place.read(name).splitlines())
    place.write("resources.yaml", f"""
upstreams:
  - {{ id: b, type: roundrobin, {upstream}, keepalive_pool: {{ size: 512, idle_timeout: 60, requests: 100000000 }} }}
routes:
{routes(scenario)}
{consumers(scenario)}
ssls:
  - id: bench
    snis: [bench.example, localhost, "*"]
    cert: |
{indent('cert.pem')}    key: |
{indent('key.pem')}""")
    xds = free_port()
    data_plane = f"""
node: {{ id: bench, data_dir: "{place.fresh('heddle-data')}" }}
agent: {{ workers: {scenario.workers}, admin: "127.0.0.1:{free_port()}" }}
access_log: {{ path: "{place.path('heddle-access.log')}" }}
"""
    control_plane = f"""
admin: {{ address: "127.0.0.1:{free_port()}" }}
xds: {{ address: "127.0.0.1:{xds}" }}
listeners:
  - {{ name: http, address: "127.0.0.1:{http}", protocol: http }}
  - {{ name: https, address: "127.0.0.1:{https}", protocol: https }}
providers: {{ file: {{ path: "{place.path('resources.yaml')}", watch: false }} }}
"""
    heddle = place.binaries["heddle"]
    if not scenario.alone:
        return [heddle, "run", "-c", place.write("heddle.yaml", data_plane + control_plane)]
    node = f"""
node: {{ id: control, data_dir: "{place.fresh('control-data')}" }}
"""
    place.accompany([heddle, "controlplane", "-c", place.write("controlplane.yaml", node + control_plane)], xds)
    return [heddle, "agent", "-c", place.write("agent.yaml", data_plane + f'controlplane: {{ address: "127.0.0.1:{xds}" }}\n')]


def mesh(place, scenario, http):
    """Two sidecars with identities of a control plane, which runs beside them and is not counted."""
    heddle, xds, admin = place.binaries["heddle"], free_port(), free_port()
    node = lambda name: f'node: {{ id: {name}, data_dir: "{place.fresh(name)}" }}\n'
    key = "bench-admin-key"
    place.accompany([heddle, "controlplane", "-c", place.write("controlplane.yaml", node("control") + f"""
admin: {{ address: "127.0.0.1:{admin}", keys: [ {{ name: bench, key: {key}, role: admin }} ] }}
xds: {{ address: "127.0.0.1:{xds}" }}
identity: {{ trust_domain: bench.example }}
listeners: []
""")], xds)
    ask = lambda *words: place.said([heddle, *words, "--server", f"http://127.0.0.1:{xds}", "--key", key])
    place.write("roots.pem", ask("ca", "export"))
    port = free_port()

    def sidecar(service, address, more):
        token = place.write(f"{service}.token", ask("token", "create", "--service", service, "--ttl", "10m"))
        return [heddle, "agent", "-c", place.write(f"{service}.yaml", node(service) + f"""
role: sidecar
service: {{ name: {service}, address: "127.0.0.1:{address}", protocol: http }}
agent: {{ workers: 1, admin: "127.0.0.1:{free_port()}" }}
controlplane: {{ address: "https://127.0.0.1:{xds}", token_file: "{token}", bundle: "{place.path('roots.pem')}" }}
access_log: {{ path: "{place.path(service + '-access.log')}" }}
{more}""")]

    place.join(sidecar("server", place.upstreams[scenario.upstream], f'inbound: {{ address: "127.0.0.1:{port}" }}\n'), port)
    explicit = f'{{ service: server, listen: "127.0.0.1:{http}" }}'
    return sidecar("client", 9, f'inbound: {{ address: "127.0.0.1:{free_port()}" }}\noutbound: {{ explicit: [ {explicit} ] }}\n')


def routes(scenario):
    if scenario.plugins:
        return '  - { id: all, uri: "/*", upstream_id: b, plugins: ' + PLUGINS + " }"
    if scenario.routes == 1:
        more = ", enable_websocket: true" if scenario.upstream == "websocket" else ""
        return f'  - {{ id: all, uri: "/*", upstream_id: b{more} }}'
    place = lambda n: f"/exact/{n}" if n % 2 == 0 else f"/tree/{n}/*"
    return "\n".join(f'  - {{ id: r{n}, uri: "{place(n)}", upstream_id: b }}' for n in range(scenario.routes))


def consumers(scenario):
    if not scenario.plugins:
        return ""
    one = lambda n: f"  - {{ username: consumer{n}, plugins: {{ key-auth: {{ key: bench-key-{n} }} }} }}"
    return "consumers:\n" + "\n".join(one(n) for n in range(CONSUMERS))


PLUGINS = """{
    request-id: {},
    fault-injection: { abort: { http_status: 503, vars: [[["arg_fault", "==", "1"]]] } },
    cors: {},
    ip-restriction: { whitelist: ["127.0.0.0/8", "10.0.0.0/8"] },
    key-auth: {},
    proxy-rewrite: { headers: { set: { X-Client: "$remote_addr" } } },
    limit-count: { count: 1000000000, time_window: 60 },
    traffic-split: { rules: [ { match: [ { vars: [["http_x_canary", "==", "1"]] } ], weighted_upstreams: [ { upstream: { nodes: { "127.0.0.1:9": 1 } } } ] } ] },
    redirect: { regex_uri: ["^/old/(.*)", "/new/$1"] },
    response-rewrite: { headers: { set: { X-Served-By: bench } } } }"""
