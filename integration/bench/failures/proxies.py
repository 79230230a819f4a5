"""Heddle, nginx, HAProxy and Envoy before the same four endpoints, each with the best that it has for endpoints that fail: retries on another one, checks every
second where it has them, ejection by what requests find, and the balancing that looks at how busy an endpoint is. Limits in time are the same for all: 1 s to
connect, 2 s for an answer, 3 tries."""
import json

from peers.envoy import HTTP, TYPE, address
from processes import free_port


def heddle(place, ports, http, _):
    nodes = ", ".join(f'"127.0.0.1:{port}": 1' for port in ports)
    place.write("resources.yaml", f"""
upstreams:
  - id: b
    type: ewma
    nodes: {{ {nodes} }}
    retries: 2
    timeout: {{ connect: 1, send: 2, read: 2 }}
    checks:
      active: {{ type: http, http_path: /, timeout: 1, healthy: {{ interval: 1, successes: 2 }}, unhealthy: {{ interval: 1, http_failures: 2, timeouts: 2, tcp_failures: 2 }} }}
      passive: {{ type: http, healthy: {{ successes: 0 }}, unhealthy: {{ http_statuses: [500, 502, 503, 504], http_failures: 3, tcp_failures: 2, timeouts: 2 }} }}
routes:
  - {{ id: all, uri: "/*", upstream_id: b, plugins: {{ retry: {{ attempts: 3, statuses: ["500-504"] }} }} }}
""")
    conf = place.write("heddle.yaml", f"""
node: {{ id: failures, data_dir: "{place.fresh('heddle')}" }}
agent: {{ workers: 1, admin: "127.0.0.1:{free_port()}" }}
access_log: {{ path: "{place.path('heddle-access.log')}" }}
admin: {{ address: "127.0.0.1:{free_port()}" }}
xds: {{ address: "127.0.0.1:{free_port()}" }}
listeners: [ {{ name: http, address: "127.0.0.1:{http}", protocol: http }} ]
providers: {{ file: {{ path: "{place.path('resources.yaml')}", watch: false }} }}
""")
    return [place.binaries["heddle"], "run", "-c", conf]


def nginx(place, ports, http, _):
    servers = " ".join(f"server 127.0.0.1:{port} max_fails=3 fail_timeout=10s;" for port in ports)
    f = place.folder
    conf = place.write("nginx.conf", f"""
daemon off; user {place.user}; worker_processes 1; pid {f}/nginx.pid; error_log {f}/nginx.log;
events {{ worker_connections 8192; }}
http {{ access_log {f}/nginx-access.log combined buffer=32k;
client_body_temp_path {f}/b; proxy_temp_path {f}/p; fastcgi_temp_path {f}/f; uwsgi_temp_path {f}/u; scgi_temp_path {f}/s;
upstream b {{ zone b 64k; least_conn; {servers} keepalive 64; }}
server {{ listen 127.0.0.1:{http};
location / {{ proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_connect_timeout 1s; proxy_read_timeout 2s;
proxy_next_upstream error timeout http_500 http_502 http_503 http_504; proxy_next_upstream_tries 3; }} }} }}
""")
    return [place.binaries["nginx"], "-c", conf, "-p", f]


def haproxy(place, ports, http, _):
    rest = "check inter 1s fall 2 rise 2 observe layer7 error-limit 3 on-error mark-down"
    servers = "\n".join(f"  server s{port} 127.0.0.1:{port} {rest}" for port in ports)
    conf = place.write("haproxy.cfg", f"""
global
  maxconn 8192
  nbthread 1
defaults
  mode http
  timeout connect 1s
  timeout client 75s
  timeout server 2s
  timeout check 1s
  http-reuse always
  retries 2
  retry-on all-retryable-errors 500
  option redispatch 1
frontend f
  bind 127.0.0.1:{http}
  default_backend b
backend b
  balance leastconn
  option httpchk GET /
{servers}
""")
    return [place.binaries["haproxy"], "-db", "-f", conf]


def envoy(place, ports, http, _):
    retry = {"retry_on": "5xx,reset,connect-failure", "num_retries": 2, "per_try_timeout": "2s", "host_selection_retry_max_attempts": 5,
             "retry_host_predicate": [{"name": "p", "typed_config": {"@type": TYPE + "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}]}
    cluster = {
        "name": "b", "type": "STATIC", "connect_timeout": "1s", "lb_policy": "LEAST_REQUEST",
        "load_assignment": {"cluster_name": "b", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}} for port in ports]}]},
        "health_checks": [{"timeout": "1s", "interval": "1s", "no_traffic_interval": "1s", "unhealthy_threshold": 2, "healthy_threshold": 2, "http_health_check": {"path": "/"}}],
        "outlier_detection": {"consecutive_5xx": 3, "consecutive_gateway_failure": 2, "enforcing_consecutive_gateway_failure": 100,
                              "interval": "1s", "base_ejection_time": "10s", "max_ejection_percent": 100}}
    manager = {"@type": TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "h",
               "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
                   {"match": {"prefix": "/"}, "route": {"cluster": "b", "timeout": "10s", "retry_policy": retry}}]}]},
               "http_filters": [{"name": "router", "typed_config": {"@type": HTTP + "router.v3.Router"}}]}
    conf = place.write("envoy.json", json.dumps({"static_resources": {"clusters": [cluster], "listeners": [
        {"name": "http", "address": address(http), "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}]}]}}))
    return [place.binaries["envoy"], "-c", conf, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]


ALL = {"heddle": heddle, "nginx": nginx, "haproxy": haproxy, "envoy": envoy}
