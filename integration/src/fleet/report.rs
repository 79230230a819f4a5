//! What was measured, as JSON and as tables for people.

use std::time::Duration;

use serde_json::{Value, json};

use super::ledger::Reach;
use super::{Fleet, Measured};
use crate::measure::percentile;

/// One row of the table of proportions.
#[derive(Debug, Clone)]
pub struct Row {
    pub what: &'static str,
    pub reach: Reach,
    pub measured: Measured,
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e5).round() / 100.0
}

fn spread(times: &[Duration]) -> Value {
    if times.is_empty() {
        return Value::Null;
    }
    json!({ "p50": ms(percentile(times, 50)), "p99": ms(percentile(times, 99)), "max": ms(percentile(times, 100)) })
}

/// Everything about a number of changes.
pub fn json(measured: &Measured) -> Value {
    let each = |whole: Duration, count: u64| (whole.as_secs_f64() * 1e6 / count.max(1) as f64 * 100.0).round() / 100.0;
    let seconds = measured.took.as_secs_f64();
    json!({
        "dialect": measured.dialect.as_str(),
        "agents": measured.agents,
        "routes": measured.size.routes,
        "endpoints": measured.size.endpoints,
        "changes": measured.changes,
        "rate_reached": (measured.changes as f64 / measured.written.took.as_secs_f64() * 10.0).round() / 10.0,
        "seconds": seconds,
        "turn_to_answer_ms": spread(&measured.written.answers),
        "accepted_to_first_ack_ms": spread(&measured.first),
        "accepted_to_last_ack_ms": spread(&measured.last),
        "route_to_last_ack_ms": spread(&measured.routes),
        "endpoints_to_last_ack_ms": spread(&measured.endpoints),
        "control_plane_core_share": (measured.cpu.as_secs_f64() / seconds * 1000.0).round() / 1000.0,
        "control_plane_idle_core_share": (measured.idle * 1000.0).round() / 1000.0,
        "generator_core_share": (measured.generator.as_secs_f64() / seconds * 1000.0).round() / 1000.0,
        "cpu_us_per_change": each(measured.cpu, measured.changes as u64),
        "cpu_us_per_response": each(measured.cpu, measured.traffic.responses),
        "responses": measured.traffic.responses,
        "resources": measured.traffic.resources,
        "megabytes": measured.traffic.bytes / 1_000_000,
    })
}

/// Memory in MiB: the configuration alone, with all agents, after the run and at the highest.
pub fn memory(fleet: &Fleet, loaded: u64) -> Value {
    let (after, peak) = fleet.memory();
    json!({ "at_start": fleet.memory_at_start, "with_agents": loaded, "after_run": after, "peak": peak })
}

/// The figures of the run, one a line.
pub fn run_text(run: &Value) -> String {
    let line = |name: &str, value: String| format!("{name:<38}{value}\n");
    let times = |at: &Value| match at {
        Value::Null => "none".to_owned(),
        at => format!("p50 {} ms, p99 {} ms, max {} ms", at["p50"], at["p99"], at["max"]),
    };
    let memory = &run["memory_mib"];
    [
        line("dialect", run["dialect"].as_str().unwrap_or_default().to_owned()),
        line("agents, routes, endpoints", format!("{}, {}, {}", run["agents"], run["routes"], run["endpoints"])),
        line("changes, rate reached", format!("{}, {}/s", run["changes"], run["rate_reached"])),
        line("the Admin API's answer", times(&run["turn_to_answer_ms"])),
        line("accepted write to the first ACK", times(&run["accepted_to_first_ack_ms"])),
        line("accepted write to the last ACK", times(&run["accepted_to_last_ack_ms"])),
        line("  of a route", times(&run["route_to_last_ack_ms"])),
        line("  of endpoints", times(&run["endpoints_to_last_ack_ms"])),
        line("responses, resources, MB", format!("{}, {}, {}", run["responses"], run["resources"], run["megabytes"])),
        line("CPU per change, per response", format!("{} us, {} us", run["cpu_us_per_change"], run["cpu_us_per_response"])),
        line(
            "share of a core",
            format!(
                "control plane {} (idle {}), generator {}",
                run["control_plane_core_share"], run["control_plane_idle_core_share"], run["generator_core_share"]
            ),
        ),
        line(
            "memory (MiB)",
            format!(
                "start {}, with agents {}, after {}, peak {}",
                memory["at_start"], memory["with_agents"], memory["after_run"], memory["peak"]
            ),
        ),
        line("all agents loaded within", format!("{} s", run["load_seconds"])),
    ]
    .concat()
}

/// The table of proportions, as JSON.
pub fn rows_json(rows: &[Row]) -> Value {
    let row = |row: &Row| {
        let mut value = json(&row.measured);
        let needed = row.measured.deliveries(row.reach);
        value["what"] = row.what.into();
        value["cpu_us_per_delivery"] =
            ((row.measured.cpu.as_secs_f64() * 1e6 / needed.max(1) as f64 * 100.0).round() / 100.0).into();
        value
    };
    rows.iter().map(row).collect()
}

/// The table of proportions, in Markdown.
pub fn rows_text(rows: &Value) -> String {
    let mut text = String::from(
        "| a change of | routes | agents | CPU per change | per agent that it concerns | last ACK p50 | p99 |\n|---|---|---|---|---|---|---|\n",
    );
    for row in rows.as_array().into_iter().flatten() {
        let last = &row["accepted_to_last_ack_ms"];
        text.push_str(&format!(
            "| {} | {} | {} | {} us | {} us | {} ms | {} ms |\n",
            row["what"].as_str().unwrap_or_default(),
            row["routes"],
            row["agents"],
            row["cpu_us_per_change"],
            row["cpu_us_per_delivery"],
            last["p50"],
            last["p99"]
        ));
    }
    text
}
