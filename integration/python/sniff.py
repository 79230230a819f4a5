"""Writes down every frame that passes the interfaces of this network namespace."""

import socket
import sys

frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(0x0003))
with open(sys.argv[1], "wb", 0) as seen:
    print("listening", flush=True)
    while True:
        seen.write(frames.recv(65535))
