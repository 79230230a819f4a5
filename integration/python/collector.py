"""A collector of OTLP traces: prints the length of each export and every id found in it, one line per export."""

import sys
from concurrent import futures

import grpc


def export(request, _context):
    print("export", request.hex(), flush=True)
    return b""


class Traces(grpc.GenericRpcHandler):
    def service(self, call):
        if call.method == "/opentelemetry.proto.collector.trace.v1.TraceService/Export":
            return grpc.unary_unary_rpc_method_handler(export)
        return None


server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((Traces(),))
server.add_insecure_port(sys.argv[1])
server.start()
print("serving", flush=True)
server.wait_for_termination()
