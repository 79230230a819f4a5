"""An endpoint that can be told to misbehave: `ok`, `slow SECONDS` or `status CODE`, a line each on standard input. Answers after a millisecond."""
import asyncio, sys

USUAL = 0.001
BODY = b"x" * 60


class Mood:
    delay, status = USUAL, 200


async def serve(mood, reader, writer):
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            # Health checks are answered as requests are: what is broken is broken for both.
            await asyncio.sleep(mood.delay)
            writer.write(b"HTTP/1.1 %d Said\r\ncontent-length: %d\r\n\r\n%s" % (mood.status, len(BODY), b"" if head.startswith(b"HEAD") else BODY))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def listen(port):
    mood = Mood()
    server = await asyncio.start_server(lambda reader, writer: serve(mood, reader, writer), "127.0.0.1", port, backlog=1024)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    async with server:
        while order := (await orders.readline()).decode().split():
            mood.delay = float(order[1]) if order[0] == "slow" else USUAL
            mood.status = int(order[1]) if order[0] == "status" else 200


asyncio.run(listen(int(sys.argv[1])))
