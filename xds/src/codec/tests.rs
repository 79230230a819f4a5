//! Every resource survives the wire; nothing that comes from it panics or exceeds its bounds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod arbitrary;

pub(crate) use arbitrary::resource;

use std::sync::Arc;

use heddle_proto::envoy::config::endpoint::v3 as eds;
use heddle_proto::heddle::config::v1 as wire;
use proptest::prelude::*;
use prost::{Message, Name};

use super::*;
use crate::model::{Endpoint, EndpointStatus, Endpoints, PluginConf, PluginOrigin, Secret, SecretBody};

proptest! {
    #[test]
    fn every_resource_survives_the_wire(resource in resource()) {
        let any = encode(&resource);
        let back = decode(resource.kind(), &any).unwrap();
        prop_assert_eq!(&back, &resource);
        prop_assert_eq!(encode_body(&back), encode_body(&resource));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(kind in 0usize..9, body in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode_body(Kind::ALL[kind], &body);
    }

    #[test]
    fn no_damage_makes_the_reader_panic(resource in resource(), at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<bool>()) {
        let mut body = encode_body(&resource).to_vec();
        if !body.is_empty() {
            let at = at.index(body.len());
            body[at] = with;
            if cut { body.truncate(at); }
        }
        let _ = decode_body(resource.kind(), &body);
    }
}

#[test]
fn type_urls_are_those_of_the_messages() {
    assert_eq!(Kind::Listener.type_url(), wire::Listener::type_url());
    assert_eq!(Kind::Route.type_url(), wire::Route::type_url());
    assert_eq!(Kind::Upstream.type_url(), wire::Upstream::type_url());
    assert_eq!(Kind::Endpoints.type_url(), eds::ClusterLoadAssignment::type_url());
    assert_eq!(Kind::Consumer.type_url(), wire::Consumer::type_url());
    assert_eq!(Kind::GlobalRule.type_url(), wire::GlobalRule::type_url());
    assert_eq!(Kind::Certificate.type_url(), wire::Certificate::type_url());
    assert_eq!(Kind::PluginMetadata.type_url(), wire::PluginMetadata::type_url());
    let secret = heddle_proto::envoy::extensions::transport_sockets::tls::v3::Secret::type_url();
    assert_eq!(Kind::Secret.type_url(), secret);
    for (at, kind) in Kind::ALL.into_iter().enumerate() {
        assert_eq!(kind.index(), at);
        assert_eq!(Kind::from_type_url(kind.type_url()), Some(kind));
    }
}

fn endpoint(host: &str, weight: u32, priority: i32, zone: &str) -> Endpoint {
    Endpoint { host: host.into(), port: 80, weight, priority, zone: zone.into(), ..Endpoint::default() }
}

fn wire_endpoints(endpoints: Vec<Endpoint>) -> eds::ClusterLoadAssignment {
    let resource = Resource::Endpoints(Endpoints { upstream: "upstreams/u".into(), endpoints: endpoints.into() });
    eds::ClusterLoadAssignment::decode(encode_body(&resource)).unwrap()
}

#[test]
fn endpoints_are_what_eds_demands() {
    let wire = wire_endpoints(vec![
        endpoint("10.0.0.1", 3, 5, "a"),
        endpoint("db.internal", 0, -2, "b"),
        endpoint("10.0.0.2", 4, 5, "b"),
        endpoint("10.0.0.3", 2, 5, "a"),
    ]);
    let groups: Vec<_> = wire.endpoints.iter().map(|g| (g.priority, g.locality.clone().unwrap().zone)).collect();
    assert_eq!(groups, [(0, "a".to_string()), (0, "b".to_string()), (1, "b".to_string())]);
    assert_eq!(wire.endpoints[0].load_balancing_weight, Some(5));
    assert_eq!(wire.endpoints[2].load_balancing_weight, Some(1), "a locality without weight is refused by gRPC");
    let away = &wire.endpoints[2].lb_endpoints[0];
    assert_eq!((away.health_status, away.load_balancing_weight), (3, None));
}

#[test]
fn plain_endpoints_carry_no_metadata() {
    let wire =
        wire_endpoints(vec![endpoint("10.0.0.1", 1, 0, ""), endpoint("10.0.0.2", 1, 0, ""), endpoint("10.0.0.3", 1, -1, "")]);
    assert!(wire.endpoints.iter().flat_map(|g| &g.lb_endpoints).all(|e| e.metadata.is_none()));
}

#[test]
fn endpoints_of_other_servers_are_understood() {
    let message = eds::ClusterLoadAssignment {
        cluster_name: "web".to_string(),
        endpoints: wire_endpoints(vec![endpoint("10.0.0.1", 1, 0, ""), endpoint("10.0.0.2", 1, -1, "")])
            .endpoints
            .into_iter()
            .map(|mut group| {
                group.locality = None;
                group.lb_endpoints[0].load_balancing_weight = None;
                group
            })
            .collect(),
        ..Default::default()
    };
    let Resource::Endpoints(read) = decode_body(Kind::Endpoints, &message.encode_to_vec()).unwrap() else { panic!() };
    assert_eq!(*read.endpoints, [endpoint("10.0.0.1", 1, 0, ""), endpoint("10.0.0.2", 1, -1, "")]);
}

#[test]
fn faults_name_kind_name_field_and_reason() {
    let config =
        PluginConf { name: "cors".into(), config: Arc::new(serde_json::json!({})), origin: PluginOrigin("route/r".into()) };
    let rule = crate::model::GlobalRule { id: "g1".into(), plugins: vec![config] };
    let mut message = wire::GlobalRule::decode(encode_body(&Resource::GlobalRule(rule))).unwrap();
    message.plugins[0].config = b"{".to_vec();
    let fault = decode_body(Kind::GlobalRule, &message.encode_to_vec()).unwrap_err();
    assert_eq!((&*fault.name, fault.field.as_str()), ("g1", "plugins[0].config"));
    assert!(fault.to_string().starts_with("GlobalRule g1: plugins[0].config: is not JSON: "), "{fault}");
}

#[test]
fn another_type_is_refused() {
    let secret = Resource::Secret(Secret { name: "s".into(), body: SecretBody::Roots("pem".into()) });
    let fault = decode(Kind::Route, &encode(&secret)).unwrap_err();
    assert_eq!(fault.field, "@type");
}

#[test]
fn sizes_are_bounded() {
    let snis = vec!["a".to_string(); 5000];
    let message = wire::Certificate { id: "c".to_string(), snis, min_version: 1, max_version: 2, ..Default::default() };
    let fault = decode_body(Kind::Certificate, &message.encode_to_vec()).unwrap_err();
    assert_eq!((fault.field.as_str(), fault.reason.as_str()), ("snis", "has 5000 elements, at most 4096 are allowed"));
    let fault = decode_body(Kind::Route, &vec![0; read::MAX_RESOURCE_BYTES + 1]).unwrap_err();
    assert!(fault.reason.contains("at most"), "{fault}");
}

/// Bytes that another implementation of the public interface encoded, with fields that we do not know.
#[test]
fn resources_of_other_servers_are_understood() {
    let endpoints = b"\x0a\x03web\x12M\x0a\x0b\x0a\x02eu\x12\x05eu-1a\x12\x1d\x0a\x15\x0a\x0f\x0a\x0d\x12\x0810.0.0.1\x18\x90?\x12\x02\x08\x09\x10\x01\
        \x22\x02\x08\x03\x12\x19\x0a\x11\x0a\x0f\x0a\x0d\x12\x0810.0.0.2\x18\x90?\x10\x03\x22\x02\x08\x05\x1a\x02\x08\x01(\x01\x22\x05\x1a\x03\x08\x8c\x01";
    let Resource::Endpoints(read) = decode_body(Kind::Endpoints, endpoints).unwrap() else { panic!() };
    let expected = |host: &str, weight, status| Endpoint { port: 8080, status, ..endpoint(host, weight, -1, "eu-1a") };
    let (healthy, draining) =
        (expected("10.0.0.1", 3, EndpointStatus::Healthy), expected("10.0.0.2", 5, EndpointStatus::Draining));
    assert_eq!((&*read.upstream, read.endpoints), ("web", [healthy, draining].into()));
    let secret = b"\x0a\x04cert\x12\x10\x0a\x07\x1a\x05CHAIN\x12\x05\x12\x03KEY";
    let body = SecretBody::KeyPair { chain_pem: "CHAIN".into(), key_pem: "KEY".into() };
    let expected = Resource::Secret(Secret { name: "cert".into(), body });
    assert!(decode_body(Kind::Secret, secret).unwrap() == expected, "key material is not shown");
}
