"""The result as text for a terminal and as Markdown for docs/performance.md. Knows nothing of how it was measured."""

NAMES = {"heddle": "Heddle", "nginx": "nginx", "haproxy": "HAProxy", "envoy": "Envoy"}
# Below this share of its core a proxy was waiting: for the load or for the backend.
WAITING = 0.85
# Above this share of the proxy's core something else was running there, and the figures are not to be trusted.
DISTURBED = 0.1


def number(value):
    """Three digits or so."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"


def text(name, load):
    """One load for a terminal."""
    lines = [f"\n{name}: {load['title']} ({load['unit']})"]
    rows = {**{NAMES.get(label, label): one for label, one in load["proxies"].items()},
            **({load["base_title"]: load["base"]} if "base" in load else {})}
    for label, one in rows.items():
        parts = [f"  {label:24} {number(one[load['figure']]):>8}"]
        if "cpu_us" in one:
            parts.append(f"CPU {one['cpu_us']:6.1f} µs = user {one['user_us']:5.1f} + system {one['system_us']:5.1f}  {one['rps']:8.0f}/s  "
                         f"p50 {one['p50_ms']:6.2f} ms  p99 {one['p99_ms']:6.2f} ms  {one['mib']:6.1f} MiB  "
                         f"busy {one['proxy_busy']:4.0%}, load {one['load_busy']:4.0%}")
        if "added_p50_us" in one:
            parts.append(f"added p50 {one['added_p50_us']:.0f} µs, p90 {one['added_p90_us']:.0f}, p99 {one['added_p99_us']:.0f}, p99.9 {one['added_p999_us']:.0f}")
        if one.get("others_busy", 0) > DISTURBED and load["kind"] != "workers":
            parts.append(f"DISTURBED: others took {one['others_busy']:.0%} of the core")
        if one.get("errors"):
            parts.append(f"{one['errors']} ERRORS ({one['first_error']})")
        lines.append("  ".join(parts))
    lines.append("  " + ratios(load))
    return "\n".join(lines)


def ratios(load):
    parts = []
    if "ratio" in load:
        parts.append(f"{load['ratio']:.2f} × best peer ({NAMES[load['best_peer']]})")
    if "of_envoy" in load:
        parts.append(f"{load['of_envoy']:.2f} × Envoy")
    if "own_ratio" in load:
        parts.append(f"{load['own_ratio']:.3f} × {load['base_title']}")
    if load["kind"] == "workers":
        parts.append(f"two cores would carry {2 / load['own_ratio']:.2f} × what one does")
    return ", ".join(parts)


def table(heads, rows):
    return "\n".join(["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *("| " + " | ".join(row) + " |" for row in rows)])


def markdown(result):
    """All tables."""
    names = [name for name in NAMES if any(name in load["proxies"] for load in result["loads"].values())]
    versions = ", ".join(f"{NAMES[name]} {result['versions'][name]}" for name in names)
    head = (f"{versions}; {result['machine']['processor']}, {result['machine']['cores']} cores, Linux {result['machine']['kernel']}; "
            f"medians of {result['rounds']} rounds of {result['seconds']} s.")
    parts = [head, figures(result, names), "CPU per request in user + system, µs:", split(result, names),
             "Requests per second, and p50 / p99 in ms, with a full load (¹ the proxy was not what held it up):", rates(result, names)]
    for build in (added, own):
        parts += build(result, names)
    return "\n\n".join(parts) + "\n"


def figures(result, names):
    rows = []
    for load in result["loads"].values():
        if len(load["proxies"]) < 2 and len(names) > 1:
            continue
        cells = [number(load["proxies"][name][load["figure"]]) if name in load["proxies"] else "" for name in names]
        share = lambda key: f"{load[key]:.2f}" if key in load else ""
        rows.append([load["title"], load["unit"], *cells, f"**{share('ratio')}**" if "ratio" in load else "", share("of_envoy")])
    return table(["load", "unit", *(NAMES[name] for name in names), "ratio to the best peer", "of Envoy"], rows)


def with_cpu(result):
    return [load for load in result["loads"].values() if any("cpu_us" in one for one in load["proxies"].values())]


def split(result, names):
    cell = lambda one: f"{one['user_us']:.1f} + {one['system_us']:.1f}" if one else ""
    rows = [[load["title"], *(cell(load["proxies"].get(name)) for name in names)] for load in with_cpu(result)]
    return table(["load", *(NAMES[name] for name in names)], rows)


def rates(result, names):
    def cell(one):
        if not one:
            return ""
        mark = " ¹" if one["proxy_busy"] < WAITING else ""
        return f"{one['rps']:,.0f}{mark}; {one['p50_ms']:.2f} / {one['p99_ms']:.2f}"
    rows = [[load["title"], *(cell(load["proxies"].get(name)) for name in names)] for load in with_cpu(result) if "direct" not in load]
    return table(["load", *(NAMES[name] for name in names)], rows)


def added(result, names):
    load = next((load for load in result["loads"].values() if "direct" in load), None)
    if not load:
        return []
    keys = {"p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9"}
    rows = [[shown, f"{load['direct'][key + '_ms'] * 1e3:.0f}",
             *(f"{load['proxies'][name]['added_' + key + '_us']:.0f}" for name in names if name in load["proxies"])] for key, shown in keys.items()]
    return [f"{load['title'][0].upper()}{load['title'][1:]}; µs over asking the backend itself:",
            table(["", "backend", *(NAMES[name] for name in names if name in load["proxies"])], rows)]


def own(result, _):
    rows, scaling = [], []
    for load in result["loads"].values():
        if load["kind"] == "workers":
            scaling = [f"At this CPU per request two cores carry {2 / load['own_ratio']:.2f} times what one does."]
        if "own_ratio" in load:
            with_it, without = load["proxies"]["heddle"][load["figure"]], load["base"][load["figure"]]
            rows.append([load["title"], number(with_it), load["base_title"], number(without), f"{load['own_ratio']:.3f}", f"{with_it - without:+.2f}"])
    return ["Heddle beside itself in the same run, µs CPU per request:",
            table(["load", "Heddle", "beside", "", "ratio", "difference"], rows), *scaling] if rows else []
