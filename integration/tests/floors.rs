//! The house rules, kept by reading the text of all sources: who may see whom, how long things may be, where inputs come from. It runs nothing of Heddle.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "floors/lexer.rs"]
mod lexer;
#[path = "floors/rules.rs"]
mod rules;
#[path = "floors/selftest.rs"]
mod selftest;
#[path = "floors/source.rs"]
mod source;

use std::fs;

/// Each crate and those that it may see. The agent and the control plane meet only on the wire.
const FLOORS: [(&str, &[&str]); 8] = [
    ("proto", &[]),
    ("node", &[]),
    ("xds", &["proto", "node"]),
    ("agent", &["proto", "node", "xds"]),
    ("controlplane", &["proto", "node", "xds"]),
    ("sidecar", &["proto", "node", "xds", "agent", "controlplane"]),
    ("cli", &["proto", "node", "xds", "agent", "controlplane", "sidecar"]),
    ("integration", &["proto", "node", "xds", "agent", "controlplane", "sidecar"]),
];

/// The modules of each crate, from the bottom up. A module sees those of its own rank and below, as long as there is no cycle.
const ORDER: [(&str, &[&[&str]]); 4] = [
    (
        "node",
        &[
            &["clock", "hex", "memory", "sockets", "weak_map"],
            &["drain", "readiness", "config", "notify", "telemetry", "token", "identity"],
            &["signal", "settings", "membership", "consul"],
        ],
    ),
    ("xds", &[&["model", "catalog", "tree"], &["codec"], &["snapshot", "protocol", "link"], &["dialect"], &["client", "server"]]),
    (
        "agent",
        &[
            &["http"],
            &["exchange"],
            &["net"],
            &["authorize", "dns", "balance", "health", "upstream", "filters", "route", "observe", "outbound", "secrets"],
            &["tables"],
            &["pipeline"],
            &["settings", "listener", "mesh_dns"],
            &["identity", "registration"],
            &["feed"],
            &["admin"],
            &["app"],
            &["bench"],
        ],
    ),
    (
        "controlplane",
        &[
            &["model"],
            &["store"],
            &["leader"],
            &["seal", "state", "discovery"],
            &["validate", "mesh", "translate", "provider", "settings"],
            &["access", "ca"],
            &["rest", "grpc"],
            &["app"],
        ],
    ),
];

/// Where generated protobuf types may be named: `proto` itself, the codecs and gRPC ends of `xds`, of identities and of those who decide, the store on etcd,
/// the gRPC Admin API and its client.
const WIRE: [&str; 14] = [
    "proto/",
    "xds/src/codec",
    "xds/src/dialect",
    "xds/src/protocol",
    "xds/src/client",
    "xds/src/server",
    "agent/src/filters/ext_authz/wire",
    "agent/src/identity/sds",
    "agent/src/identity/wire",
    "agent/src/identity/workload",
    "controlplane/src/grpc",
    "controlplane/src/store/etcd",
    "cli/src/client",
    "integration/",
];

fn none(violations: Vec<String>) {
    assert!(violations.is_empty(), "{} violations of the house rules:\n{}", violations.len(), violations.join("\n"));
}

#[test]
fn crates_are_floors() {
    let manifest = |member: &str| fs::read_to_string(source::root().join(member).join("Cargo.toml")).unwrap();
    none(FLOORS.iter().flat_map(|(member, allowed)| rules::floors(member, &manifest(member), allowed)).collect());
}

#[test]
fn modules_keep_their_order() {
    let sources = source::all();
    let ordered = ORDER.iter().flat_map(|(member, order)| rules::order(&sources, member, order));
    none(ordered.chain(source::members().iter().flat_map(|member| rules::cycles(&sources, member))).collect());
}

#[test]
fn files_functions_and_folders_are_short() {
    none(rules::sizes(&source::all()));
}

#[test]
fn inputs_come_from_outside() {
    let sources = source::all();
    let mut out = rules::confined(
        &sources,
        &["std::env", "env::var", "env::vars"],
        &["cli/", "node/examples/"],
        "the environment is read by programs only; pass the value in",
    );
    let clocks = ["Instant::now", "SystemTime::now"];
    out.extend(rules::confined(
        &sources,
        &clocks,
        &["node/src/clock.rs"],
        "take the time from heddle_node::clock, or as a parameter",
    ));
    none(out);
}

#[test]
fn wire_types_stay_at_the_wire() {
    none(rules::confined(
        &source::all(),
        &["heddle_proto"],
        &WIRE,
        "generated types stay in the codecs; use the types of xds::model",
    ));
}

#[test]
fn nothing_panics_without_a_reason() {
    let sources = source::all();
    let mut out = rules::panics(&sources);
    out.extend(rules::proofs(&sources));
    none(out);
}

#[test]
fn nothing_is_left_behind() {
    none(rules::leftovers(&source::all()));
}
