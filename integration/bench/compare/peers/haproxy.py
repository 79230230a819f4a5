"""HAProxy.

Its access log goes through a ring to a TCP log server (HAProxy's own way to log without waiting), as it cannot write files. Routes are two map
files, one exact and one by prefix. Plugins: request-id as `unique-id-format`, cors and response-rewrite as `http-response set-header`,
ip-restriction as an ACL on `src`, key-auth as a map from keys to consumers, limit-count as a stick table with `http_req_rate`, proxy-rewrite as
`http-request set-header`, traffic-split as `use_backend`, redirect as `http-request redirect`, fault-injection as `http-request return`.
"""
from scenario import CONSUMERS


def configure(place, scenario, http, https):
    rules, tables = "", ""
    if scenario.routes > 1:
        rules = routes(place, scenario)
    if scenario.plugins:
        rules, tables = plugins(place), "backend limits\n  stick-table type ip size 100k expire 60s store http_req_rate(60s)\n"
    proto = " proto h2" if scenario.upstream == "grpc" else ""
    conf = place.write("haproxy.cfg", f"""
global
  maxconn 8192
  nbthread 1
  log ring@access local0
ring access
  format rfc5424
  maxlen 1200
  size 1048576
  server sink 127.0.0.1:{place.log_sink}
defaults
  mode http
  log global
  option httplog
  option forwardfor
  timeout connect 5s
  timeout client 75s
  timeout server 75s
  timeout tunnel 300s
  http-reuse always
frontend f
  bind 127.0.0.1:{http}
  bind 127.0.0.1:{https} ssl crt {place.path('both.pem')} alpn h2,http/1.1
{rules}  default_backend b
{tables}backend b
  server s 127.0.0.1:{place.upstreams[scenario.upstream]}{proto}
""")
    return [place.binaries["haproxy"], "-db", "-f", conf]


def routes(place, scenario):
    place.write("exact.map", "".join(f"/exact/{n} b\n" for n in range(0, scenario.routes, 2)))
    place.write("tree.map", "".join(f"/tree/{n}/ b\n" for n in range(1, scenario.routes, 2)))
    return f"""  http-request set-var(txn.to) path,map_str({place.path('exact.map')})
  http-request set-var(txn.to) path,map_beg({place.path('tree.map')}) unless {{ var(txn.to) -m found }}
  http-request return status 404 unless {{ var(txn.to) -m found }}
  use_backend %[var(txn.to)]
"""


def plugins(place):
    keys = place.write("keys.map", "".join(f"bench-key-{n} consumer{n}\n" for n in range(CONSUMERS)))
    return f"""  unique-id-format %[uuid()]
  http-request set-var(txn.id) req.hdr(x-request-id)
  http-request set-var(txn.id) unique-id unless {{ req.hdr(x-request-id) -m found }}
  http-request set-header X-Request-Id %[var(txn.id)]
  http-request return status 503 if {{ url_param(fault) 1 }}
  http-request deny deny_status 403 unless {{ src 127.0.0.0/8 10.0.0.0/8 }}
  http-request set-var(txn.consumer) req.hdr(apikey),map_str({keys})
  http-request deny deny_status 401 unless {{ var(txn.consumer) -m found }}
  http-request set-header X-Consumer-Username %[var(txn.consumer)]
  http-request set-header X-Client %[src]
  http-request track-sc0 src table limits
  http-request deny deny_status 503 if {{ sc_http_req_rate(0) gt 1000000000 }}
  http-request redirect location /new%[path,regsub(^/old,)] if {{ path_reg ^/old/(.*)$ }}
  http-response set-header X-Request-Id %[var(txn.id)]
  http-response set-header X-Served-By bench
  http-response set-header Access-Control-Allow-Origin *
  http-response set-header Access-Control-Allow-Methods *
  http-response set-header Access-Control-Allow-Headers *
  http-response set-header Access-Control-Max-Age 5
  use_backend b if {{ req.hdr(x-canary) 1 }}
"""
