"""A gRPC client for the stories: makes one kind of call and prints what came of it as JSON."""

import json
import queue
import sys

import grpc

story, address = sys.argv[1], sys.argv[2]
if len(sys.argv) > 3:
    with open(sys.argv[3], "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    channel = grpc.secure_channel(address, credentials, options=[("grpc.ssl_target_name_override", "grpc.example")])
else:
    channel = grpc.insecure_channel(address)


def told(error):
    return {"code": error.code().name, "details": error.details(), "trailers": texts(error.trailing_metadata())}


def texts(metadata):
    return {key: value if isinstance(value, str) else value.hex() for key, value in metadata or ()}


def unary():
    call = channel.unary_unary("/story.Echo/Unary")
    body, done = call.with_call(b"x" * 100_000, timeout=20, metadata=(("x-asked", "yes"),))
    return {"length": len(body), "initial": texts(done.initial_metadata()), "trailers": texts(done.trailing_metadata())}


def unary_error():
    try:
        return unary()
    except grpc.RpcError as error:
        return told(error)


def fail():
    try:
        channel.unary_unary("/story.Echo/Fail")(b"", timeout=20)
    except grpc.RpcError as error:
        return told(error)


def missing():
    try:
        channel.unary_unary("/story.Echo/Nothing")(b"", timeout=20)
    except grpc.RpcError as error:
        return told(error)


def deadline():
    try:
        channel.unary_unary("/story.Echo/Hang")(b"", timeout=0.5)
    except grpc.RpcError as error:
        return told(error)


def cancel():
    future = channel.unary_unary("/story.Echo/Hang").future(b"", timeout=20)
    print("calling", flush=True)
    sys.stdin.readline()
    future.cancel()
    return {"cancelled": future.cancelled()}


def talk():
    # Each message waits for the answer to the one before: it only works when both directions flow at the same time.
    waiting = queue.Queue()
    answers = channel.stream_stream("/story.Echo/Talk")(iter(waiting.get, None), timeout=20)
    heard = []
    for number in range(50):
        waiting.put(f"{number}-".encode())
        heard.append(next(answers).decode())
    waiting.put(None)
    rest = list(answers)
    return {"heard": len(heard), "last": heard[-1], "rest": len(rest), "code": answers.code().name}


print(json.dumps(globals()[story]()), flush=True)
