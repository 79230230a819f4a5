"""Mixed clients of a gateway, each kind at its own bounded rate until told to stop: they count what they did and what went wrong. They change nothing."""
import asyncio, base64, hashlib, os, random, ssl, subprocess, threading

BODY = b"x" * 60
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PATIENCE = 20


class Load:
    """Clients against a rig, about `rate` requests a second over all kinds."""

    def __init__(self, rig, rate, echo_port):
        self.rig, self.rate, self.echo_port = rig, rate, echo_port
        self.counts, self.faults = {}, {}
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.flood, args=(name, flags), daemon=True) for name, flags in self.floods()]
        self.threads.append(threading.Thread(target=lambda: asyncio.run(self.odd_ones()), daemon=True))

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(PATIENCE)

    def count(self, kind, number=1):
        self.counts[kind] = self.counts.get(kind, 0) + number

    def fault(self, kind, what):
        if not self.stopping.is_set():
            key = f"{kind}: {what}"
            self.faults[key] = self.faults.get(key, 0) + 1

    # Plain requests in numbers: rounds of h2load, so that connections come and go.

    def floods(self):
        http, https = f"http://127.0.0.1:{self.rig.http}", f"https://localhost:{self.rig.https}"
        share = max(self.rate / 4, 8)
        return [
            ("h1 keep-alive", ["--h1", "-c8", f"--rps={share / 8:.0f}", http + "/"]),
            ("h1 64 KiB", ["--h1", "-c4", f"--rps={max(share / 16, 1):.0f}", http + "/64k"]),
            ("h1 over TLS", ["--h1", "-c8", f"--rps={share / 8:.0f}", https + "/"]),
            ("h2", ["-c4", "-m8", f"--rps={share / 4:.0f}", https + "/"]),
        ]

    def flood(self, kind, flags):
        while not self.stopping.is_set():
            seconds = random.randint(4, 9)
            out = subprocess.run(["nice", "-n", "10", "h2load", f"-D{seconds}", *flags], capture_output=True, text=True).stdout
            for line in out.splitlines():
                if line.startswith("requests:"):
                    words = line.replace(",", "").split()
                    done = {words[i + 1]: int(words[i]) for i in range(1, len(words) - 1, 2)}
                    self.count(kind, done["succeeded"])
                    if done["failed"] or done["errored"]:
                        self.fault(kind, f"{done['failed']} failed, {done['errored']} errored of a round")

    # The odd ones, by hand.

    async def odd_ones(self):
        per_second = max(self.rate / 50, 4)
        server = await asyncio.start_server(self.echo, "127.0.0.1", self.echo_port)
        kinds = [
            (self.short, per_second), (self.short_tls, per_second / 2), (self.changing_route, per_second), (self.upload, per_second / 8),
            (self.upload_chunked, per_second / 8), (self.abort_download, per_second / 8), (self.abort_upload, per_second / 8),
            (self.abort_head, per_second / 4), (self.slow_reader, 0.5), (self.websocket, 1),
        ]
        await asyncio.gather(*(self.pace(one, rate) for one, rate in kinds))
        server.close()

    async def pace(self, one, rate):
        running = set()
        while not self.stopping.is_set():
            await asyncio.sleep(random.expovariate(rate))
            if len(running) > 64:
                continue
            task = asyncio.create_task(self.attempt(one))
            running.add(task)
            task.add_done_callback(running.discard)

    async def attempt(self, one):
        kind = one.__name__.replace("_", " ")
        try:
            await asyncio.wait_for(one(), 60)
            self.count(kind)
        except (OSError, AssertionError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
            self.fault(kind, f"{type(error).__name__} {error}"[:120])

    async def connect(self, tls=False):
        if not tls:
            return await asyncio.open_connection("127.0.0.1", self.rig.http)
        context = ssl.create_default_context(cafile=self.rig.path("cert.pem"))
        return await asyncio.open_connection("127.0.0.1", self.rig.https, ssl=context, server_hostname="localhost")

    async def ask(self, path, tls=False, status=b"200"):
        reader, writer = await self.connect(tls)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read(-1)
        assert status is None or answer.startswith(b"HTTP/1.1 " + status), answer[:60]
        writer.close()

    async def short(self):
        await self.ask("/")

    async def short_tls(self):
        await self.ask("/", tls=True)

    async def changing_route(self):
        # It may be there or not, or want a key, or be limited: what counts is that there is an answer.
        await self.ask(f"/soak/{random.randrange(40)}/x", status=None)

    async def post(self, length, send):
        reader, writer = await self.connect()
        framing = f"Content-Length: {length}" if length is not None else "Transfer-Encoding: chunked"
        writer.write(f"POST /upload HTTP/1.1\r\nHost: localhost\r\n{framing}\r\nConnection: close\r\n\r\n".encode())
        await send(writer)
        answer = await reader.read(-1)
        assert answer.startswith(b"HTTP/1.1 200"), answer[:60]
        writer.close()

    async def upload(self):
        length = random.randrange(1, 1 << 20)

        async def send(writer):
            for start in range(0, length, 65536):
                writer.write(b"u" * min(65536, length - start))
                await writer.drain()
        await self.post(length, send)

    async def upload_chunked(self):
        async def send(writer):
            for _ in range(random.randrange(1, 30)):
                size = random.randrange(1, 30000)
                writer.write(b"%x\r\n" % size + b"c" * size + b"\r\n")
                await writer.drain()
            writer.write(b"0\r\n\r\n")
        await self.post(None, send)

    async def abort_download(self):
        reader, writer = await self.connect(tls=random.random() < 0.3)
        writer.write(b"GET /8m HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readexactly(random.randrange(1, 200000))
        writer.transport.abort()

    async def abort_upload(self):
        _, writer = await self.connect()
        writer.write(b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" + b"a" * random.randrange(100000))
        await writer.drain()
        writer.transport.abort()

    async def abort_head(self):
        _, writer = await self.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: loc"[:random.randrange(1, 24)])
        await writer.drain()
        await asyncio.sleep(random.random())
        writer.transport.abort()

    async def slow_reader(self):
        reader, writer = await self.connect()
        reader._limit = 4096
        writer.write(b"GET /8m HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        for _ in range(random.randrange(20, 150)):
            assert await reader.read(16384), "ended early"
            await asyncio.sleep(0.1)
        writer.transport.abort()

    async def websocket(self):
        reader, writer = await self.connect()
        key = base64.b64encode(os.urandom(16))
        writer.write(b"GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head[:60]
        for _ in range(random.randrange(1, 20)):
            # A masked text frame of 100 bytes; the backend gives its bytes back as they are.
            frame = b"\x81\xe4" + os.urandom(104)
            writer.write(frame)
            assert await reader.readexactly(len(frame)) == frame, "another echo"
            await asyncio.sleep(random.random() * 2)
        writer.close()

    async def echo(self, reader, writer):
        """A backend that takes the handshake of a WebSocket and then gives back every byte."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            key = next(line.split(b":", 1)[1].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
            accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n")
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, StopIteration):
            pass
        finally:
            writer.close()
