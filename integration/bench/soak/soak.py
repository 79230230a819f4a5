#!/usr/bin/env python3
"""Mixed load and configuration changes for a while: memory must not grow, and nothing may fail.

  integration/bench/soak/soak.py [--minutes 30] [--changes 5000] [--rate 800] [--warm-up 5] [--workers 2] [--heddle BINARY] [--json FILE]

Passes when the median of the resident memory over the last tenth of the time lies within 5 % of that over the first tenth after the warm-up, when
descriptors have not grown, and when no request and no change failed. Needs nginx, h2load and openssl. `--rate` bounds the requests per second over
all kinds of load, so that it may run beside other work; the clients run at low priority.
"""
import argparse, json, os, statistics, sys, time
from changes import Changes
from load import Load
from rig import BINARY, Rig, free_port

TOLERANCE = 0.05
SAMPLE = 2.0


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def watch(rig, load, changes, seconds):
    """Samples until the time is over: (seconds, KiB, descriptors, changes done, KiB without the pages of the binary)."""
    begin, samples, told = time.monotonic(), [], 0
    while (now := time.monotonic() - begin) < seconds:
        if rig.heddle.poll() is not None:
            sys.exit(f"heddle has ended with {rig.heddle.returncode}")
        samples.append((now, rig.rss_kib(), descriptors(rig.heddle.pid), changes.done, rig.rss_kib("RssAnon")))
        if now >= told:
            told += seconds / 20
            print(f"{now:8.0f} s {samples[-1][1] / 1024:8.1f} MiB ({samples[-1][4] / 1024:.1f} without the binary) {samples[-1][2]:6d} descriptors {changes.done:6d} changes "
                  f"{sum(load.counts.values()):9d} requests", flush=True)
        time.sleep(SAMPLE)
    return samples


def verdict(samples, seconds, warm):
    window = (seconds - warm) / 10
    first = [s for s in samples if warm <= s[0] < warm + window] or samples[:1]
    last = [s for s in samples if s[0] >= seconds - window] or samples[-1:]
    median = lambda part, index: statistics.median(s[index] for s in part)
    return {
        "memory_after_warm_up_mib": median(first, 1) / 1024, "memory_at_end_mib": median(last, 1) / 1024,
        "growth": median(last, 1) / median(first, 1) - 1, "peak_mib": max(s[1] for s in samples) / 1024,
        "descriptors_after_warm_up": median(first, 2), "descriptors_at_end": median(last, 2),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--changes", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=800)
    parser.add_argument("--warm-up", type=float, help="minutes; a sixth of all by default")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--heddle", default=BINARY)
    parser.add_argument("--json")
    args = parser.parse_args()
    os.nice(5)
    seconds, warm = args.minutes * 60, (args.warm_up or args.minutes / 6) * 60
    with Rig(args.heddle, args.workers) as rig:
        load, changes = Load(rig, args.rate, free_port()), Changes(rig, args.changes, seconds * 0.95)
        changes.change("PUT", "routes/echo", {"uri": "/echo", "enable_websocket": True, "upstream": {"nodes": {f"127.0.0.1:{load.echo_port}": 1}}})
        load.start()
        changes.start()
        samples = watch(rig, load, changes, seconds)
        spent = rig.cpu_seconds()
        changes.stop()
        load.stop()
        found = verdict(samples, seconds, warm)
    faults = {**load.faults, **changes.faults}
    print("\nrequests by kind: " + ", ".join(f"{kind} {number}" for kind, number in sorted(load.counts.items())))
    print(f"changes: {changes.done}; CPU of heddle: {spent:.0f} s in {seconds:.0f} s")
    for fault, number in faults.items():
        print(f"fault, {number} times: {fault}")
    print("memory: {memory_after_warm_up_mib:.1f} MiB after the warm-up, {memory_at_end_mib:.1f} at the end, peak {peak_mib:.1f}; "
          "descriptors {descriptors_after_warm_up:.0f} and {descriptors_at_end:.0f}".format(**found))
    flat = abs(found["growth"]) <= TOLERANCE
    complete = changes.done >= args.changes
    passed = flat and complete and not faults
    print(f"{'PASS' if passed else 'FAIL'}: {found['growth']:+.1%} (allowed ±{TOLERANCE:.0%})"
          + ("" if complete else f", only {changes.done} of {args.changes} changes") + ("" if not faults else ", with faults"))
    if args.json:
        with open(args.json, "w") as f:
            json.dump({**found, "passed": passed, "faults": faults, "requests": load.counts, "changes": changes.done, "samples": samples}, f, indent=1)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
