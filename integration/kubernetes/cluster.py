"""One etcd and one kube-apiserver on loopback, and how they are asked. It knows nothing of Heddle."""
import atexit
import json
import os
import pathlib
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request

ADMIN = "admin-of-this-run"
ISSUER = "https://kubernetes.default.svc.cluster.local"


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def until(what, holds, seconds=90):
    """What `holds` returns, once it is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = holds()
        if found:
            return found
        time.sleep(0.1)
    raise SystemExit(f"{what}: not within {seconds} s")


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def signed(folder, name, names, ca, ca_key):
    """A server's certificate and key by this authority."""
    key, request, certificate, extensions = (folder / f"{name}.{end}" for end in ("key", "csr", "crt", "ext"))
    extensions.write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth\n")
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
    openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", certificate)
    return certificate, key


class Cluster:
    """What a cluster says when there is nothing in it but its API server."""

    def __init__(self, folder, binary, flags):
        self.folder, self.processes = folder, []
        atexit.register(self.stop)
        etcd, peer, self.port = free_port(), free_port(), free_port()
        self.url, self.ca = f"https://127.0.0.1:{self.port}", folder / "ca.crt"
        self.start("etcd", ["etcd", "--data-dir", folder / "etcd", "--listen-client-urls", f"http://127.0.0.1:{etcd}",
                            "--advertise-client-urls", f"http://127.0.0.1:{etcd}", "--listen-peer-urls", f"http://127.0.0.1:{peer}"])
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=cluster",
                "-keyout", folder / "ca.key", "-out", self.ca)
        certificate, key = signed(folder, "apiserver", "IP:127.0.0.1,DNS:localhost", self.ca, folder / "ca.key")
        openssl("genrsa", "-out", folder / "accounts.key", "2048")
        (folder / "tokens.csv").write_text(f"{ADMIN},admin,1,system:masters\n")
        self.start("apiserver", [
            binary, f"--etcd-servers=http://127.0.0.1:{etcd}", "--bind-address=127.0.0.1", f"--secure-port={self.port}",
            f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}", f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=RBAC", f"--service-account-issuer={ISSUER}", f"--service-account-key-file={folder / 'accounts.key'}",
            f"--service-account-signing-key-file={folder / 'accounts.key'}", "--service-cluster-ip-range=10.96.0.0/24",
            "--endpoint-reconciler-type=none", *flags])
        self.context = ssl.create_default_context(cafile=str(self.ca))
        until("the API server", lambda: self.ask("GET", "/readyz")[0] == 200, 180)
        self.version = self.ask("GET", "/version")[1]["gitVersion"]

    def start(self, name, command, **more):
        """A process that ends with this cluster; what it says is in `<name>.log`."""
        log = open(self.folder / f"{name}.log", "wb")
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=subprocess.STDOUT, **more)
        self.processes.append(process)
        return process

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def ask(self, method, path, body=None, kind="application/json", token=ADMIN, user=None):
        """Status, answer and warnings. `user` is whom the administrator speaks for."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": kind, "Accept": "application/json", "User-Agent": "record"}
        if user:
            headers["Impersonate-User"] = user
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            answer = urllib.request.urlopen(request, context=self.context, timeout=30)
        except urllib.error.HTTPError as error:
            answer = error
        except OSError:
            return 0, {}, []
        text = answer.read()
        try:
            value = json.loads(text)
        except ValueError:
            value = {"text": text.decode(errors="replace")}
        return answer.status, value, answer.headers.get_all("Warning") or []

    def make(self, path, value, **more):
        """Creates what must not be refused."""
        status, answer, _ = self.ask("POST", path, value, **more)
        if status != 201:
            raise SystemExit(f"POST {path}: {status}: {answer.get('message')}")
        return answer

    def token(self, namespace, account, audience=None, **bound):
        """A token of this account by the TokenRequest API."""
        spec = {"audiences": [audience] if audience else [ISSUER], "expirationSeconds": 3600, **bound}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        return self.make(path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})["status"]["token"]


def temporary():
    folder = pathlib.Path(os.environ.get("TMPDIR", "/tmp")) / f"heddle-kubernetes-{os.getpid()}"
    folder.mkdir(mode=0o700)
    return folder
