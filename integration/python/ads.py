"""A control plane on gRPC's own Python and Envoy's own messages: it serves what a file says and writes down what it is told.

ads.py ADDRESS STATE EVENTS [CERTIFICATE KEY ROOTS]

STATE is JSON, {message: [resource, ...]}, in the JSON mapping of protobuf, and is read again whenever it changes. EVENTS gets one line of JSON for each request.
With the last three it speaks TLS and demands a certificate of those roots.
"""
import asyncio
import hashlib
import importlib
import json
import os
import pkgutil
import re
import sys

import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.protobuf import any_pb2, json_format, symbol_database

TYPES = {
    "Cluster": "envoy.config.cluster.v3.Cluster",
    "ClusterLoadAssignment": "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "Secret": "envoy.extensions.transport_sockets.tls.v3.Secret",
    "Listener": "envoy.config.listener.v3.Listener",
    "RouteConfiguration": "envoy.config.route.v3.RouteConfiguration",
    "TypedExtensionConfig": "envoy.config.core.v3.TypedExtensionConfig",
}
WHOLE = ("Cluster", "Listener")
PREFIX = "type.googleapis.com/"


def message(name):
    """The class of a message; the modules of its package are loaded when it is asked for first."""
    package = importlib.import_module(name.rsplit(".", 1)[0])
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return symbol_database.Default().GetSymbol(name)


def read(text):
    """Resources by type and name, each with its version."""
    for name in set(re.findall(r'"type\.googleapis\.com/(envoy\.[\w.]+)"', text)):
        message(name)
    state = {}
    for short, resources in json.loads(text).items():
        of_type = state.setdefault(PREFIX + TYPES[short], {})
        for resource in resources:
            body = json_format.ParseDict(resource, message(TYPES[short])()).SerializeToString(deterministic=True)
            name = resource.get("name") or resource.get("cluster_name")
            of_type[name] = (hashlib.sha256(body).hexdigest()[:12], any_pb2.Any(type_url=PREFIX + TYPES[short], value=body))
    return state


class Told:
    """What one stream was told of one type."""

    def __init__(self, url):
        self.whole = url.removeprefix(PREFIX).rsplit(".", 1)[1] in WHOLE
        self.names, self.sent, self.absent, self.nonce, self.due = set(), {}, set(), 0, True

    def wanted(self, resources):
        return {name: one for name, one in resources.items() if self.whole or name in self.names}


class Delta:
    Response = discovery_pb2.DeltaDiscoveryResponse

    @staticmethod
    def hear(told, request, first):
        if first:
            told.sent = dict(request.initial_resource_versions)
        for name in request.resource_names_subscribe:
            told.names.add(name)
            if not first:
                told.sent.pop(name, None)
        told.due |= bool(request.resource_names_subscribe)
        for name in request.resource_names_unsubscribe:
            told.names.discard(name)
            told.sent.pop(name, None)
            told.absent.discard(name)

    @staticmethod
    def say(told, url, version, resources):
        wanted = told.wanted(resources)
        changed = {name: one for name, one in wanted.items() if told.sent.get(name) != one[0]}
        absent = set() if told.whole else told.names - set(wanted) - told.absent
        removed = (set(told.sent) - set(wanted)) | absent
        if not changed and not removed and not (told.due and told.nonce == 0):
            return None
        told.sent = {name: one[0] for name, one in wanted.items()}
        told.absent = (told.absent | absent) - set(wanted)
        response = Delta.Response(system_version_info=version, type_url=url, removed_resources=sorted(removed))
        for name, (of, body) in sorted(changed.items()):
            response.resources.add(name=name, version=of, resource=body)
        return response


class Sotw:
    Response = discovery_pb2.DiscoveryResponse

    @staticmethod
    def hear(told, request, first):
        names = set(request.resource_names)
        told.due |= names != told.names
        told.names = names

    @staticmethod
    def say(told, url, version, resources):
        wanted = told.wanted(resources)
        now = {name: one[0] for name, one in wanted.items()}
        if now == told.sent and not told.due:
            return None
        told.sent = now
        return Sotw.Response(version_info=version, type_url=url, resources=[body for _, body in wanted.values()])


class Ads(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):
    def __init__(self, path, events):
        self.path, self.events, self.seen = path, open(events, "a", buffering=1), None
        self.state, self.version, self.changed = {}, 0, asyncio.Condition()

    async def watch(self):
        while True:
            stamp = os.stat(self.path).st_mtime_ns if os.path.exists(self.path) else None
            if stamp is not None and stamp != self.seen:
                with open(self.path) as file:
                    self.state = read(file.read())
                self.seen, self.version = stamp, self.version + 1
                async with self.changed:
                    self.changed.notify_all()
            await asyncio.sleep(0.02)

    def note(self, way, request, error):
        node = json_format.MessageToDict(request.node) if request.HasField("node") else None
        event = {"way": way.__name__.lower(), "type": request.type_url.rsplit(".", 1)[-1], "nonce": request.response_nonce, "error": error, "node": node}
        if way is Delta:
            event["subscribe"] = sorted(request.resource_names_subscribe)
            event["initial"] = sorted(request.initial_resource_versions)
        self.events.write(json.dumps(event) + "\n")

    async def talk(self, way, requests, context):
        told = {}

        async def listen():
            async for request in requests:
                url, first = request.type_url, request.type_url not in told
                self.note(way, request, request.error_detail.message if request.HasField("error_detail") else None)
                one = told.setdefault(url, Told(url))
                # What answers an older response than the last one is no new question.
                if first or way is Delta or request.response_nonce == str(one.nonce):
                    way.hear(one, request, first)
                async with self.changed:
                    self.changed.notify_all()

        async def speak():
            while True:
                for url in [PREFIX + name for name in TYPES.values() if PREFIX + name in told]:
                    one = told[url]
                    response = way.say(one, url, str(self.version), self.state.get(url, {}))
                    one.due = False
                    if response is not None:
                        one.nonce += 1
                        response.nonce = str(one.nonce)
                        await context.write(response)
                async with self.changed:
                    try:
                        await asyncio.wait_for(self.changed.wait(), 0.05)
                    except asyncio.TimeoutError:
                        pass

        tasks = [asyncio.ensure_future(listen()), asyncio.ensure_future(speak())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            [task.cancel() for task in tasks]

    async def StreamAggregatedResources(self, requests, context):
        await self.talk(Sotw, requests, context)

    async def DeltaAggregatedResources(self, requests, context):
        await self.talk(Delta, requests, context)


async def main(address, path, events, *tls):
    server = grpc.aio.server()
    ads = Ads(path, events)
    ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(ads, server)
    if tls:
        certificate, key, roots = [open(name, "rb").read() for name in tls]
        server.add_secure_port(address, grpc.ssl_server_credentials([(key, certificate)], roots, require_client_auth=True))
    else:
        server.add_insecure_port(address)
    watching = asyncio.ensure_future(ads.watch())
    await server.start()
    ads.events.write(json.dumps({"serves": address}) + "\n")
    await watching


asyncio.run(main(*sys.argv[1:]))
