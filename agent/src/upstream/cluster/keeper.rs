//! Keeping one cluster up to date off the request path: names are resolved again, endpoints probed, waits ended.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock;
use heddle_xds::model::PassHost;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::sharing::Sharing;
use super::view::{Endpoint, EndpointView};
use super::{Cluster, tls};
use crate::balance::State;
use crate::dns::{DnsError, Resolved, Resolver};
use crate::health::{Finding, Probe, Schedule};

/// Waits after failed look-ups: the first, doubled up to the last.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Keeps one cluster up to date until it is aborted.
pub(super) struct Keeper {
    cluster: Arc<Cluster>,
    resolver: Option<Resolver>,
    /// Bounds look-ups of all clusters together.
    lookups: Arc<Semaphore>,
    dice: fastrand::Rng,
    names: HashMap<Arc<str>, Name>,
    probes: Schedule,
    sharing: Sharing,
    work: JoinSet<Done>,
}

struct Name {
    services: bool,
    /// `None` while a look-up is under way.
    due: Option<Instant>,
    failures: u32,
}

enum Done {
    Looked(Arc<str>, Result<Resolved, DnsError>),
    Probed(u64, Finding),
}

impl Keeper {
    pub(super) fn new(cluster: Arc<Cluster>, resolver: Option<Resolver>, lookups: Arc<Semaphore>, dice: fastrand::Rng) -> Keeper {
        let (names, probes, work) = (HashMap::new(), Schedule::default(), JoinSet::new());
        Keeper { cluster, resolver, lookups, dice, names, probes, sharing: Sharing::default(), work }
    }

    /// Runs until it is aborted.
    pub(super) async fn run(mut self) {
        let (mut watch, mut heard) = (self.cluster.watch(), self.cluster.heard());
        self.sharing.heard(clock::now());
        self.follow();
        loop {
            let now = clock::now();
            self.sharing.late = self.probes.late(now);
            if self.sharing.due().is_some_and(|due| due <= now) && self.cluster.share(&mut self.sharing, now) {
                self.follow();
            }
            self.cluster.tick(now);
            self.start(now);
            let next = self.next();
            tokio::select! {
                Some(done) = self.work.join_next() => if let Ok(done) = done { self.take(done) },
                changed = watch.changed() => if changed.is_ok() {
                    self.cluster.recount(clock::now());
                    self.sharing.heard(clock::now());
                    self.follow();
                },
                changed = heard.changed() => if changed.is_ok() { self.sharing.heard(clock::now()) },
                () = async { match next { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => {}
            }
        }
    }

    /// Takes over the names and endpoints that there are now.
    fn follow(&mut self) {
        let now = clock::now();
        let wanted = self.cluster.names();
        self.names.retain(|name, _| wanted.iter().any(|(wanted, _)| wanted == name));
        for (name, services) in wanted {
            self.names.entry(name).or_insert(Name { services, due: Some(now), failures: 0 });
        }
        let view = self.cluster.view().clone();
        let interval = view.spec.probes.as_ref().map(|(check, _)| check.healthy_interval);
        let probed = view.endpoints.iter().filter(|endpoint| interval.is_some() && endpoint.core.health.is_checked());
        let ids = probed.map(|endpoint| endpoint.core.id);
        self.probes.reconcile(ids, interval.unwrap_or_default(), &mut self.dice, now);
    }

    /// Starts what is due.
    fn start(&mut self, now: Instant) {
        for (name, entry) in &mut self.names {
            if entry.due.is_some_and(|due| due <= now) {
                entry.due = None;
                let job = look_up(self.resolver.clone(), self.lookups.clone(), name.clone(), entry.services);
                self.work.spawn(job);
            }
        }
        let view = self.cluster.view().clone();
        let concurrency = concurrency(&view);
        for id in self.probes.start(concurrency, now) {
            let probe = view.endpoints.iter().find(|endpoint| endpoint.core.id == id).and_then(|endpoint| probe(&view, endpoint));
            self.work.spawn(async move {
                Done::Probed(
                    id,
                    match probe {
                        Some(probe) => probe.run().await,
                        None => Finding::Broken,
                    },
                )
            });
        }
    }

    fn take(&mut self, done: Done) {
        let now = clock::now();
        match done {
            Done::Looked(name, result) => {
                let Some(entry) = self.names.get_mut(&name) else { return };
                match result {
                    Ok(found) => {
                        entry.failures = 0;
                        entry.due = Some(now + found.ttl);
                        self.cluster.resolved(&name, Some(found.answer), now);
                    }
                    Err(error) => {
                        tracing::warn!(upstream = %self.cluster.name, %error, "name of an endpoint; the last good answer stays in use");
                        entry.due = Some(now + FIRST_RETRY.saturating_mul(1 << entry.failures.min(8)).min(LAST_RETRY));
                        entry.failures = entry.failures.saturating_add(1);
                        self.cluster.resolved(&name, None, now);
                    }
                }
            }
            Done::Probed(id, finding) => {
                let view = self.cluster.view().clone();
                let endpoint = view.endpoints.iter().find(|endpoint| endpoint.core.id == id);
                let Some((endpoint, (check, _))) = endpoint.zip(view.spec.probes.as_ref()) else {
                    self.probes.done(id, Duration::ZERO, &mut self.dice, now);
                    return;
                };
                self.cluster.probed(&endpoint.core, finding, now);
                let up = endpoint.core.health.state() == State::Up;
                let after = if up { check.healthy_interval } else { check.unhealthy_interval };
                self.probes.done(id, after.max(MIN_INTERVAL), &mut self.dice, now);
            }
        }
    }

    /// When the next thing is due.
    fn next(&self) -> Option<Instant> {
        let view = self.cluster.view();
        let names = self.names.values().filter_map(|name| name.due);
        let mut waits = None;
        self.cluster.each_core(|core| waits = waits.into_iter().chain(core.health.back_at()).min());
        names.chain(waits).chain(self.probes.next(concurrency(&view))).chain(self.sharing.due()).min()
    }
}

/// No endpoint is probed more often than this, whatever was configured.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

fn concurrency(view: &EndpointView) -> u32 {
    view.spec.probes.as_ref().map_or(1, |(check, _)| check.concurrency)
}

async fn look_up(resolver: Option<Resolver>, lookups: Arc<Semaphore>, name: Arc<str>, services: bool) -> Done {
    let _permit = lookups.acquire().await;
    let result = match resolver {
        Some(resolver) if services => resolver.discover(&name).await,
        Some(resolver) => resolver.addresses(&name).await,
        None => Err(DnsError::Failed { name: name.as_ref().into(), cause: "no resolver is configured".into() }),
    };
    Done::Looked(name, result)
}

/// The probe of an endpoint: to its own port unless the check names one, as the host that requests would name.
fn probe(view: &EndpointView, endpoint: &Endpoint) -> Option<Probe> {
    let (check, tls) = view.spec.probes.as_ref()?;
    let core = &endpoint.core;
    let address = SocketAddr::new(core.address.ip(), check.port.unwrap_or(core.address.port()));
    let host: Arc<str> = match (&check.host, &view.spec.config.pass_host) {
        (Some(host), _) | (None, PassHost::Rewrite(host)) => host.clone(),
        _ if core.address.is_ipv6() && core.host.contains(':') => format!("[{}]", core.host).into(),
        _ => core.host.clone(),
    };
    let named = view.spec.config.tls.sni.as_deref().unwrap_or(&host);
    Some(Probe { address, server_name: tls::server_name(named), host, tls: tls.clone(), check: check.clone() })
}
