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
