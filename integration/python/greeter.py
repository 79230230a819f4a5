"""A server of plain TCP that speaks first, as those of mail do, then echoes; or a client of it, which prints what it was told."""

import socket
import sys
import threading


def serve(stream):
    with stream:
        stream.sendall(b"220 ready\r\n")
        while data := stream.recv(4096):
            stream.sendall(data)


kind, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
if kind == "serve":
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    print("listening", flush=True)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
else:
    with socket.create_connection((host, port), timeout=10) as stream, stream.makefile("rwb") as lines:
        print(lines.readline().decode().strip())
        lines.write(sys.argv[4].encode() + b"\n")
        lines.flush()
        print(lines.readline().decode().strip())
