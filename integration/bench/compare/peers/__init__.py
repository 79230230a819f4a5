"""The proxies: one file each, with the same function `configure(place, scenario, http, https) -> command`, which writes the configuration and gives
the command line. Each has one worker, writes an access log, keeps connections to its upstream, and adds X-Forwarded-For where it can."""
from . import envoy, haproxy, heddle, nginx

ALL = {"heddle": heddle.configure, "nginx": nginx.configure, "haproxy": haproxy.configure, "envoy": envoy.configure}
