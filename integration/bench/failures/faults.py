"""What goes wrong with one endpoint of four, and how it is made well again. Each fault has `begin(endpoint)` and `end(endpoint)`."""
import os, signal, subprocess, sys, threading

from processes import wait_port

HERE = os.path.dirname(os.path.abspath(__file__))
TABLE = "heddle_failures"


class Endpoint:
    """A process that answers; it keeps its port when it is started again."""

    def __init__(self, place, port):
        self.place, self.port, self.process = place, port, None
        self.start()

    def start(self):
        command = [sys.executable, os.path.join(HERE, "endpoint.py"), str(self.port)]
        self.process = self.place.children.start(self.place.load_core, command, stdin=subprocess.PIPE, text=True)
        wait_port(self.port, self.process, "endpoint", self.place.log_path)

    def say(self, order):
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()

    def stop(self):
        self.place.children.stop(self.process)


class Order:
    """Told to misbehave, and then to stop it."""

    def __init__(self, order):
        self.order = order

    def begin(self, endpoint):
        endpoint.say(self.order)

    def end(self, endpoint):
        endpoint.say("ok")


class Killed:
    """Its port refuses connections."""

    def begin(self, endpoint):
        endpoint.stop()

    def end(self, endpoint):
        endpoint.start()


class Hangs:
    """The kernel takes connections and bytes, nobody reads them."""

    def begin(self, endpoint):
        os.kill(endpoint.process.pid, signal.SIGSTOP)

    def end(self, endpoint):
        os.kill(endpoint.process.pid, signal.SIGCONT)


class Flaps:
    """Half a second of 503, half a second of 200, and so on."""

    def begin(self, endpoint):
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.flap, args=(endpoint,), daemon=True)
        self.thread.start()

    def flap(self, endpoint):
        orders = ["status 503", "ok"]
        while not self.over.is_set():
            endpoint.say(orders[0])
            orders.reverse()
            self.over.wait(0.5)

    def end(self, endpoint):
        self.over.set()
        self.thread.join()
        endpoint.say("ok")


class CutOff:
    """Packets to it vanish, as behind a broken switch; connections that stand stay silent. Needs root."""

    def begin(self, endpoint):
        self.nft(f"add table inet {TABLE}; add chain inet {TABLE} out {{ type filter hook output priority 0; }}; "
                 f"add rule inet {TABLE} out tcp dport {endpoint.port} drop; add rule inet {TABLE} out tcp sport {endpoint.port} drop")

    def end(self, endpoint):
        self.nft(f"delete table inet {TABLE}")

    def nft(self, rules):
        subprocess.run(["nft", rules], check=True, capture_output=True)


FAULTS = {
    "killed": Killed(), "hangs": Hangs(), "slow": Order("slow 0.1"), "errors": Order("status 500"), "flaps": Flaps(), "cut-off": CutOff(),
}
