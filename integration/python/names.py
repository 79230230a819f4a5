"""A name server as a Kubernetes has one: `names.py NAME=ADDRESS …` answers these, by UDP, and says of all others that there is no such name."""

import socket
import struct
import sys

known = dict(argument.split("=") for argument in sys.argv[1:])
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 53))
print("listening", flush=True)
while True:
    packet, asker = server.recvfrom(4096)
    labels, at = [], 12
    while length := packet[at]:
        labels.append(packet[at + 1 : at + 1 + length].decode().lower())
        at += 1 + length
    question, name = packet[12 : at + 5], ".".join(labels)
    kind = struct.unpack_from("!H", packet, at + 1)[0]
    print(name, kind, flush=True)
    answers = b""
    if kind == 1 and name in known:
        answers = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + socket.inet_aton(known[name])
    code = 0x8180 if name in known else 0x8183
    server.sendto(packet[:2] + struct.pack("!HHHHH", code, 1, 1 if answers else 0, 0, 0) + question + answers, asker)
