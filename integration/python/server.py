"""A gRPC server for the stories: echoes bytes, fails on demand, and tells when a call was cancelled."""

import sys
import threading
from concurrent import futures

import grpc


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        handlers = {
            "/story.Echo/Unary": grpc.unary_unary_rpc_method_handler(unary),
            "/story.Echo/Fail": grpc.unary_unary_rpc_method_handler(fail),
            "/story.Echo/Hang": grpc.unary_unary_rpc_method_handler(hang),
            "/story.Echo/Talk": grpc.stream_stream_rpc_method_handler(talk),
        }
        return handlers.get(details.method)


def unary(request, context):
    told = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-seen", told.get("x-asked", "-")),))
    context.set_trailing_metadata((("x-trailer", "last"), ("x-data-bin", b"\x00\xff")))
    return request


def fail(request, context):
    context.set_trailing_metadata((("x-trailer", "failed"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today: ä")


def hang(request, context):
    ended = threading.Event()
    context.add_callback(ended.set)
    print("hanging", flush=True)
    ended.wait()
    print("cancelled", flush=True)
    return request


def talk(requests, context):
    for request in requests:
        yield request[::-1]


server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), options=[("grpc.so_reuseport", 0)])
server.add_generic_rpc_handlers((Echo(),))
assert server.add_insecure_port(sys.argv[1]), "the port is taken"
server.start()
print("serving", flush=True)
server.wait_for_termination()
