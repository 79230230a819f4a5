"""What a control plane says of its clients: client status discovery, on gRPC's own Python and Envoy's own messages.

status.py ADDRESS KEY fetch|stream [NODE]

Prints the answer in the JSON mapping of protobuf, or `{"error": CODE}`.
"""
import json
import pkgutil
import importlib
import sys

import grpc
from envoy.service.status.v3 import csds_pb2, csds_pb2_grpc
from google.protobuf import json_format

# The messages that contents are made of.
for package in (
    "envoy.config.listener.v3",
    "envoy.config.cluster.v3",
    "envoy.config.route.v3",
    "envoy.config.endpoint.v3",
    "envoy.extensions.filters.network.http_connection_manager.v3",
    "envoy.extensions.filters.http.router.v3",
    "envoy.extensions.upstreams.http.v3",
    "envoy.extensions.filters.listener.tls_inspector.v3",
):
    module = importlib.import_module(package)
    for found in pkgutil.iter_modules(module.__path__):
        importlib.import_module(f"{package}.{found.name}")


def main():
    address, key, way, *nodes = sys.argv[1:]
    request = csds_pb2.ClientStatusRequest()
    for node in nodes:
        request.node_matchers.add().node_id.exact = node
    metadata = [("x-api-key", key)] if key else []
    with grpc.insecure_channel(address) as channel:
        stub = csds_pb2_grpc.ClientStatusDiscoveryServiceStub(channel)
        try:
            if way == "fetch":
                answers = [stub.FetchClientStatus(request, metadata=metadata, timeout=20)]
            else:
                answers = list(stub.StreamClientStatus(iter([request, request]), metadata=metadata, timeout=20))
        except grpc.RpcError as error:
            print(json.dumps({"error": error.code().name}))
            return
    print(json.dumps([json_format.MessageToDict(answer, preserving_proto_field_name=True) for answer in answers]))


main()
