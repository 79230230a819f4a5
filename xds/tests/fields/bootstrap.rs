//! What a bootstrap may say beside resources, of which there is no schema: every word that the decoder knows is tried in each of its messages.

use std::collections::BTreeSet;

use heddle_xds::dialect::envoy::decode::bootstrap::read;
use serde_json::{Value, json};

use super::specimens;

/// The messages of a bootstrap, and where they stand in it.
const PLACES: [(&str, &str); 8] = [
    ("Bootstrap", ""),
    ("Node", "/node"),
    ("Admin", "/admin"),
    ("Bootstrap.StaticResources", "/static_resources"),
    ("Bootstrap.DynamicResources", "/dynamic_resources"),
    ("ApiConfigSource", "/dynamic_resources/ads_config"),
    ("GrpcService", "/dynamic_resources/ads_config/grpc_services/0"),
    ("GrpcService.EnvoyGrpc", "/dynamic_resources/ads_config/grpc_services/0/envoy_grpc"),
];

fn usual() -> Value {
    let mut cluster = specimens::of("envoy.config.cluster.v3.Cluster").swap_remove(0);
    cluster["load_assignment"] = specimens::of("envoy.config.endpoint.v3.ClusterLoadAssignment").swap_remove(0);
    json!({
        "node": {}, "admin": {}, "static_resources": {"clusters": [cluster]},
        "dynamic_resources": {"ads_config": {"api_type": "GRPC", "grpc_services": [{"envoy_grpc": {"cluster_name": "c"}}]}},
    })
}

/// A bootstrap that says everything that has an effect.
fn whole() -> Value {
    let mut tree = usual();
    let socket = json!({ "socket_address": { "address": "127.0.0.1", "port_value": 0 } });
    tree["node"] = json!({ "id": "n", "cluster": "c", "locality": { "zone": "z" }, "metadata": {} });
    tree["admin"] = json!({ "address": socket });
    let statics = &mut tree["static_resources"];
    statics["listeners"] = json!([specimens::of("envoy.config.listener.v3.Listener").swap_remove(0)]);
    statics["secrets"] = json!([specimens::of("envoy.extensions.transport_sockets.tls.v3.Secret").swap_remove(0)]);
    let dynamic = &mut tree["dynamic_resources"];
    dynamic["ads_config"]["transport_api_version"] = json!("V3");
    (dynamic["cds_config"], dynamic["lds_config"]) = (json!({ "ads": {} }), json!({ "ads": {} }));
    tree
}

/// What a bootstrap may say with an effect, as a table: that of one that says all of it and is taken.
pub fn table() -> String {
    let whole = whole();
    assert!(read(&whole).is_ok(), "{:?}", read(&whole));
    let mut out = "| message | supported |\n|---|---|\n".to_owned();
    for (message, at) in PLACES {
        let fields = whole.pointer(at).and_then(Value::as_object).unwrap_or_else(|| panic!("{at} is no message"));
        let names: BTreeSet<String> = fields.keys().map(|name| format!("`{name}`")).collect();
        out.push_str(&format!("| `{message}` | {} |\n", names.into_iter().collect::<Vec<_>>().join(", ")));
    }
    out
}

/// Fields that are taken whatever they say.
pub fn idle(words: &BTreeSet<String>) -> BTreeSet<String> {
    let usual = usual();
    assert!(read(&usual).is_ok(), "{:?}", read(&usual));
    let mut idle = BTreeSet::new();
    for (message, at) in PLACES {
        for word in words {
            let mut tree = usual.clone();
            let there = tree.pointer_mut(at).and_then(Value::as_object_mut).unwrap_or_else(|| panic!("{at} is no message"));
            if there.contains_key(word) {
                continue;
            }
            there.insert(word.clone(), json!(true));
            if read(&tree).is_ok() {
                idle.insert(format!("{message}.{word}"));
            }
        }
    }
    idle
}
