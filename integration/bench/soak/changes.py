"""Configuration changes over the Admin API at a steady pace: resources come, change and go, but there are never more than a fixed number of them."""
import http.client, json, random, threading, time
from rig import KEY

IDS = 40


class Changes:
    """`count` changes within `seconds`."""

    def __init__(self, rig, count, seconds):
        self.rig, self.count, self.pause = rig, count, seconds / max(count, 1)
        self.done, self.faults = 0, {}
        self.dice = random.Random(1)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.connection = http.client.HTTPConnection("127.0.0.1", rig.admin, timeout=30)

    def start(self):
        self.thread.start()

    def stop(self):
        self.stopping.set()
        self.thread.join(30)

    def run(self):
        begin = time.monotonic()
        while self.done < self.count and not self.stopping.is_set():
            self.change(*self.dice.choice([self.route, self.route, self.upstream, self.consumer, self.service, self.gone, self.rule])())
            self.done += 1
            time.sleep(max(0, begin + self.done * self.pause - time.monotonic()))

    def change(self, method, path, body=None):
        status, answer = self.request(method, path, body)
        if status not in (200, 201, 404 if method == "DELETE" else 200):
            key = f"{method} {path.split('/')[0]}: {status} {answer[:160]}"
            self.faults[key] = self.faults.get(key, 0) + 1

    def request(self, method, path, body=None):
        try:
            self.connection.request(method, f"/apisix/admin/{path}", json.dumps(body) if body is not None else None, {"X-API-KEY": KEY})
            answer = self.connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            return 0, repr(error)

    def id(self):
        return self.dice.randrange(IDS)

    def plugins(self):
        all_ = {
            "response-rewrite": {"headers": {"set": {"x-soak": str(self.done)}}},
            "proxy-rewrite": {"regex_uri": [f"^/soak/(.*)/{self.dice.randrange(100)}", "/$1"]},
            "limit-count": {"count": self.dice.randrange(10, 1000), "time_window": 60, "rejected_code": 429, "key": "remote_addr"},
            "key-auth": {},
            "cors": {"allow_origins": f"https://a{self.done}.example"},
            "request-id": {},
        }
        return {name: all_[name] for name in self.dice.sample(sorted(all_), self.dice.randrange(4))}

    def nodes(self):
        return {f"127.0.0.1:{self.rig.backend}": self.dice.randrange(1, 100)}

    def route(self):
        number = self.id()
        body = {"uri": f"/soak/{number}/*", "priority": self.dice.randrange(10), "plugins": self.plugins(),
                "upstream": {"type": "roundrobin", "nodes": self.nodes()}}
        return "PUT", f"routes/soak-{number}", body

    def upstream(self):
        number = self.id()
        return "PUT", f"upstreams/soak-{number}", {"type": self.dice.choice(["roundrobin", "least_conn"]), "nodes": self.nodes()}

    def service(self):
        number = self.id()
        return "PUT", f"services/soak-{number}", {"upstream": {"nodes": self.nodes()}, "plugins": self.plugins()}

    def consumer(self):
        number = self.id()
        return "PUT", f"consumers/soak{number}", {"username": f"soak{number}", "plugins": {"key-auth": {"key": f"key-{number}-{self.done}"}}}

    def rule(self):
        return "PUT", "global_rules/soak", {"plugins": {"response-rewrite": {"headers": {"set": {"x-rule": str(self.done)}}}}}

    def gone(self):
        return "DELETE", f"{self.dice.choice(['routes', 'upstreams', 'services'])}/soak-{self.id()}"
