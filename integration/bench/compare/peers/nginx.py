"""nginx.

Plugins: request-id as a map and two fields, cors and response-rewrite as `add_header`, ip-restriction as `allow`/`deny`, key-auth as a map from keys
to consumers, limit-count as `limit_req` (a rate, not a count: nginx has no other), proxy-rewrite as `proxy_set_header`, traffic-split as a map
to the upstream, redirect as `rewrite`, fault-injection as `if`.
"""
from scenario import CONSUMERS


def configure(place, scenario, http, https):
    to = place.upstreams[scenario.upstream]
    if scenario.upstream == "grpc":
        locations, more = "location / { grpc_pass grpc://b; }", ""
    else:
        locations, more = routes(scenario)
    f = place.folder
    conf = place.write("nginx.conf", f"""
daemon off; user {place.user}; worker_processes 1; worker_rlimit_nofile 20000; pid {f}/nginx.pid; error_log {f}/nginx.log;
events {{ worker_connections 8192; }}
http {{ access_log {f}/nginx-access.log combined buffer=32k; keepalive_requests 100000000; sendfile on; tcp_nodelay on; server_tokens off;
client_body_temp_path {f}/b; proxy_temp_path {f}/p; fastcgi_temp_path {f}/f; uwsgi_temp_path {f}/u; scgi_temp_path {f}/s;
upstream b {{ server 127.0.0.1:{to}; keepalive 512; keepalive_requests 100000000; }}
{more}
server {{ listen 127.0.0.1:{http} backlog=4096; listen 127.0.0.1:{https} ssl http2 backlog=4096; http2_max_requests 100000000;
ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {place.path('cert.pem')}; ssl_certificate_key {place.path('key.pem')};
{locations} }} }}
""")
    return [place.binaries["nginx"], "-c", conf, "-p", f]


def routes(scenario):
    """(locations, directives beside the server)."""
    fields = "proxy_http_version 1.1; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
    if scenario.upstream == "websocket":
        return f"""location / {{ proxy_pass http://b; {fields}
proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade"; }}""", ""
    fields += ' proxy_set_header Connection "";'
    if scenario.plugins:
        return plugins(fields)
    if scenario.routes == 1:
        return f"location / {{ proxy_pass http://b; {fields} }}", ""
    places = (f"location = /exact/{n}" if n % 2 == 0 else f"location /tree/{n}/" for n in range(scenario.routes))
    # The fields are inherited from the server, so a location is as small as it can be.
    return fields + "\n" + "\n".join(f"{place} {{ proxy_pass http://b; }}" for place in places), ""


def plugins(fields):
    consumers = " ".join(f"bench-key-{n} consumer{n};" for n in range(CONSUMERS))
    return f"""location / {{
allow 127.0.0.0/8; allow 10.0.0.0/8; deny all;
limit_req zone=l burst=1000000 nodelay;
if ($consumer = "") {{ return 401; }}
if ($arg_fault = 1) {{ return 503; }}
rewrite ^/old/(.*)$ /new/$1 redirect;
proxy_pass http://$group; {fields}
proxy_set_header X-Request-Id $rid; proxy_set_header X-Consumer-Username $consumer; proxy_set_header X-Client $remote_addr;
add_header X-Request-Id $rid always; add_header X-Served-By bench always;
add_header Access-Control-Allow-Origin * always; add_header Access-Control-Allow-Methods * always;
add_header Access-Control-Allow-Headers * always; add_header Access-Control-Max-Age 5 always; }}""", f"""
upstream canary {{ server 127.0.0.1:9; }}
limit_req_zone $binary_remote_addr zone=l:10m rate=1000000r/s;
map $http_apikey $consumer {{ default ""; {consumers} }}
map $http_x_request_id $rid {{ default $http_x_request_id; "" $request_id; }}
map $http_x_canary $group {{ default b; 1 canary; }}"""
