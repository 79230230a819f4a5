"""Requests at a fixed rate, whether or not answers come, and what became of each: when it was due, how long it took from then, whether it was answered well."""
import asyncio, json, sys, time

PATIENCE = 10
REQUEST = b"GET / HTTP/1.1\r\nhost: bench.example\r\n\r\n"


async def ask(idle, port):
    reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.split(b":", 1) for line in head.lower().split(b"\r\n")[1:] if b":" in line)
        if b"content-length" in fields:
            await reader.readexactly(int(fields[b"content-length"]))
        else:
            while int(await reader.readline(), 16):
                await reader.readuntil(b"\r\n")
            await reader.readline()
    except BaseException:
        writer.close()
        raise
    # A proxy may say that it will hear no more on this connection.
    if fields.get(b"connection", b"").strip() == b"close":
        writer.close()
    else:
        idle.append((reader, writer))
    return int(head.split(b" ", 2)[1])


async def one(idle, port, due, start, told):
    try:
        status = await asyncio.wait_for(ask(idle, port), PATIENCE)
    except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
        status = type(error).__name__
    told.append((due - start, time.monotonic() - due, status))


async def run(port, rate, seconds):
    idle, told, tasks = [], [], set()
    start = time.monotonic()
    print("begun", flush=True)
    for index in range(int(rate * seconds)):
        due = start + index / rate
        await asyncio.sleep(max(0, due - time.monotonic()))
        task = asyncio.create_task(one(idle, port, due, start, told))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    print(json.dumps(told))


asyncio.run(run(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
