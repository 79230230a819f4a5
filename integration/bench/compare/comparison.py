"""A comparison: which subjects a load has, rounds that alternate between them, medians and ratios."""
import contextlib, statistics, sys
from dataclasses import replace

import loads
from drivers import Drivers
from loads import Subject
from processes import memory_kib
from report import DISTURBED

BASE = "heddle-base"


class Comparison:
    def __init__(self, place, names, rounds, seconds, idle_connections, tries, patience, out=sys.stderr):
        self.place, self.names, self.rounds, self.out = place, names, rounds, out
        self.drivers, self.warm = Drivers(place, seconds), Drivers(place, 1)
        self.idle_connections, self.tries, self.patience = idle_connections, tries, patience

    def say(self, text):
        print(text, file=self.out, flush=True)

    def run(self, name):
        """Measures one load; gives its part of the result."""
        load = loads.LOADS[name]
        medians = getattr(self, load.kind.replace("-", "_"))(name, load)
        return judge(load, medians)

    def prove(self, name):
        """Only starts the proxies and checks that they do what the load wants of them."""
        load = loads.LOADS[name]
        with self.subjects(load, self.names) as subjects:
            self.say(f"{name}: " + ", ".join(subject.label for subject in subjects))

    @contextlib.contextmanager
    def subjects(self, load, names, cores=None):
        """The proxies in the scenario of the load, started and proved; stopped at the end."""
        wanted = [(name, name, load.scenario) for name in names if name in (load.peers or names)]
        if load.base and "heddle" in names:
            wanted.append((BASE, "heddle", load.base))
        running = []
        try:
            for label, name, scenario in wanted:
                proxy = self.place.proxy(name, scenario, cores)
                running.append(Subject(label, proxy))
                loads.prove(load, self.drivers, proxy, scenario)
            yield running
        finally:
            for subject in running:
                self.place.stop(subject.proxy, self.patience)

    def measure(self, load, subject):
        """One round; again, a few times at most, when something else was running on the proxy's core. Keeps the least disturbed."""
        tries = []
        while len(tries) < self.tries:
            tries.append(loads.closed(load, self.drivers, subject))
            if load.kind == "workers" or tries[-1]["others_busy"] <= DISTURBED:
                break
        return min(tries, key=lambda one: one["others_busy"])

    def closed(self, name, load, names=None, cores=None):
        with self.subjects(load, names or self.names, cores) as subjects:
            for subject in subjects:
                loads.closed(load, self.warm, subject)
            for turn in range(self.rounds):
                for subject in subjects:
                    one = self.measure(load, subject)
                    subject.rounds.append(one)
                    self.say(f"{name}, round {turn + 1} of {self.rounds}: {subject.label} {one['cpu_us']:.1f} µs, {one['rps']:.0f}/s"
                             + (f", {one['errors']} errors ({one['first_error']})" if one["errors"] else ""))
            return {subject.label: subject.medians() for subject in subjects}

    def workers(self, name, load):
        """Proxy and load on both cores, in both cases."""
        if "heddle" not in self.names:
            return {}
        both = f"{self.place.proxy_core},{self.place.load_core}"
        drive = load.drive
        return self.closed(name, replace(load, drive=lambda drivers, proxy: drive(OnCores(drivers, both), proxy)), ["heddle"], both)

    def latency(self, name, load):
        """Rounds straight to the backend alternate with those through the proxies; what is added is compared round by round."""
        with self.subjects(load, self.names) as subjects:
            for subject in subjects:
                loads.closed(load, self.warm, subject)
            direct = []
            for turn in range(self.rounds):
                straight = load.drive(self.drivers, self.place.straight())
                direct.append(straight)
                for subject in subjects:
                    one = self.measure(load, subject)
                    for key in ("p50", "p90", "p99", "p999"):
                        one[f"added_{key}_us"] = (one[f"{key}_ms"] - straight[f"{key}_ms"]) * 1e3
                    subject.rounds.append(one)
                    self.say(f"{name}, round {turn + 1} of {self.rounds}: {subject.label} adds {one['added_p50_us']:.0f} µs at p50, {one['added_p90_us']:.0f} at p90, "
                             f"{one['added_p99_us']:.0f} at p99, {one['added_p999_us']:.0f} at p99.9")
            medians = {subject.label: subject.medians() for subject in subjects}
            medians["direct"] = {key: statistics.median(one[key] for one in direct) for key in ("p50_ms", "p90_ms", "p99_ms", "p999_ms")}
            return medians

    def idle(self, name, load):
        return self.each(name, load, lambda proxy: loads.idle(self.place, proxy, self.idle_connections, False))

    def idle_tls(self, name, load):
        return self.each(name, load, lambda proxy: loads.idle(self.place, proxy, self.idle_connections, True))

    def start(self, name, load):
        measure = lambda proxy: {"mib": memory_kib(proxy.pids) / 1024}
        found = self.each(name, replace(load, base=None), measure)
        if "heddle" in self.names:
            found[BASE] = self.each(BASE, replace(load, scenario=load.base, base=None), measure, ["heddle"])["heddle"]
        return found

    def each(self, name, load, measure, names=None):
        """Memory: each round with a fresh process, one proxy at a time."""
        found = {}
        for proxy_name in (name for name in names or self.names if name in (load.peers or self.names)):
            rounds = []
            for _ in range(self.rounds):
                with self.subjects(load, [proxy_name]) as (subject,):
                    rounds.append(measure(subject.proxy))
            found[proxy_name] = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
            self.say(f"{name}: {proxy_name} {found[proxy_name][load.figure]:.1f} {load.unit}")
        return found


class OnCores:
    """Drivers of which wrk runs on other cores."""

    def __init__(self, drivers, cores):
        self.drivers, self.cores = drivers, cores

    def wrk(self, *args, **more):
        return self.drivers.wrk(*args, **more, cores=self.cores)


def judge(load, medians):
    """The medians and how Heddle stands: to the best peer, to Envoy, to itself."""
    base, direct = medians.pop(BASE, None), medians.pop("direct", None)
    result = {"title": load.title, "kind": load.kind, "unit": load.unit, "figure": load.figure, "proxies": medians}
    figures = {name: one[load.figure] for name, one in medians.items()}
    own = figures.pop("heddle", None)
    positive = {name: figure for name, figure in figures.items() if figure > 0}
    if own is not None and positive:
        best = min(positive, key=positive.get)
        result |= {"best_peer": best, "ratio": own / positive[best]}
        if "envoy" in positive:
            result["of_envoy"] = own / positive["envoy"]
    if base:
        result |= {"base": base, "base_title": load.base_title, "own_ratio": own / base[load.figure]}
    if direct:
        result["direct"] = direct
    return result
