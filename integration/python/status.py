"""What a control plane says of its clients: client status discovery, on gRPC's own Python and Envoy's own messages.

status.py ADDRESS KEY fetch|stream [NODE]

Prints the answer in the JSON mapping of protobuf, or `{"error": CODE}`.
"""
import importlib
import json
import pkgutil
import re
import sys

import grpc
from envoy.service.status.v3 import csds_pb2, csds_pb2_grpc
from google.protobuf import json_format


def as_dict(answer):
    """The answer in JSON's mapping. The messages that contents are made of are loaded when one turns out to be missing."""
    missing = set()
    while True:
        try:
            return json_format.MessageToDict(answer, preserving_proto_field_name=True)
        except (KeyError, TypeError) as error:
            name = re.search(r"(envoy(?:\.\w+)+)\.\w+", f"{error} {error.__cause__}")
            if name is None or name[1] in missing:
                raise
            missing.add(name[1])
            package = importlib.import_module(name[1])
            for found in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{name[1]}.{found.name}")


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
    print(json.dumps([as_dict(answer) for answer in answers]))


main()
