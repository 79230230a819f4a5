"""Processes for measuring one Heddle: nginx as backend, a gateway with one route in clear and over TLS, and its Admin API. It knows no load."""
import json, os, shutil, signal, socket, subprocess, sys, tempfile, time, urllib.error, urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
BINARY = os.path.join(TARGET, "release", "heddle")
KEY = "soak-key-of-this-run"
TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(what, check, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return
        time.sleep(0.02)
    sys.exit(f"{what} did not come about within {seconds} s")


def open_port(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


class Rig:
    """One Heddle with its backend, in a folder of their own; a context manager."""

    def __init__(self, binary=BINARY, workers=1, mode="run"):
        self.folder = tempfile.mkdtemp(prefix="heddle-soak-")
        os.chmod(self.folder, 0o755)
        self.log = open(self.path("log"), "ab")
        self.binary, self.workers = binary, workers
        self.processes = []

    def __enter__(self):
        try:
            self.backend = self.start_backend()
            self.certificate()
            self.start_heddle()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.send_signal(signal.SIGTERM if process is self.processes[0] else signal.SIGKILL)
        for process in self.processes:
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w") as f:
            f.write(text)
        return self.path(name)

    def spawn(self, command):
        process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)
        self.processes.append(process)
        return process

    def start_backend(self):
        port, f = free_port(), self.folder
        os.makedirs(self.path("www"), exist_ok=True)
        self.write("www/64k", "x" * 65536)
        self.write("www/8m", "x" * (8 << 20))
        conf = self.write("backend.conf", f"""
daemon off; user root; worker_processes 1; pid {f}/backend.pid; error_log {f}/backend.log;
events {{ worker_connections 8192; }}
http {{ access_log off; keepalive_requests 100000000; sendfile on; client_max_body_size 0;
client_body_temp_path {f}/b; proxy_temp_path {f}/p; fastcgi_temp_path {f}/f; uwsgi_temp_path {f}/u; scgi_temp_path {f}/s;
server {{ listen 127.0.0.1:{port} backlog=4096; root {f}/www;
location /64k {{ }} location /8m {{ }} location /upload {{ proxy_pass http://127.0.0.1:{port}/; }} location / {{ return 200 '{"x" * 60}'; }} }} }}
""")
        self.spawn(["nginx", "-c", conf, "-p", self.folder])
        until("the backend", lambda: open_port(port))
        return port

    def certificate(self):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                        "-subj", "/CN=bench.example", "-addext", "subjectAltName=DNS:bench.example,DNS:localhost",
                        "-keyout", self.path("key.pem"), "-out", self.path("cert.pem")], check=True, stderr=self.log, stdout=self.log)

    def start_heddle(self):
        indent = lambda name: "".join(f"      {line}\n" for line in open(self.path(name)).read().splitlines())
        self.write("resources.yaml", f"""
upstreams:
  - id: b
    type: roundrobin
    nodes: {{ "127.0.0.1:{self.backend}": 1 }}
    keepalive_pool: {{ size: 320, idle_timeout: 60, requests: 100000000 }}
routes:
  - {{ id: all, uri: "/*", upstream_id: b }}
ssls:
  - id: bench
    snis: [bench.example, localhost, "*"]
    cert: |
{indent('cert.pem')}    key: |
{indent('key.pem')}""")
        self.http, self.https, self.admin, xds, self.agent = (free_port() for _ in range(5))
        conf = self.write("heddle.yaml", f"""
node: {{ id: bench, data_dir: "{self.path('data')}" }}
agent: {{ workers: {self.workers}, admin: "127.0.0.1:{self.agent}" }}
admin: {{ address: "127.0.0.1:{self.admin}", keys: [{{ name: soak, key: "{KEY}", role: admin }}] }}
xds: {{ address: "127.0.0.1:{xds}" }}
access_log: {{ path: "{self.path('access.log')}" }}
listeners:
  - {{ name: http, address: "127.0.0.1:{self.http}", protocol: http }}
  - {{ name: https, address: "127.0.0.1:{self.https}", protocol: https }}
providers: {{ file: {{ path: "{self.path('resources.yaml')}", watch: false }} }}
""")
        self.heddle = self.spawn([self.binary, "run", "-c", conf])
        until("an answer through heddle", lambda: self.ask(self.http, "/") == 200)

    @staticmethod
    def ask(port, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None

    def rss_kib(self, kind="VmRSS"):
        """Resident memory; of kind `RssAnon` without the pages of the binary."""
        for line in open(f"/proc/{self.heddle.pid}/status"):
            if line.startswith(kind + ":"):
                return int(line.split()[1])
        return 0

    def cpu_seconds(self):
        fields = open(f"/proc/{self.heddle.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS
