"""gRPC without a proxy, for the stories: a server, or a client that is told by its control plane where to go. `GRPC_XDS_BOOTSTRAP` names its bootstrap.

A client makes a call for each line of its input (a method, and a metadata field when it likes), and prints what came of it as JSON.
"""

import collections
import json
import sys
from concurrent import futures

import grpc
from grpc.experimental import insecure_channel_credentials


def server(address, saying, kind):
    asked = collections.Counter()

    def unary(request, context):
        # `x-busy: NAME/2`: too busy for the first two calls of that name.
        name, _, times = dict(context.invocation_metadata()).get("x-busy", "").partition("/")
        asked[name] += 1
        if times and asked[name] <= int(times):
            context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
        context.set_trailing_metadata((("x-saying", saying),))
        return request

    class Echo(grpc.GenericRpcHandler):
        def service(self, details):
            if details.method.startswith("/story.Echo/"):
                return grpc.unary_unary_rpc_method_handler(unary)

    served = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=[("grpc.so_reuseport", 0)], xds=kind != "plain")
    served.add_generic_rpc_handlers((Echo(),))
    if kind == "mtls":
        credentials = grpc.xds_server_credentials(grpc.insecure_server_credentials())
        assert served.add_secure_port(address, credentials), "the port is taken"
    else:
        assert served.add_insecure_port(address), "the port is taken"
    served.start()
    print("serving", flush=True)
    served.wait_for_termination()


def client(target, kind):
    if kind == "mtls":
        channel = grpc.secure_channel(target, grpc.xds_channel_credentials(insecure_channel_credentials()))
    else:
        channel = grpc.insecure_channel(target)
    print("ready", flush=True)
    for line in sys.stdin:
        method, *fields = line.split()
        metadata = [tuple(field.split("=", 1)) for field in fields]
        try:
            _, done = channel.unary_unary(f"/story.Echo/{method}").with_call(b"x", timeout=10, metadata=metadata)
            told = {"saying": dict(done.trailing_metadata()).get("x-saying")}
        except grpc.RpcError as error:
            told = {"code": error.code().name, "details": error.details()}
        print(json.dumps(told), flush=True)


role, *rest = sys.argv[1:]
if role == "serve":
    server(*rest)
else:
    client(*rest)
