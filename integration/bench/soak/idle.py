#!/usr/bin/env python3
"""What one connection at rest holds: memory of the process with many connections that each made one request, less that before, over their number.

  integration/bench/soak/idle.py [--connections 4000] [--kinds h1,tls] [--heddle BINARY] [--rest 4]
"""
import argparse, resource, socket, ssl, time
from rig import BINARY, Rig

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: idle/1\r\nAccept: */*\r\n\r\n"


def connect(rig, kind):
    if kind == "h1":
        return socket.create_connection(("127.0.0.1", rig.http))
    context = ssl.create_default_context(cafile=rig.path("cert.pem"))
    context.set_alpn_protocols(["http/1.1"])
    plain = socket.create_connection(("127.0.0.1", rig.https))
    return context.wrap_socket(plain, server_hostname="localhost")


def ask(client):
    client.sendall(REQUEST)
    answer = b""
    while not answer.endswith(b"x" * 60):
        piece = client.recv(65536)
        if not piece:
            raise SystemExit(f"closed after {answer!r}")
        answer += piece


def measure(rig, kind, count, rest):
    """KiB of resident memory per connection at rest."""
    for _ in range(200):
        with connect(rig, kind) as warm:
            ask(warm)
    time.sleep(rest)
    before = rig.rss_kib()
    clients = []
    for _ in range(count):
        clients.append(connect(rig, kind))
        ask(clients[-1])
    peak = rig.rss_kib()
    time.sleep(rest)
    after = rig.rss_kib()
    for client in clients:
        client.close()
    time.sleep(rest)
    return {"kind": kind, "start_mib": before / 1024, "each_kib": (after - before) / count, "at_once_kib": (peak - before) / count,
            "after_mib": rig.rss_kib() / 1024}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=4000)
    parser.add_argument("--kinds", default="h1,tls")
    parser.add_argument("--heddle", default=BINARY)
    parser.add_argument("--rest", type=float, default=4)
    args = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for kind in args.kinds.split(","):
        with Rig(args.heddle) as rig:
            found = measure(rig, kind, args.connections, args.rest)
        print("{kind}: {each_kib:.2f} KiB per connection at rest ({at_once_kib:.2f} just after its request); process: {start_mib:.1f} MiB before, "
              "{after_mib:.1f} after all have closed".format(**found), flush=True)


if __name__ == "__main__":
    main()
