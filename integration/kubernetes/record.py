"""Lets a real kube-apiserver ask a real control plane's admission webhook, says what comes of it, and keeps the questions.

record.py --apiserver FILE --heddle FILE [--into FOLDER] [--flag=--APISERVER-FLAG=VALUE]...

Nothing but loopback is used; etcd has to be on the path. With --into, each question is written there as the API server sent it (spaces and line
ends apart), for sidecar/src/webhook/tests. What the API server says of each object is printed, and everything else is in the folder named first.
"""
import argparse
import base64
import json
import os
import pathlib
import signal
import ssl
import subprocess
import sys
import urllib.request

from cluster import ISSUER, Cluster, free_port, signed, temporary, until
from recorder import Recorder

SYSTEM, SERVICE = "heddle-system", "heddle"
REPLICA_SETS = "system:serviceaccount:kube-system:replicaset-controller"
LABEL = "heddle.io/inject"
HOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


def pod(name, labels=None, annotations=None, **spec):
    ports = [{"name": "http", "containerPort": 8080}]
    container = {"name": "web", "image": "registry.example/web:1.4", "ports": ports, "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}}}
    metadata = {"labels": {"app": "web", **(labels or {})}, "annotations": annotations or {}}
    metadata["generateName" if name.endswith("-") else "name"] = name
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"serviceAccountName": "web", "containers": [container], **spec}}


def inits(made):
    """The init containers of an object, wherever its template is."""
    spec = made.get("spec") or {}
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    spec = spec.get("template", {}).get("spec", spec)
    return [one["name"] + (" (native)" if one.get("restartPolicy") == "Always" else "") for one in spec.get("initContainers", [])]


class Story:
    def __init__(self, arguments):
        self.folder, self.arguments = temporary(), arguments
        print("folder:", self.folder)
        self.cluster = Cluster(self.folder, arguments.apiserver, arguments.flag)
        print("kube-apiserver:", self.cluster.version)

    def prepare(self):
        """Namespaces, accounts, a Service whose address is loopback, and what the control plane may do."""
        api = self.cluster
        for name, word in [(SYSTEM, None), ("shop", "true"), ("plain", None), ("off", "false"), ("kube-system", None)]:
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {LABEL: word} if word else {}}}
            until(f"namespace {name}", lambda: api.ask("POST", "/api/v1/namespaces", namespace)[0] in (201, 409))
            for account in ("default", "web", SERVICE):
                value = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}
                api.ask("POST", f"/api/v1/namespaces/{name}/serviceaccounts", value)
        service = {"type": "ExternalName", "externalName": "localhost"}
        metadata = {"name": SERVICE, "namespace": SYSTEM}
        api.make(f"/api/v1/namespaces/{SYSTEM}/services", {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service})
        rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": SERVICE}}
        rule = {"apiGroups": ["admissionregistration.k8s.io"], "resources": ["mutatingwebhookconfigurations"], "resourceNames": [SERVICE], "verbs": ["get", "patch"]}
        api.make("/apis/rbac.authorization.k8s.io/v1/clusterroles", {**rbac, "kind": "ClusterRole", "rules": [rule]})
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": SERVICE}
        who = [{"kind": "ServiceAccount", "name": SERVICE, "namespace": SYSTEM}]
        api.make("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", {**rbac, "kind": "ClusterRoleBinding", "roleRef": role, "subjects": who})
        (self.folder / "heddle.token").write_text(api.token(SYSTEM, SERVICE))

    def control_plane(self):
        api, place = self.cluster, self.folder
        self.webhook, self.admin, self.xds, self.key = free_port(), free_port(), free_port(), os.urandom(16).hex()
        source = f"jwks_url: {api.url}/openid/v1/jwks, ca_file: {api.ca}, token_file: {place}/heddle.token"
        update = f"configuration: {SERVICE}, api: {api.url}, token_file: {place}/heddle.token, ca_file: {api.ca}"
        (place / "heddle.yaml").write_text(f"""
node: {{ id: control, data_dir: {place}/data }}
admin: {{ address: "127.0.0.1:{self.admin}", keys: [ {{ name: story, key: "{self.key}", role: admin }} ] }}
xds: {{ address: "127.0.0.1:{self.xds}" }}
identity: {{ trust_domain: shop.example, kubernetes: {{ issuer: {ISSUER}, audience: heddle, {source} }} }}
webhook:
  address: "127.0.0.1:{self.webhook}"
  update: {{ {update} }}
  inject: {{ image: "registry.example/heddle:0.1.0" }}
""")
        api.start("heddle", [self.arguments.heddle, "controlplane", "-c", "heddle.yaml"], cwd=place)
        ca = until("the webhook's authority", lambda: (place / "data/webhook/ca.pem").exists() and place / "data/webhook/ca.pem")
        kept = json.loads((place / "data/webhook/authorities.json").read_text())["list"][0]
        (place / "webhook-ca.pem").write_text(kept["certificate"])
        (place / "webhook-ca.key").write_text(kept["key"])
        name = f"{SERVICE}.{SYSTEM}.svc"
        certificate, key = signed(place, "recorder", f"DNS:{name}", place / "webhook-ca.pem", place / "webhook-ca.key")
        self.recorded = free_port()
        self.recorder = Recorder(self.recorded, self.webhook, certificate, key, ca, name)

    def register(self, port):
        """What `heddle inject --webhook-configuration` prints, applied as it is; the control plane itself writes whom to trust."""
        api = self.cluster
        printed = subprocess.run([self.arguments.heddle, "inject", "--webhook-configuration", "--webhook-port", str(port)], check=True, capture_output=True)
        api.ask("DELETE", f"{HOOKS}/{SERVICE}")
        api.make(HOOKS, printed.stdout, kind="application/yaml")

        def trusted():
            hooks = api.ask("GET", f"{HOOKS}/{SERVICE}")[1]["webhooks"]
            return all(hook["clientConfig"].get("caBundle") for hook in hooks) and hooks
        hooks = until("the control plane to write caBundle", trusted, 120)
        ours = (self.folder / "data/webhook/ca.pem").read_text().split()
        assert base64.b64decode(hooks[0]["clientConfig"]["caBundle"]).decode().split() == ours
        return hooks

    def of_others(self, name, path, operations, bundle):
        """Another webhook at the recorder's port."""
        client = {"service": {"namespace": SYSTEM, "name": SERVICE, "path": path, "port": self.recorded}, "caBundle": bundle}
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": operations, "resources": ["pods"]}
        hook = {"name": f"{name}.example.com", "admissionReviewVersions": ["v1"], "clientConfig": client, "rules": [rule], "sideEffects": "None"}
        hook["objectSelector"] = {"matchLabels": {"story": name}}
        kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration"}
        self.cluster.make(HOOKS, {**kind, "metadata": {"name": name}, "webhooks": [hook]})

    def ask(self, what, namespace, value, query="", name=None, last=None, **more):
        """One pod: what was asked and answered, and what the API server made of it. The first question is kept as `name`, the last of several as `last`."""
        self.recorder.take()
        status, made, warnings = self.cluster.ask("POST", f"/api/v1/namespaces/{namespace}/pods{query}", value, **more)
        return self.tell(what, status, made, warnings, name, last)

    def tell(self, what, status, made, warnings, name=None, last=None):
        kept = self.recorder.take()
        asked = [f"{one['path']} {one['status']}" + (" patch" if b'"patch"' in one["answered"] else "") for one in kept]
        print(f"- {what}\n    asked: {asked or 'no'}; answer: {status}; init containers: {inits(made) or 'none'}")
        for line in [made.get("message", "")] * (status >= 400) + warnings:
            print("    " + line)
        if name:
            self.keep(name, kept[0])
        if last and len(kept) > 1:
            self.keep(last, kept[-1])
        return made

    def keep(self, name, question):
        (self.folder / f"{name}.raw").write_bytes(question["asked"])
        (self.folder / f"{name}.headers").write_text(json.dumps(question["headers"], indent=1))
        (self.folder / f"{name}.answer").write_bytes(question["answered"])
        if self.arguments.into:
            text = json.dumps(json.loads(question["asked"]), indent=1, ensure_ascii=False)
            (pathlib.Path(self.arguments.into) / f"{name}.json").write_text(text + "\n")

    def pods(self):
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-6d4cf56db6", "controller": True, "blockOwnerDeletion": True,
                 "uid": "4d0b4f4e-0b0a-4d39-b6b5-1d8ac6d50002"}
        of_set = pod("web-6d4cf56db6-", {"pod-template-hash": "6d4cf56db6"})
        of_set["metadata"]["ownerReferences"] = [owner]
        self.ask("a pod of a replica set", "shop", of_set, name="create", user=REPLICA_SETS)
        plain = self.ask("a pod by its name", "shop", pod("web"), name="create-named", last="again")
        self.ask("a dry run", "shop", pod("dry"), "?dryRun=All", name="dry-run")
        self.ask("a pod that opts out by label", "shop", pod("out-1", {LABEL: "false"}))
        self.ask("a pod that opts out by annotation", "shop", pod("out-2", annotations={LABEL: "false"}), name="opts-out")
        self.ask("a pod of a namespace that says nothing", "plain", pod("web"))
        self.ask("a pod that asks, there", "plain", pod("asks", {LABEL: "true"}), name="asks")
        self.ask("a pod that asks where the namespace says no", "off", pod("asks", {LABEL: "true"}))
        # Namespaces have had a label with their name since 1.21; until then the API server cannot leave this one out by itself.
        asks = pod("asks", {LABEL: "true"})
        until("a pod in kube-system", lambda: self.cluster.ask("POST", "/api/v1/namespaces/kube-system/pods?dryRun=All", asks)[0] < 500)
        self.recorder.take()
        answer = self.cluster.ask("POST", "/api/v1/namespaces/kube-system/pods", asks)
        with self.recorder.lock:
            asked = bool(self.recorder.kept)
        self.tell("a pod that asks in kube-system", *answer, name="system-namespace" if asked else None)
        self.ask("a pod in the network of its node", "shop", pod("host", hostNetwork=True, containers=[{"name": "a", "image": "a"}]), name="host-network")
        init = [{"name": "before", "image": "before:1"}]
        self.ask("a pod with an init container, capture off", "shop", pod("init", annotations={"heddle.io/capture": "off", "heddle.io/outbound": "api:9001"}, initContainers=init))
        return plain

    def again(self):
        """Other webhooks: one that adds a container after ours, and one whose operator has us asked about updates as well."""
        api = self.cluster
        bundle = api.ask("GET", f"{HOOKS}/{SERVICE}")[1]["webhooks"][0]["clientConfig"]["caBundle"]
        self.of_others("second", "/second", ["CREATE"], bundle)
        path = "/api/v1/namespaces/shop/pods"

        def taken():
            made = api.ask("POST", f"{path}?dryRun=All", pod("probe", {"story": "second"}))[1]
            return "logger" in str(made.get("spec", made.get("message", "")))
        until("the second webhook", taken)
        self.recorder.take()
        answer = api.ask("POST", path, pod("two", {"story": "second"}))
        self.tell("a pod to which another webhook adds a container", *answer, last="reinvoked")
        self.of_others("updates", "/inject", ["UPDATE"], bundle)
        self.ask("a pod that is to change", "plain", pod("changes", {"story": "updates"}))
        patch = [{"op": "add", "path": "/metadata/labels/track", "value": "canary"}]

        def change():
            answer = api.ask("PATCH", "/api/v1/namespaces/plain/pods/changes", patch, kind="application/json-patch+json")
            with self.recorder.lock:
                return self.recorder.kept and answer
        self.tell("its change", *until("a question about an update", change), name="update")

    def files(self):
        """What `heddle inject -f` prints, taken by the API server as a dry run that knows no unknown fields."""
        container = {"name": "web", "image": "web:1", "ports": [{"name": "http", "containerPort": 8080}], "readinessProbe": {"httpGet": {"path": "/", "port": "http"}}}
        labels = {"app": "web"}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container], "serviceAccountName": "web"}}
        ends = {"metadata": {"labels": labels}, "spec": {**template["spec"], "restartPolicy": "Never"}}
        select = {"selector": {"matchLabels": labels}}
        batch = "batch/v1" if self.cluster.ask("GET", "/apis/batch/v1/cronjobs")[0] == 200 else "batch/v1beta1"
        for kind, group, spec in [
            ("Deployment", "apps/v1", {**select, "template": template}),
            ("ReplicaSet", "apps/v1", {**select, "template": template}),
            ("StatefulSet", "apps/v1", {**select, "serviceName": "web", "template": template}),
            ("DaemonSet", "apps/v1", {**select, "template": template}),
            ("Job", "batch/v1", {"template": ends}),
            ("CronJob", batch, {"schedule": "0 3 * * *", "jobTemplate": {"spec": {"template": ends}}}),
            ("Pod", "v1", template["spec"]),
        ]:
            value = {"apiVersion": group, "kind": kind, "metadata": {"name": "of-file", "namespace": "plain", "labels": labels}, "spec": spec}
            done = subprocess.run([self.arguments.heddle, "inject", "-f", "-"], input=json.dumps(value).encode(), check=True, capture_output=True)
            root = "/api/v1" if group == "v1" else f"/apis/{group}"
            path = f"{root}/namespaces/plain/{kind.lower()}s?dryRun=All&fieldManager=story&fieldValidation=Strict"
            status, made, warnings = self.cluster.ask("POST", path, done.stdout, kind="application/yaml")
            print(f"- heddle inject -f, {group} {kind}: {status}; init containers: {inits(made) or 'none'}")
            for line in [made.get("message", "")] * (status >= 400) + warnings:
                print("    " + line)

    def joins(self, made):
        """The sidecar of a pod joins, with the configuration and the roots in the pod's annotations and a token of its account."""
        api, place = self.cluster, self.folder / "pod"
        place.mkdir()
        bound = {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": made["metadata"]["name"], "uid": made["metadata"]["uid"]}}
        token = api.token("shop", "web", "heddle", **bound)
        (place / "token").write_text(token)
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        print("- claims of its token:", json.dumps(claims))
        annotations = made["metadata"].get("annotations", {})
        if "heddle.io/bundle" not in annotations:
            roots = self.heddle("ca", "export", *self.as_admin())
            (self.folder / "root.pem").write_bytes(roots)
            annotations = json.loads(self.heddle("inject", "-f", "-", "--bundle", "root.pem", input=json.dumps(pod("web")).encode()))["metadata"]["annotations"]
        (place / "root.pem").write_text(annotations["heddle.io/bundle"])
        ports = {str(port): str(free_port()) for port in (15000, 15006, 15021)}
        text = annotations["heddle.io/config"].replace("heddle.heddle-system.svc:18000", f"127.0.0.1:{self.xds}")
        text = text.replace("/var/run/heddle", str(place)).replace("/var/lib/heddle", str(place / "data"))
        for port, free in ports.items():
            text = text.replace(port, free)
        # There is no pod's network here: the sidecar stands on loopback, and nothing is captured.
        text = text.replace("0.0.0.0", "127.0.0.1").replace("capture: redirect", 'capture: "off"')
        text = text.replace("agent:\n", f'agent:\n  admin: "127.0.0.1:{ports["15000"]}"\n')
        (place / "sidecar.yaml").write_text(text)
        environment = {**os.environ, "HEDDLE_POD_NAME": "web", "HEDDLE_POD_NAMESPACE": "shop", "HEDDLE_POD_IP": "127.0.0.1"}
        api.start("sidecar", [self.arguments.heddle, "agent", "-c", place / "sidecar.yaml"], cwd=place, env=environment)

        def ready():
            try:
                return urllib.request.urlopen(f"http://127.0.0.1:{ports['15000']}/ready", timeout=5).status == 200
            except OSError:
                return False
        until("the sidecar to be ready", ready, 30)
        print("- the sidecar is ready; audit:\n    " + self.heddle("ca", "audit", *self.as_admin()).decode().strip().replace("\n", "\n    "))

    def as_admin(self):
        return ["--server", f"http://127.0.0.1:{self.xds}", "--key", self.key]

    def heddle(self, *arguments, **more):
        done = subprocess.run([self.arguments.heddle, *arguments], cwd=self.folder, capture_output=True, **more)
        if done.returncode:
            raise SystemExit(f"heddle {' '.join(arguments)}: {done.stderr.decode()}")
        return done.stdout

    def direct(self):
        """With nobody between the API server and the control plane."""
        self.register(self.webhook)
        path = "/api/v1/namespaces/shop/pods?dryRun=All"
        made = until("a pod by the webhook itself", lambda: self.cluster.ask("POST", path, pod("direct")))
        self.tell("a pod, with nobody between API server and control plane", *made)
        context = ssl.create_default_context(cafile=str(self.folder / "data/webhook/ca.pem"))
        context.check_hostname = False
        page = urllib.request.urlopen(f"https://127.0.0.1:{self.webhook}/metrics", context=context).read().decode()
        for line in page.splitlines():
            if line.startswith("heddle_webhook") and "bucket" not in line and not line.endswith(" 0"):
                print("    " + line)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apiserver", required=True, type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("--heddle", required=True, type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("--into")
    parser.add_argument("--flag", action="append", default=[])
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    story = Story(arguments)
    story.prepare()
    story.control_plane()
    story.register(story.recorded)
    made = story.pods()
    story.again()
    story.files()
    story.joins(made)
    print("connections of the API server to the recorder:", story.recorder.connections)
    story.direct()


if __name__ == "__main__":
    main()
