"""Stands between an API server and a webhook and keeps what goes by, byte for byte; and a second webhook, which adds a container to pods."""
import base64
import http.client
import http.server
import json
import ssl
import threading

# What other webhooks do to pods, so that the API server asks the first one again.
ADD = [{"op": "add", "path": "/spec/containers/-", "value": {"name": "logger", "image": "logger:1", "ports": [{"containerPort": 9100}]}}]


class Recorder:
    def __init__(self, port, upstream, certificate, key, ca, server_name):
        self.kept, self.connections, self.lock = [], 0, threading.Lock()
        recorder, context = self, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        trust = ssl.create_default_context(cafile=str(ca))

        class Named(http.client.HTTPSConnection):
            """Comes to a port of loopback and asks for the name of the Service, as API servers do."""

            def connect(self):
                http.client.HTTPConnection.connect(self)
                self.sock = trust.wrap_socket(self.sock, server_hostname=server_name)

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                with recorder.lock:
                    recorder.connections += 1

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path.startswith("/second"):
                    return self.respond(200, "application/json", second(body))
                onward = Named("127.0.0.1", upstream, timeout=10)
                onward.request("POST", self.path, body, {"Content-Type": self.headers["Content-Type"], "Accept": self.headers.get("Accept", "")})
                answer = onward.getresponse()
                text = answer.read()
                with recorder.lock:
                    recorder.kept.append({"path": self.path, "headers": dict(self.headers), "asked": body, "status": answer.status, "answered": text})
                self.respond(answer.status, answer.headers["Content-Type"], text)
                onward.close()

            def respond(self, status, kind, text):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self):
        """What was asked since the last time."""
        with self.lock:
            kept, self.kept = self.kept, []
        return kept


def second(body):
    review = json.loads(body)
    pod = review["request"]["object"]
    response = {"uid": review["request"]["uid"], "allowed": True}
    if not any(one["name"] == "logger" for one in pod["spec"]["containers"]):
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(ADD).encode()).decode()}
    return json.dumps({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}).encode()
