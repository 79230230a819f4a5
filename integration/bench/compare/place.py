"""The folder, the certificate, the backends and the log sink that all proxies of a comparison share; starts proxies. Knows no load."""
import getpass, json, os, shutil, socket, subprocess, tempfile, threading, time

import peers
from processes import Children, Failure, free_port, tail, wait_port

CERTIFICATE = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=bench.example",
               "-addext", "subjectAltName=DNS:bench.example,DNS:localhost"]

WORKLOAD = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]


class Place:
    def __init__(self, binaries, proxy_core, load_core):
        self.binaries, self.proxy_core, self.load_core = binaries, proxy_core, load_core
        self.folder, self.user = tempfile.mkdtemp(prefix="heddle-bench-"), getpass.getuser()
        os.chmod(self.folder, 0o755)
        self.log_path = self.path("log")
        self.children = Children(open(self.log_path, "ab"))
        self.sink, self.upstreams, self.companions, self.partners = None, {}, [], []

    def open(self):
        self.certificate()
        self.backends()
        self.sink = LogSink(self.path("haproxy-access.log"))
        self.log_sink = self.sink.port

    def close(self):
        self.children.stop_all()
        if self.sink:
            self.sink.stop()
        self.children.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w") as f:
            f.write(text)
        return self.path(name)

    def read(self, name):
        with open(self.path(name)) as f:
            return f.read()

    def fresh(self, name):
        """A folder that nobody has used."""
        return tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder)

    def certificate(self):
        self.openssl(*CERTIFICATE, "-keyout", self.path("key.pem"), "-out", self.path("cert.pem"))
        self.write("both.pem", self.read("cert.pem") + self.read("key.pem"))

    def workloads(self, names):
        """A root and a certificate for each workload, `spiffe://bench.example/ns/default/svc/NAME`; the paths by file name."""
        paths = {"roots.pem": self.path("roots.pem")}
        ca = ["-CA", self.path("roots.pem"), "-CAkey", self.path("roots.key")]
        self.openssl(*WORKLOAD, "-subj", "/CN=bench root", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
                     "-keyout", self.path("roots.key"), "-out", self.path("roots.pem"))
        for name in names:
            for end in ("pem", "key"):
                paths[f"{name}.{end}"] = self.path(f"{name}.{end}")
            self.openssl(*WORKLOAD, *ca, "-subj", "/", "-addext", f"subjectAltName=critical,URI:spiffe://bench.example/ns/default/svc/{name}",
                         "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "keyUsage=critical,digitalSignature",
                         "-addext", "extendedKeyUsage=clientAuth,serverAuth", "-keyout", paths[f"{name}.key"], "-out", paths[f"{name}.pem"])
        return paths

    def openssl(self, *arguments):
        done = subprocess.run([self.binaries["openssl"], *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise Failure(f"openssl made no certificate: {done.stderr}")

    def backends(self):
        """What the load generator offers: by name, its port."""
        process = self.children.start(self.load_core, [self.binaries["load"], "backend"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = process.stdout.readline()
        if not line:
            raise Failure(f"the load generator offers no backends:\n{tail(self.log_path)}")
        self.upstreams = json.loads(line)

    def proxy(self, name, scenario, cores=None, patience=30):
        """Starts a proxy; it listens, and has answered nothing yet."""
        http, https = free_port(), free_port()
        command = peers.ALL[name](self, scenario, http, https)
        process = self.children.start(cores or self.proxy_core, command)
        for port in (http,) if scenario.mesh else (http, https):
            wait_port(port, process, name, self.log_path, patience)
        companions, self.companions = self.companions, []
        partners, self.partners = self.partners, []
        return Proxy(name, process, http, https, companions, partners)

    def said(self, command, patience=10):
        """What a short command prints; again while it fails, since what it asks may just be starting."""
        deadline = time.monotonic() + patience
        while True:
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                return done.stdout
            if time.monotonic() > deadline:
                raise Failure(f"{' '.join(command)}: {done.stderr.strip()}")
            time.sleep(0.1)

    def straight(self):
        """The slow backend, in the place of a proxy."""
        return Proxy("direct", None, self.upstreams["slow"], None, [], [])

    def accompany(self, command, port):
        """Starts what the next proxy needs beside itself, on the load's core; it ends with that proxy."""
        process = self.children.start(self.load_core, command)
        self.companions.append(process)
        wait_port(port, process, command[0], self.log_path)

    def join(self, command, port):
        """Starts what does the next proxy's work together with it: on its core, and what it costs is counted too."""
        process = self.children.start(self.proxy_core, command)
        self.partners.append(process)
        wait_port(port, process, command[0], self.log_path)

    def stop(self, proxy, patience=0):
        for process in (proxy.process, *proxy.partners, *proxy.companions):
            self.children.stop(process, patience)


class Proxy:
    def __init__(self, name, process, http, https, companions, partners):
        self.name, self.process, self.http, self.https = name, process, http, https
        self.companions, self.partners = companions, partners
        self.pids = [one.pid for one in (process, *partners) if one]


class LogSink:
    """A log server for HAProxy: writes what comes over TCP to a file, on the load's core. Asks little of it: one read for many lines."""

    def __init__(self, path):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.path = path
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.copy, args=(connection,), daemon=True).start()

    def copy(self, connection):
        with connection, open(self.path, "ab", buffering=0) as out:
            while data := connection.recv(1 << 20):
                out.write(data)
                time.sleep(0.005)

    def stop(self):
        self.listener.close()
