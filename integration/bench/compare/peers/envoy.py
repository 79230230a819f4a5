"""Envoy.

Routes are a matcher tree with an exact and a prefix map (a plain list is searched one by one, which would flatter everybody else). Plugins:
request-id is Envoy's own, fault-injection, cors, ip-restriction (RBAC by source address), key-auth (`api_key_auth`), limit-count (local rate limit, a token
bucket) are its filters; proxy-rewrite and response-rewrite are fields of the route, traffic-split and redirect routes of their own.
"""
import json

from processes import free_port
from scenario import CONSUMERS

TYPE = "type.googleapis.com/"
HTTP = TYPE + "envoy.extensions.filters.http."


def configure(place, scenario, http, https):
    if scenario.mesh:
        return mesh(place, scenario, http)
    cluster = {"name": "b", "type": "STATIC", "load_assignment": {"cluster_name": "b", "endpoints": [{"lb_endpoints": [
        {"endpoint": {"address": address(place.upstreams[scenario.upstream])}}]}]}}
    if scenario.upstream == "grpc":
        cluster["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": TYPE + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}}
    chain = {"filters": [{"name": "hcm", "typed_config": manager(place, scenario)}]}
    tls = {"name": "tls", "typed_config": {
        "@type": TYPE + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [
            {"certificate_chain": {"filename": place.path("cert.pem")}, "private_key": {"filename": place.path("key.pem")}}]}}}
    # JSON is YAML, and reading it is fast.
    conf = place.write("envoy.json", json.dumps({"static_resources": {"clusters": [cluster], "listeners": [
        {"name": "http", "address": address(http), "filter_chains": [chain]},
        {"name": "https", "address": address(https), "filter_chains": [chain | {"transport_socket": tls}]}]}}))
    return [place.binaries["envoy"], "-c", conf, "--concurrency", "1", "--disable-hot-restart", "-l", "error"]


def mesh(place, scenario, http):
    """Two of them, with mutual TLS 1.3 and HTTP/2 in between, each checking the SPIFFE id of the other."""
    port = free_port()
    files = {name: {"filename": path} for name, path in place.workloads(("client", "server")).items()}
    inward = {"name": "tls", "typed_config": {
        "@type": TYPE + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", "require_client_certificate": True,
        "common_tls_context": context(files, "server", "client")}}
    outward = {"name": "tls", "typed_config": {
        "@type": TYPE + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "common_tls_context": context(files, "client", "server")}}
    h2 = {"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": TYPE + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}}}
    server = one_listener(place, scenario, port, place.upstreams[scenario.upstream], {"transport_socket": inward}, {})
    client = one_listener(place, scenario, http, port, {}, h2 | {"transport_socket": outward})
    command = lambda name, conf: [place.binaries["envoy"], "-c", place.write(name, json.dumps(conf)), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    place.join(command("envoy-server.json", server), port)
    return command("envoy-client.json", client)


def one_listener(place, scenario, listens, leads, chain, cluster):
    return {"static_resources": {
        "clusters": [{"name": "b", "type": "STATIC", **cluster, "load_assignment": {"cluster_name": "b", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address(leads)}}]}]}}],
        "listeners": [{"name": "l", "address": address(listens), "filter_chains": [
            {"filters": [{"name": "hcm", "typed_config": manager(place, scenario)}], **chain}]}]}}


def context(files, own, peer):
    return {"alpn_protocols": ["h2"], "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3", "ecdh_curves": ["X25519MLKEM768", "X25519"]},
            "tls_certificates": [{"certificate_chain": files[f"{own}.pem"], "private_key": files[f"{own}.key"]}],
            "validation_context": {"trusted_ca": files["roots.pem"], "match_typed_subject_alt_names": [
                {"san_type": "URI", "matcher": {"exact": f"spiffe://bench.example/ns/default/svc/{peer}"}}]}}


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def manager(place, scenario):
    host = {"name": "v", "domains": ["*"]}
    if scenario.plugins:
        host["routes"] = plugin_routes()
    elif scenario.routes == 1:
        host["routes"] = [route({"prefix": "/"})]
    else:
        host["matcher"] = tree(scenario)
    filters = plugin_filters() if scenario.plugins else []
    return {
        "@type": TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "h",
        "use_remote_address": True, "always_set_request_id_in_response": scenario.plugins,
        "upgrade_configs": [{"upgrade_type": "websocket"}] if scenario.upstream == "websocket" else [],
        "access_log": [{"name": "a", "typed_config": {"@type": TYPE + "envoy.extensions.access_loggers.file.v3.FileAccessLog",
                                                      "path": place.path("envoy-access.log")}}],
        "route_config": {"virtual_hosts": [host]},
        "http_filters": [*filters, {"name": "router", "typed_config": {"@type": HTTP + "router.v3.Router"}}]}


def route(match, **more):
    return {"match": match, "route": {"cluster": "b"}, **more}


def tree(scenario):
    def action(match):
        return {"action": {"name": "route", "typed_config": {"@type": TYPE + "envoy.config.route.v3.Route", **route(match)}}}
    path = {"name": "path", "typed_config": {"@type": TYPE + "envoy.type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": ":path"}}
    exact = {f"/exact/{n}": action({"path": f"/exact/{n}"}) for n in range(0, scenario.routes, 2)}
    prefixes = {f"/tree/{n}/": action({"prefix": f"/tree/{n}/"}) for n in range(1, scenario.routes, 2)}
    return {"matcher_tree": {"input": path, "exact_match_map": {"map": exact}},
            "on_no_match": {"matcher": {"matcher_tree": {"input": path, "prefix_match_map": {"map": prefixes}}}}}


def plugin_routes():
    def set_header(name, value):
        return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    cors = {"envoy.filters.http.cors": {"@type": HTTP + "cors.v3.CorsPolicy", "allow_origin_string_match": [{"safe_regex": {"regex": ".*"}}],
                                        "allow_methods": "*", "allow_headers": "*", "max_age": "5"}}
    canary = {"prefix": "/", "headers": [{"name": "x-canary", "string_match": {"exact": "1"}}]}
    old = {"match": {"safe_regex": {"regex": "/old/.*"}}, "redirect": {"prefix_rewrite": "/new/"}}
    return [old, route(canary), route(
        {"prefix": "/"}, typed_per_filter_config=cors,
        request_headers_to_add=[set_header("x-client", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%")],
        response_headers_to_add=[set_header("x-served-by", "bench")])]


def plugin_filters():
    def http_filter(name, kind, **config):
        return {"name": name, "typed_config": {"@type": HTTP + kind, **config}}
    fault = {"abort": {"http_status": 503, "percentage": {"numerator": 100}}, "headers": [{"name": "x-fault", "string_match": {"exact": "1"}}]}
    networks = [{"remote_ip": {"address_prefix": ip, "prefix_len": bits}} for ip, bits in (("127.0.0.0", 8), ("10.0.0.0", 8))]
    always = {"default_value": {"numerator": 100}, "runtime_key": "bench"}
    return [
        http_filter("envoy.filters.http.fault", "fault.v3.HTTPFault", **fault),
        http_filter("envoy.filters.http.cors", "cors.v3.Cors"),
        http_filter("envoy.filters.http.rbac", "rbac.v3.RBAC", rules={"action": "ALLOW", "policies": {
            "here": {"permissions": [{"any": True}], "principals": networks}}}),
        http_filter("envoy.filters.http.api_key_auth", "api_key_auth.v3.ApiKeyAuth", key_sources=[{"header": "apikey"}],
                    credentials=[{"key": f"bench-key-{n}", "client": f"consumer{n}"} for n in range(CONSUMERS)],
                    forwarding={"header": "x-consumer-username"}),
        http_filter("envoy.filters.http.local_ratelimit", "local_ratelimit.v3.LocalRateLimit", stat_prefix="l",
                    token_bucket={"max_tokens": 1000000000, "tokens_per_fill": 1000000000, "fill_interval": "60s"},
                    filter_enabled=always, filter_enforced=always)]
