//! Asks, endpoints, what is kept and what is written down.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use heddle_node::consul::{Instance, Standing};
use heddle_xds::model::{Endpoint, EndpointStatus};
use proptest::prelude::*;
use serde_json::json;

use super::endpoints::{MOST_ENDPOINTS, endpoints};
use super::*;
use crate::model::resources::Upstream;
use crate::store::RecordWrite;

fn ask(value: serde_json::Value) -> Option<Ask> {
    Ask::of(&serde_json::from_value::<Upstream>(value).unwrap())
}

fn instance(address: &str, port: u16) -> Instance {
    Instance { address: address.into(), port, weight_passing: 1, weight_warning: 1, ..Instance::default() }
}

fn usable(instances: &[Instance], ask: &Ask) -> Vec<Endpoint> {
    endpoints(instances, ask).endpoints
}

#[test]
fn upstreams_that_ask_the_same_share_an_ask() {
    let plain = ask(json!({"discovery_type": "consul", "service_name": "web"})).unwrap();
    assert_eq!(
        plain,
        ask(json!({"discovery_type": "consul", "service_name": "web", "discovery_args": {}, "retries": 3})).unwrap()
    );
    let tagged = ask(json!({"discovery_type": "consul", "service_name": "web", "discovery_args": {"tags": ["b", "a", "b"], "datacenter": "east"}})).unwrap();
    assert_eq!((&tagged.tags[..], tagged.datacenter.as_deref()), (&["a".to_owned(), "b".to_owned()][..], Some("east")));
    assert_ne!(plain.key(), tagged.key());
    assert_eq!(Ask::parse(&tagged.text()), Some(tagged));
    assert_eq!(ask(json!({"discovery_type": "dns", "service_name": "web"})), None);
    assert_eq!(ask(json!({"nodes": {"a:1": 1}})), None);
}

#[test]
fn instances_become_endpoints_with_all_that_consul_says() {
    let mut one = instance("10.0.0.2", 80);
    one.tags = vec!["v1".into(), "color=blue".into(), "=odd".into(), "traefik.enable=true".into()];
    one.meta = [("color".to_owned(), "green".to_owned()), ("build".to_owned(), "7".to_owned())].into();
    (one.zone, one.datacenter, one.node) = ("a".into(), "dc1".into(), "n1".into());
    (one.standing, one.weight_passing, one.weight_warning) = (Standing::Warning, 9, 2);
    let mut away = instance("10.0.0.1", 80);
    away.standing = Standing::Critical;
    let mut leaving = instance("host.example", 81);
    leaving.standing = Standing::Maintenance;
    let all = [
        one.clone(),
        away,
        leaving,
        instance("10.0.0.2", 80),
        instance("10.0.0.3", 0),
        instance("not a host", 80),
        instance("", 80),
    ];
    let found = usable(&all, &Ask::default());
    let told: Vec<_> = found.iter().map(|one| (&*one.host, one.port, one.weight, one.status)).collect();
    let expected = [
        ("10.0.0.1", 80, 1, EndpointStatus::Unhealthy),
        ("10.0.0.2", 80, 2, EndpointStatus::Healthy),
        ("host.example", 81, 1, EndpointStatus::Draining),
    ];
    assert_eq!(told, expected);
    let labels: Vec<_> = found[1].labels.iter().map(|(name, value)| (&**name, &**value)).collect();
    let expected =
        [("build", "7"), ("color", "green"), ("datacenter", "dc1"), ("node", "n1"), ("tag.=odd", "true"), ("tag.v1", "true")];
    assert_eq!(labels, expected);
    assert_eq!(&*found[1].zone, "a");
    assert_eq!(
        &*usable(&all, &Ask { near: Some("_agent".into()), ..Ask::default() })[0].host,
        "10.0.0.2",
        "Consul's order of the nearest"
    );
    assert!(usable(&all, &Ask { port: Some(99), ..Ask::default() }).iter().all(|one| one.port == 99));
}

#[test]
fn what_was_found_stays_while_consul_is_away_and_over_a_restart() {
    let web = Ask { service: "web".into(), ..Ask::default() };
    let mut discovered = Discovered::default();
    assert!(!discovered.note(&web, News::Answer(Vec::new(), None), 1), "nobody asks for it");
    discovered.keep(&BTreeSet::from([web.clone()]));
    let here = usable(&[instance("10.0.0.1", 80)], &Ask::default());
    assert!(discovered.note(&web, News::Answer(here.clone(), None), 1_000));
    assert!(!discovered.note(&web, News::Answer(here.clone(), None), 2_000), "no news");
    for now in [3_000, 9_000] {
        assert!(!discovered.note(&web, News::Away("gone".into()), now));
    }
    assert_eq!((discovered.get(&web).unwrap().failures, &discovered.get(&web).unwrap().endpoints), (2, &here));
    let shown = discovered.shown(13_000);
    assert_eq!(
        (&shown[0]["stale_seconds"], &shown[0]["fault"], &shown[0]["seen_ms"]),
        (&json!(10), &json!("gone"), &json!(2_000))
    );
    let writes = discovered.writes();
    let [RecordWrite::Set(key, body)] = &writes[..] else { panic!("{writes:?}") };
    assert_eq!(discovered.writes(), []);
    discovered.unwritten();
    assert_eq!(discovered.writes(), writes);
    let mut next = Discovered::default();
    next.restore(&[
        (key.clone(), body.clone()),
        ("mesh/vips/x".into(), b"{}".to_vec()),
        ("discovery/consul/{".into(), b"[]".to_vec()),
    ]);
    next.keep(&BTreeSet::from([web.clone()]));
    assert_eq!(next.get(&web).unwrap().endpoints, here);
    assert!(next.note(&web, News::Answer(Vec::new(), None), 1), "all have gone");
    next.writes();
    next.keep(&BTreeSet::new());
    assert_eq!(next.writes(), [RecordWrite::Remove(key.clone())]);
}

#[test]
fn local_addresses_are_left_out_only_where_that_is_asked() {
    let all = [instance("127.0.0.1", 80), instance("169.254.169.254", 80), instance("localhost", 80), instance("10.0.0.1", 80)];
    assert_eq!(usable(&all, &ask(json!({"discovery_type": "consul", "service_name": "web"})).unwrap()).len(), 4);
    let guarded =
        ask(json!({"discovery_type": "consul", "service_name": "web", "discovery_args": {"allow_local": false}})).unwrap();
    let found = endpoints(&all, &guarded);
    assert_eq!(found.endpoints.iter().map(|one| &*one.host).collect::<Vec<_>>(), ["10.0.0.1"]);
    assert!(found.left_out.unwrap().starts_with("3 instances"));
    let plain = Ask { no_local: false, ..guarded.clone() };
    assert!(guarded.text() != plain.text() && !plain.text().contains("no_local"), "records from before are found again");
}

#[test]
fn what_one_service_says_is_bounded() {
    let mut loud = instance("10.0.0.1", 80);
    loud.meta = (0..64).map(|number| (format!("name{number}"), "x".repeat(512))).collect();
    loud.tags = (0..9_999).map(|number| format!("t{number}")).collect();
    let bytes = |one: &Endpoint| one.labels.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    assert!(bytes(&usable(&[loud.clone()], &Ask::default())[0]) <= 8 * 1024);
    let address = |number: u32| std::net::Ipv4Addr::from(0x0a00_0000 + number).to_string();
    let many: Vec<Instance> =
        (0..10_100).map(|number| Instance { address: address(number), tags: Vec::new(), ..loud.clone() }).collect();
    let found = endpoints(&many, &Ask::default());
    assert_eq!(found.endpoints.len(), MOST_ENDPOINTS);
    assert!(found.left_out.unwrap().starts_with("100 instances are beyond"));
    let key = super::record::key(&Ask { service: "s".into(), ..Ask::default() });
    let body = super::record::body(&found.endpoints);
    let (_, read) = super::record::read(&key, &body).unwrap();
    assert!(body.len() <= super::record::MOST_BYTES && read.len() > 5_000, "{} bytes, {} endpoints", body.len(), read.len());
    assert!(read.iter().all(|one| one.labels.is_empty() && one.port == 80));
}

proptest! {
    /// Whatever services say of themselves, endpoints are distinct, usable and bounded, and their record is read as it was written.
    #[test]
    fn endpoints_are_bounded_and_written_whole(
        all in prop::collection::vec((".{0,20}|10\\.0\\.0\\.[1-9]", 0_u16..4, any::<u32>(), prop::collection::vec(".{0,8}", 0..5), any::<bool>()), 0..20),
    ) {
        let instances: Vec<Instance> = all.into_iter().map(|(address, port, weight, tags, critical)| {
            let standing = if critical { Standing::Critical } else { Standing::Passing };
            Instance { address, port, weight_passing: weight, tags, standing, ..Instance::default() }
        }).collect();
        let found: Vec<Endpoint> = usable(&instances, &Ask::default());
        let distinct: BTreeSet<_> = found.iter().map(|one| (one.host.clone(), one.port)).collect();
        prop_assert_eq!(distinct.len(), found.len());
        prop_assert!(found.iter().all(|one| one.port != 0 && one.weight <= 65_535 && !one.host.is_empty() && !one.host.contains(' ')));
        let ask = Ask { service: "s".into(), ..Ask::default() };
        prop_assert_eq!(super::record::read(&super::record::key(&ask), &super::record::body(&found)), Some((ask, found)));
    }
}
