"""Running one load against one address and reading what came of it, from wrk, h2load and our own load generator. Knows no proxy and no scenario."""
import json, os, re, subprocess

from processes import Failure

HERE = os.path.dirname(os.path.abspath(__file__))


class Drivers:
    """Programs that make load, on the load's core. Each method gives requests, seconds, errors and percentiles; only good answers count."""

    def __init__(self, place, seconds):
        self.place, self.seconds = place, seconds

    def run(self, command, cores=None):
        """What the command prints; Failure when it fails, with what it said."""
        process = self.place.children.start(cores or self.place.load_core, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            out, err = process.communicate(timeout=self.seconds * 3 + 60)
        except subprocess.TimeoutExpired:
            raise Failure(f"{' '.join(command)}: did not end") from None
        finally:
            self.place.children.stop(process)
        if process.returncode != 0:
            raise Failure(f"{' '.join(command)}: {err.strip() or out.strip()}")
        return out

    def wrk(self, url, length, connections=64, fields=None, routes=0, threads=1, cores=None):
        headers = [part for name, value in (fields or {}).items() for part in ("-H", f"{name}: {value}")]
        out = self.run([self.place.binaries["wrk"], f"-t{threads}", f"-c{connections}", f"-d{self.seconds}s", "-s", os.path.join(HERE, "wrk.lua"),
                        *headers, url, "--", str(routes)], cores)
        result = json.loads(out.strip().splitlines()[-1])
        whole(result, result.pop("bytes"), length)
        return result

    def h2load(self, url, length, connections=16, streams=16):
        log = os.path.join(self.place.fresh("h2load"), "log")
        out = self.run([self.place.binaries["h2load"], "-t1", f"-c{connections}", f"-m{streams}", f"-D{self.seconds}", f"--log-file={log}", url])
        done = re.search(r"requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed", out)
        data = re.search(r"\((\d+)\) data", out)
        if not done or not data:
            raise Failure(f"h2load said nothing useful: {out}")
        micros = []
        with open(log) as lines:
            for line in lines:
                _, status, time = line.split("\t")
                if status == "200":
                    micros.append(int(time))
        os.remove(log)
        micros.sort()
        ms = lambda share: micros[min(int(len(micros) * share), len(micros) - 1)] / 1e3 if micros else 0
        # Requests that the end of the time cut off are none; h2load counts them as failed.
        result = {"requests": int(done.group(1)), "seconds": float(self.seconds), "errors": int(done.group(1)) - len(micros),
                  "first_error": "answers that are not 200", "p50_ms": ms(0.5), "p99_ms": ms(0.99), "p999_ms": ms(0.999)}
        whole(result, int(data.group(1)), length)
        return result

    def own(self, kind, port, seconds=None, cores=None, **options):
        words = [f"{key}={value}" for key, value in options.items()]
        out = self.run([self.place.binaries["load"], kind, f"to=127.0.0.1:{port}", f"seconds={seconds or self.seconds}", *words], cores)
        return json.loads(out.strip().splitlines()[-1])

    def certificate(self):
        return self.place.path("cert.pem")


def whole(result, received, length):
    """Fewer bytes than the answers should have is a failure."""
    if result["requests"] == 0:
        raise Failure(f"no request was answered: {result}")
    if received < result["requests"] * length:
        raise Failure(f"{received} bytes for {result['requests']} answers of {length} bytes")


class Idle:
    """Connections that stay open; see bench/load/idle.rs."""

    def __init__(self, place, port, tls):
        certificate = [f"certificate={place.path('cert.pem')}"] if tls else []
        self.place = place
        self.process = place.children.start(place.load_core, [place.binaries["load"], "idle", f"to=127.0.0.1:{port}", *certificate],
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def say(self, word):
        try:
            self.process.stdin.write(f"{word}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            raise Failure(f"idle connections: {self.process.stderr.read().strip()}")
        return json.loads(line)

    def stop(self):
        self.place.children.stop(self.process)
