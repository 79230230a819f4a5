//! What `heddle explain` says of where an upstream leads: its subset of nodes, and the zones that are used from each zone. The agent's own balancer shares out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use heddle_agent::balance::{Callers, Epoch, Node, Policy, Standing, View, Zones};
use heddle_controlplane::model::{Key, Labels, ResourceKind, resources};
use heddle_controlplane::state::State;
use heddle_controlplane::translate::Translator;
use heddle_node::clock;
use heddle_xds::model::{Endpoint, Resource, Upstream, ZoneMode, ZonePolicy};
use serde::Deserialize;

/// Zones of gateways that are told about.
const MOST_ZONES: usize = 12;

/// What is to be known of the upstream of this name, one sentence each.
pub(super) fn notes(translator: &Translator, state: &State, name: &str) -> Vec<String> {
    let (mut upstream, mut endpoints): (Option<&Upstream>, &[Endpoint]) = (None, &[]);
    for resource in translator.resources() {
        match resource {
            Resource::Upstream(one) if &*one.name == name => upstream = Some(one),
            Resource::Endpoints(one) if &*one.upstream == name => endpoints = &one.endpoints,
            _ => {}
        }
    }
    let Some(upstream) = upstream else { return Vec::new() };
    let subset = subset(state, name)
        .map(|labels| format!("upstream {name} uses only nodes with {}: {} at present", labels.join(", "), endpoints.len()));
    subset.into_iter().chain(zones(&upstream.locality, upstream.panic_threshold, endpoints)).collect()
}

/// The labels that nodes must have, `name=value`; `None` where all are used.
fn subset(state: &State, name: &str) -> Option<Vec<String>> {
    let (collection, id) = name.split_once('/')?;
    let value = &state.get(&Key::new(ResourceKind::from_plural(collection)?, id))?.value;
    let written = if collection == ResourceKind::Upstream.plural() { value } else { value.get("upstream")? };
    let labels: Labels = resources::Upstream::deserialize(written).ok()?.subset;
    (!labels.is_empty()).then(|| labels.iter().map(|(name, value)| format!("{name}={value}")).collect())
}

/// Which zones are used from which, as long as all endpoints stand.
fn zones(policy: &ZonePolicy, panic_threshold: Option<u8>, endpoints: &[Endpoint]) -> Vec<String> {
    let zones: BTreeSet<&Arc<str>> =
        endpoints.iter().map(|endpoint| &endpoint.zone).chain(&policy.failover).filter(|zone| !zone.is_empty()).collect();
    match policy.mode {
        _ if zones.len() < 2 => Vec::new(),
        ZoneMode::Off => vec!["zones do not matter here: all endpoints are used alike".to_owned()],
        ZoneMode::Prefer | ZoneMode::Strict => {
            zones.iter().take(MOST_ZONES).map(|own| from(own, policy, panic_threshold, endpoints)).collect()
        }
    }
}

fn from(own: &Arc<str>, policy: &ZonePolicy, panic_threshold: Option<u8>, endpoints: &[Endpoint]) -> String {
    let (epoch, now) = (Arc::<Epoch>::default(), clock::now());
    let node = |(index, endpoint): (usize, &Endpoint)| Node {
        id: index as u64,
        identity: format!("{}:{}", endpoint.host, endpoint.port).into(),
        weight: endpoint.weight,
        priority: endpoint.priority,
        zone: endpoint.zone.clone(),
        standing: Arc::new(Standing::new(epoch.clone(), now)),
    };
    let nodes = endpoints.iter().enumerate().map(node).collect();
    let zones = Zones { own: own.clone(), policy: policy.clone(), callers: Arc::<Callers>::default() };
    // How one endpoint of a zone is chosen does not matter for the shares of zones.
    let view = View::new(Policy::RoundRobin, nodes, Duration::ZERO, panic_threshold, zones, epoch);
    let shares = view.zone_shares(now);
    let named = |zone: &Arc<str>| if zone.is_empty() { "none".to_owned() } else { zone.to_string() };
    let used = |share: &heddle_agent::balance::ZoneShare| {
        (share.share > 0.0).then(|| format!("{} {:.0} % ({})", named(&share.zone), share.share * 100.0, share.why.as_str()))
    };
    let mut told: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for share in &shares {
        let text = used(share);
        let what = if text.is_some() { "used" } else { share.why.as_str() };
        told.entry(what).or_default().push(text.unwrap_or_else(|| named(&share.zone)));
    }
    let used = told.remove("used").map_or_else(|| "nothing (503)".to_owned(), |used| used.join(", "));
    let rest: Vec<String> = told.into_iter().map(|(why, zones)| format!("{} {why}", zones.join(", "))).collect();
    let rest = if rest.is_empty() { String::new() } else { format!("; {}", rest.join("; ")) };
    format!("from zone {own}, as long as all endpoints stand: {used}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(mode: ZoneMode, failover: &[&str], endpoints: &[&str]) -> Vec<String> {
        let endpoint =
            |zone: &&str| Endpoint { host: "10.0.0.1".into(), port: 80, weight: 1, zone: (*zone).into(), ..Endpoint::default() };
        let failover = failover.iter().map(|zone| (*zone).into()).collect();
        let endpoints: Vec<Endpoint> = endpoints.iter().map(endpoint).collect();
        zones(&ZonePolicy { mode, failover, ..ZonePolicy::default() }, Some(10), &endpoints)
    }

    #[test]
    fn zones_are_told_from_each_of_them() {
        let expected = [
            "from zone a, as long as all endpoints stand: a 100 % (own); b spare",
            "from zone b, as long as all endpoints stand: b 100 % (own); a spare",
        ];
        assert_eq!(told(ZoneMode::Prefer, &[], &["a", "b", "b"]), expected);
        let strict = told(ZoneMode::Strict, &["c"], &["a", "b"]);
        assert_eq!(strict[2], "from zone c, as long as all endpoints stand: nothing (503); a, b barred");
        assert_eq!(told(ZoneMode::Off, &[], &["a", "b"]).len(), 1);
        assert!(told(ZoneMode::Prefer, &[], &["b", "b"]).is_empty(), "one zone is no choice");
    }
}
