//! What the fleet tells of callers and loads, taken over for balancing, and what this node tells the fleet in turn. It asks nobody: members are read as they are
//! known, once a second and off the request path.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock;
use heddle_node::membership::{EndpointLoad, Fleet, Member, MemberState, Membership};
use tokio::time::Instant;

use super::Cluster;
use crate::balance::{Callers, ZoneShare, joint_load, tilts};

/// How often callers and loads are looked at.
pub(super) const ROUND: Duration = Duration::from_secs(1);
/// Loads that this node tells of, those of the busiest endpoints.
const MAX_TOLD: usize = 64;
/// Loads of one member that are listened to.
const MAX_HEARD: usize = 256;
/// Ports of one member that are listened to.
const MAX_PORTS: usize = 32;
/// The role of control planes.
const CONTROL_PLANE: &str = "controlplane";
/// What a member has said is old when it was not heard for so long.
const STALE_MS: u64 = 5_000;

impl Cluster {
    /// What each zone carries, and why.
    pub fn zones(&self, now: Instant) -> Vec<ZoneShare> {
        self.view().balance.zone_shares(now)
    }

    fn in_flight(&self) -> Vec<(SocketAddr, u32)> {
        let count = |active: u64| u32::try_from(active).unwrap_or(u32::MAX);
        self.view().endpoints.iter().map(|endpoint| (endpoint.core.address, count(endpoint.core.stats.totals().active))).collect()
    }

    /// Leans away from endpoints that others load, where the upstream asks for it and there are others.
    fn lean(&self, said: Option<&HashMap<(&str, SocketAddr), Vec<u32>>>) {
        let view = self.view().clone();
        let joint = said.filter(|_| view.spec.config.fleet_load).map(|said| {
            let nodes = view.balance.nodes().iter().zip(self.in_flight());
            let load = |(address, own): (SocketAddr, u32)| {
                joint_load(own, said.get(&(&*self.name, address)).map_or(&[][..], |others| &others[..]))
            };
            nodes.map(|(node, of)| (node.weight, load(of))).collect::<Vec<_>>()
        });
        let tilts = joint.map(|joint| tilts(&joint)).unwrap_or_default();
        for (at, node) in view.balance.nodes().iter().enumerate() {
            node.standing.lean(tilts.get(at).copied().unwrap_or(256));
        }
    }
}

/// Looks at the fleet once a second while there is more than this node, until nobody has use for it.
pub(super) async fn follow(membership: Membership, callers: Arc<Callers>, clusters: impl Fn() -> Option<Vec<Arc<Cluster>>>) {
    let mut heard = membership.heard();
    loop {
        if membership.fleet().members.len() > 1 {
            tokio::time::sleep(ROUND).await;
        } else if heard.changed().await.is_err() {
            return;
        }
        let Some(clusters) = clusters() else { return };
        let fleet = membership.fleet();
        if count_callers(&fleet, &membership, &callers) {
            clusters.iter().for_each(|cluster| cluster.epoch().bump());
        }
        exchange(&fleet, &membership, &clusters, clock::unix_ms());
        let leaving = leaving(&fleet);
        clusters.iter().for_each(|cluster| cluster.members_leave(&leaving, clock::now()));
    }
}

/// Where the members take requests that are about to leave, or have left. A member speaks for ports of the host only where it has been seen to be.
fn leaving(fleet: &Fleet) -> HashMap<SocketAddr, Arc<str>> {
    let drain = fleet.members.iter().filter(|member| member.facts.draining);
    let places = drain.flat_map(|member| {
        let ip = member.facts.address.map(|address| address.ip());
        let ports = member.facts.ports.iter().take(MAX_PORTS);
        ip.into_iter().flat_map(move |ip| ports.clone().map(move |port| (SocketAddr::new(ip, *port), member.id.clone())))
    });
    places.collect()
}

/// Members of our role and group, this node too.
fn fellows<'a>(fleet: &'a Fleet, membership: &Membership) -> Vec<&'a Member> {
    let own = membership.facts();
    let is_fellow = |member: &&Member| member.is_serving() && member.facts.role == own.role && member.facts.group == own.group;
    fleet.members.iter().filter(is_fellow).collect()
}

/// Who tells loads that count here: our fellows, and control planes, which tell what Envoys report to them.
fn tellers<'a>(fleet: &'a Fleet, membership: &Membership) -> Vec<&'a Member> {
    let control = fleet.members.iter().filter(|member| member.is_serving() && &*member.facts.role == CONTROL_PLANE);
    fellows(fleet, membership).into_iter().filter(|member| &*member.facts.role != CONTROL_PLANE).chain(control).collect()
}

/// Whether the part that our zone has of all callers has changed.
fn count_callers(fleet: &Fleet, membership: &Membership, callers: &Callers) -> bool {
    let zone = membership.facts().zone.clone();
    let zones: Vec<_> =
        fellows(fleet, membership).into_iter().map(|member| &member.facts.zone).filter(|zone| !zone.is_empty()).collect();
    let own = if zone.is_empty() { 0 } else { zones.iter().filter(|of| ***of == zone).count() };
    callers.set(own, zones.len())
}

/// Tells what is in flight at the busiest endpoints, and takes over what others tell.
fn exchange(fleet: &Fleet, membership: &Membership, clusters: &[Arc<Cluster>], now_ms: u64) {
    let asks = |cluster: &&Arc<Cluster>| cluster.view().spec.config.fleet_load;
    let asking: Vec<&Arc<Cluster>> = clusters.iter().filter(asks).collect();
    let mut own: Vec<EndpointLoad> = asking
        .iter()
        .flat_map(|cluster| {
            let told = |(endpoint, in_flight)| EndpointLoad { upstream: cluster.name.clone(), endpoint, in_flight };
            cluster.in_flight().into_iter().filter(|(_, in_flight)| *in_flight > 0).map(told)
        })
        .collect();
    own.sort_unstable_by(|a, b| (b.in_flight, &a.upstream, a.endpoint).cmp(&(a.in_flight, &b.upstream, b.endpoint)));
    own.truncate(MAX_TOLD);
    membership.say(|facts| facts.loads = own.into());
    let fresh = |member: &&Member| {
        member.id != fleet.own && member.state == MemberState::Alive && now_ms.saturating_sub(member.last_seen_ms) <= STALE_MS
    };
    let mut said: HashMap<(&str, SocketAddr), Vec<u32>> = HashMap::new();
    let tellers: Vec<&Member> = tellers(fleet, membership).into_iter().filter(fresh).collect();
    for (nth, member) in tellers.iter().enumerate() {
        for load in member.facts.loads.iter().take(MAX_HEARD) {
            let others = said.entry((&load.upstream, load.endpoint)).or_insert_with(|| vec![0; tellers.len()]);
            others[nth] = load.in_flight;
        }
    }
    clusters.iter().for_each(|cluster| cluster.lean((!tellers.is_empty()).then_some(&said)));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use heddle_node::membership::Facts;
    use heddle_xds::model;

    use super::super::{Context, Edition};
    use super::*;

    fn cluster(membership: &Membership, callers: &Arc<Callers>, fleet_load: bool) -> Arc<Cluster> {
        let context = Context { membership: membership.clone(), callers: callers.clone(), ..Context::default() };
        let mut upstream = crate::upstream::tests::config(|upstream| upstream.fleet_load = fleet_load).as_ref().clone();
        upstream.slow_start = Duration::ZERO;
        let node = |(port, zone): (u16, &str)| model::Endpoint {
            host: "10.0.0.1".into(),
            port,
            weight: 1,
            zone: zone.into(),
            ..model::Endpoint::default()
        };
        let nodes = [(1, "a"), (2, "a"), (3, "b"), (4, "b")].map(node);
        Edition::first(Arc::new(context), Arc::new(upstream), &nodes.into(), &|_| None, clock::now()).cluster().clone()
    }

    fn member(id: &str, zone: &str, loads: &[(u16, u32)], last_seen_ms: u64) -> Member {
        let load = |&(port, in_flight): &(u16, u32)| EndpointLoad {
            upstream: "upstreams/u".into(),
            endpoint: SocketAddr::from(([10, 0, 0, 1], port)),
            in_flight,
        };
        let facts = Facts { zone: zone.into(), loads: loads.iter().map(load).collect(), ..Facts::default() };
        Member { id: id.into(), facts: Arc::new(facts), state: MemberState::Alive, last_seen_ms }
    }

    fn tilts_of(cluster: &Cluster) -> Vec<u32> {
        cluster.view().balance.nodes().iter().map(|node| node.standing.tilt()).collect()
    }

    #[test]
    fn loads_of_others_shift_weights_where_that_is_asked_for_and_only_while_they_are_fresh() {
        let (membership, callers) = (Membership::alone("gw-1", Facts::default()), Arc::<Callers>::default());
        let clusters = [cluster(&membership, &callers, true), cluster(&membership, &callers, false)];
        let _busy = clusters[0].view().endpoints[3].core.stats.shard();
        _busy.active.inc();
        let round = |members: Vec<Member>, now| {
            membership.hear(members);
            exchange(&membership.fleet(), &membership, &clusters, now);
            tilts_of(&clusters[0])
        };
        let own = || member("gw-1", "a", &[], 0);
        let other = || member("gw-2", "a", &[(1, 30), (2, 10)], 50_000);
        assert_eq!(round(vec![own(), other()], 51_000)[..2], [128, 192]);
        assert_eq!(tilts_of(&clusters[1]), [256; 4], "nobody asked");
        let told: Vec<_> = membership.facts().loads.iter().map(|load| (load.endpoint.port(), load.in_flight)).collect();
        assert_eq!(told, [(4, 1)], "what is at rest is not told");
        assert_eq!(round(vec![own(), other()], 60_000), [256; 4], "old news is none");
        let mut control = other();
        Arc::make_mut(&mut control.facts).role = CONTROL_PLANE.into();
        assert_eq!(round(vec![own(), control], 51_000)[..2], [128, 192], "what Envoys report to it");
        let dead = Member { state: MemberState::Suspect, ..other() };
        assert_eq!(round(vec![own(), dead], 51_000), [256; 4]);
    }

    #[test]
    fn callers_are_counted_by_zone_where_zones_are_known() {
        let membership = Membership::alone("gw-1", Facts { zone: "a".into(), ..Facts::default() });
        let callers = Callers::default();
        let of = |zones: &[&str]| {
            membership.hear(zones.iter().enumerate().map(|(nth, zone)| member(&nth.to_string(), zone, &[], 0)).collect());
            count_callers(&membership.fleet(), &membership, &callers);
            callers.part()
        };
        assert_eq!(of(&["a", "b", "b", "b", ""]), Some(0.25));
        assert_eq!(of(&["a", "a"]), Some(1.0));
        assert_eq!(of(&["a", ""]), None, "nobody else whose zone is known");
    }

    #[tokio::test(start_paused = true)]
    async fn the_fleet_is_followed_until_nobody_needs_it() {
        let membership = Membership::alone("gw-1", Facts { zone: "a".into(), ..Facts::default() });
        let callers = Arc::<Callers>::default();
        let known = Arc::new(vec![cluster(&membership, &callers, true)]);
        let weak = Arc::downgrade(&known);
        let task = tokio::spawn(follow(membership.clone(), callers.clone(), move || weak.upgrade().map(|known| known.to_vec())));
        tokio::task::yield_now().await;
        membership.hear(vec![member("gw-1", "a", &[], 0), member("gw-2", "b", &[], 0), member("gw-3", "b", &[], 0)]);
        tokio::time::sleep(ROUND * 2).await;
        assert!(callers.part().is_some_and(|part| (0.3..0.34).contains(&part)));
        let share = |zone: &str| known[0].zones(clock::now()).into_iter().find(|found| &*found.zone == zone).unwrap().share;
        assert_eq!((share("a"), share("b")), (1.0, 0.0), "half of the endpoints, a third of the callers");
        drop(known);
        tokio::time::sleep(ROUND * 2).await;
        assert!(task.is_finished());
    }
}
