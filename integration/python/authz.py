"""Somebody who decides by gRPC for the stories: consents or refuses as the request asks for in `x-case`, and writes down each question.
With the files of a certificate and its key it is called over TLS."""

import json
import sys
import threading
from concurrent import futures

import grpc
from envoy.config.core.v3 import base_pb2 as base
from envoy.service.auth.v3 import external_auth_pb2 as auth
from envoy.service.auth.v3 import external_auth_pb2_grpc as service
from envoy.type.v3 import http_status_pb2 as status
from google.protobuf import json_format

address, log = sys.argv[1], sys.argv[2]
lock = threading.Lock()
Action = base.HeaderValueOption


def option(name, value, append=None, action=0):
    found = base.HeaderValueOption(header=base.HeaderValue(key=name, value=value), append_action=action)
    if append is not None:
        found.append.value = append
    return found


def consent(**more):
    response = auth.CheckResponse(ok_response=auth.OkHttpResponse(**more))
    response.status.code = 0
    return response


def refusal(code, headers=(), body="", error=False):
    said = auth.DeniedHttpResponse(status=status.HttpStatus(code=code), headers=headers, body=body)
    response = auth.CheckResponse(error_response=said) if error else auth.CheckResponse(denied_response=said)
    response.status.code = 7
    return response


def bare(code):
    response = auth.CheckResponse()
    response.status.code = code
    return response


CASES = {
    "edit": lambda: consent(
        headers=[
            option("x-user", "ann"),
            option("x-group", "b", append=True),
            option("x-new", "n", append=True),
            option("x-tenant", "over", action=Action.ADD_IF_ABSENT),
        ],
        headers_to_remove=["x-secret", ":path", "host"],
        response_headers_to_add=[
            option("x-seen", "1"),
            option("x-absent", "2", action=Action.ADD_IF_ABSENT),
            option("x-upstream", "3", action=Action.OVERWRITE_IF_EXISTS),
            option("x-lost", "4", action=Action.OVERWRITE_IF_EXISTS),
            option("x-set", "5", append=False),
        ],
        query_parameters_to_set=[base.QueryParameter(key="b", value="two"), base.QueryParameter(key="n", value="1")],
        query_parameters_to_remove=["gone"],
    ),
    "refuse": lambda: refusal(401, [option("set-cookie", "a=1"), option("set-cookie", "b=2"), option("x-why", "no")], "<p>no</p>"),
    "typed": lambda: refusal(403, [option("content-type", "text/html")], "<p>no</p>"),
    "moved": lambda: refusal(302, [option("location", "/login")]),
    "unsaid": lambda: refusal(0),
    "bare": lambda: bare(7),
    "unable": lambda: refusal(502, [option("x-why", "unable")], "unable", error=True),
}


class Judge(service.AuthorizationServicer):
    def Check(self, request, context):
        asked = json_format.MessageToDict(request.attributes, preserving_proto_field_name=True)
        asked["metadata"] = dict(context.invocation_metadata())
        with lock, open(log, "a") as file:
            file.write(json.dumps(asked) + "\n")
        case = request.attributes.request.http.headers.get("x-case", "")
        if case == "fail":
            context.abort(grpc.StatusCode.UNAVAILABLE, "not today")
        if case == "slow":
            ended = threading.Event()
            context.add_callback(ended.set)
            ended.wait()
        return CASES.get(case, consent)()


server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), options=[("grpc.so_reuseport", 0)])
service.add_AuthorizationServicer_to_server(Judge(), server)
if sys.argv[3:]:
    certificate, key = (open(path, "rb").read() for path in sys.argv[3:5])
    port = server.add_secure_port(address, grpc.ssl_server_credentials([(key, certificate)]))
else:
    port = server.add_insecure_port(address)
assert port, "the port is taken"
server.start()
print("serving", flush=True)
server.wait_for_termination()
