//! What a bootstrap holds itself, looked at as a whole: what cannot be used, what cannot stand beside each other, and what leads nowhere. It reads no field.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use super::bootstrap::Bootstrap;
use super::piece::Door;
use super::{DecodeFault as Fault, Piece, material};
use crate::dialect::envoy::kind::EnvoyKind;

/// Everything that is wrong, each with its place.
pub fn faults(bootstrap: &Bootstrap) -> Vec<Fault> {
    let clusters: BTreeSet<&str> =
        bootstrap.statics.iter().filter(|piece| piece.kind() == EnvoyKind::Cluster).map(|piece| &**piece.name()).collect();
    let more_clusters = bootstrap.follows.as_ref().is_some_and(|follows| follows.kinds.contains(&EnvoyKind::Cluster));
    let mut counts: BTreeMap<EnvoyKind, usize> = BTreeMap::new();
    let mut addresses: HashMap<SocketAddr, &Arc<str>> = HashMap::new();
    let mut faults = Vec::new();
    for piece in &bootstrap.statics {
        let count = counts.entry(piece.kind()).or_default();
        let place = format!("static_resources.{}[{count}] ({})", field(piece.kind()), piece.name());
        *count += 1;
        let mut wrong: Vec<Fault> = material::usable(piece).err().into_iter().collect();
        if let Piece::Listener(door) = piece {
            wrong.extend(taken(door, &mut addresses));
            if !more_clusters {
                wrong.extend(astray(door, &clusters));
            }
        }
        faults.extend(wrong.into_iter().map(|fault| fault.inside(&place)));
    }
    faults
}

/// Where resources of a kind stand.
fn field(kind: EnvoyKind) -> &'static str {
    match kind {
        EnvoyKind::Secret => "secrets",
        EnvoyKind::Cluster => "clusters",
        _ => "listeners",
    }
}

/// The address of a listener before this one.
fn taken<'d>(door: &'d Door, addresses: &mut HashMap<SocketAddr, &'d Arc<str>>) -> Option<Fault> {
    let (address, name) = (door.listener.address, &door.listener.name);
    if address.port() == 0 {
        return None;
    }
    let holder = *addresses.entry(address).or_insert(name);
    (!Arc::ptr_eq(holder, name)).then(|| door.taken_by(holder))
}

/// Clusters that are not there and that nobody will tell of.
fn astray(door: &Door, clusters: &BTreeSet<&str>) -> Vec<Fault> {
    let chains = door.chains.iter().enumerate();
    let named = chains.flat_map(|(at, chain)| chain.clusters().into_iter().map(move |cluster| (at, cluster)));
    let unknown: BTreeSet<(usize, &str)> = named.filter(|(_, cluster)| !clusters.contains(cluster)).collect();
    let fault = |(at, cluster): (usize, &str)| {
        let reason = format!(
            "leads to the cluster {cluster:?}, which is not among the static_resources, and without cds_config nobody is asked for it"
        );
        let place = door.chains.get(at).map(|chain| chain.place(at)).unwrap_or_default();
        Fault::new(format!("{place}.filters"), reason)
    };
    unknown.into_iter().map(fault).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::{Value, json};

    use super::super::bootstrap;
    use super::super::tests::{any, listener, routes};
    use super::*;

    fn at(name: &str, address: &str, port: u16) -> Value {
        let answer = json!({"match": {"prefix": "/"}, "direct_response": {"status": 204}});
        let mut table = routes("r", "c");
        table["virtual_hosts"][0]["routes"] = json!([answer]);
        let mut listener = listener(name, Some(table));
        listener["address"] = json!({"socket_address": {"address": address, "port_value": port}});
        listener
    }

    fn told(resources: Value) -> Vec<String> {
        let bootstrap = bootstrap::read(&json!({"static_resources": resources})).unwrap();
        faults(&bootstrap).into_iter().map(|fault| format!("{}: {}", fault.field, fault.reason)).collect()
    }

    #[test]
    fn one_address_is_for_one_listener() {
        let legal = [
            at("a", "127.0.0.1", 1),
            at("b", "0.0.0.0", 1),
            at("c", "127.0.0.1", 2),
            at("d", "127.0.0.1", 0),
            at("e", "127.0.0.1", 0),
        ];
        assert_eq!(told(json!({"listeners": legal})), Vec::<String>::new());
        let twice = [at("a", "127.0.0.1", 1), at("b", "127.0.0.1", 2), at("c", "::ffff:127.0.0.1", 1)];
        let told = told(json!({"listeners": twice}));
        assert_eq!(
            told,
            [
                "static_resources.listeners[2] (c).address: 127.0.0.1:1 is the address of the listener a, and one address is for one listener"
            ]
        );
    }

    #[test]
    fn key_material_of_no_use_is_told_where_it_stands() {
        let material = |text: &str| json!({"inline_string": text});
        let pair = json!({"certificate_chain": material("C"), "private_key": material("K")});
        let shown = json!({"common_tls_context": {"tls_certificates": [pair]}});
        let trusts = json!({"common_tls_context": {"validation_context": {"trusted_ca": material("R")}}});
        let tls = |kind: &str, context: Value| json!({"name": "tls", "typed_config": any(&format!("envoy.extensions.transport_sockets.tls.v3.{kind}"), context)});
        let mut door = at("l", "127.0.0.1", 1);
        door["filter_chains"][0]["transport_socket"] = tls("DownstreamTlsContext", shown);
        let cluster = json!({"name": "c", "type": "STATIC", "transport_socket": tls("UpstreamTlsContext", trusts)});
        let told = told(json!({"secrets": [{"name": "s", "tls_certificate": pair}], "clusters": [cluster], "listeners": [door]}));
        let fields: Vec<&str> = told.iter().map(|line| line.split(": ").next().unwrap()).collect();
        let context = "transport_socket.typed_config.common_tls_context";
        let expected = [
            "static_resources.secrets[0] (s).tls_certificate.certificate_chain".to_owned(),
            format!("static_resources.clusters[0] (c).{context}.validation_context.trusted_ca"),
            format!("static_resources.listeners[0] (l).filter_chains[0].{context}.tls_certificates[0].certificate_chain"),
        ];
        assert_eq!(fields, expected);
    }

    /// A control plane must not make an agent read its environment.
    #[test]
    fn references_to_what_is_kept_elsewhere_are_no_key_material() {
        for (text, why) in
            [("$env://HOME", "found a reference"), ("$SECRET://file/a/b", "found a reference"), (" \n", "is empty")]
        {
            let secret = json!({"name": "s", "validation_context": {"trusted_ca": {"inline_string": text}}});
            let refused = bootstrap::read(&json!({"static_resources": {"secrets": [secret]}})).unwrap_err();
            let told = format!("{refused:?}");
            assert!(told.contains("validation_context.trusted_ca") && told.contains(why), "{told}");
        }
    }

    #[test]
    fn what_leads_to_a_cluster_that_cannot_come_is_told() {
        let listeners = json!([listener("l", Some(routes("r", "nosuch")))]);
        let alone = json!({"listeners": listeners});
        assert!(
            told(alone)[0]
                .starts_with("static_resources.listeners[0] (l).filter_chains[0].filters: leads to the cluster \"nosuch\"")
        );
        let there = json!({"listeners": listeners, "clusters": [{"name": "nosuch", "type": "STATIC"}]});
        assert_eq!(told(there), Vec::<String>::new());
        let mut unchecked = routes("r", "nosuch");
        unchecked["validate_clusters"] = json!(false);
        assert_eq!(told(json!({"listeners": [listener("l", Some(unchecked))]})), Vec::<String>::new(), "it says so itself");
        let mut bytes = listener("t", None);
        let proxy =
            any("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", json!({"stat_prefix": "t", "cluster": "nobody"}));
        bytes["filter_chains"][0]["filters"] = json!([{"name": "tcp", "typed_config": proxy}]);
        assert!(told(json!({"listeners": [bytes]}))[0].contains("leads to the cluster \"nobody\""));
        let mut by_default = listener("d", None);
        by_default["default_filter_chain"] = bytes["filter_chains"][0].clone();
        by_default["filter_chains"] = json!([]);
        let told_of = told(json!({"listeners": [by_default]}));
        assert!(told_of[0].starts_with("static_resources.listeners[0] (d).default_filter_chain.filters: "), "{told_of:?}");
        let mut asks = listener("l", Some(routes("r", "c")));
        let judge = any(
            "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
            json!({"grpc_service": {"envoy_grpc": {"cluster_name": "judge"}}}),
        );
        let filters = asks["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"].as_array_mut().unwrap();
        filters.insert(0, json!({"name": "authz", "typed_config": judge}));
        let there = json!([{"name": "c", "type": "STATIC"}]);
        assert!(told(json!({"listeners": [asks], "clusters": there}))[0].contains("leads to the cluster \"judge\""));
    }
}
