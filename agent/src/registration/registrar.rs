//! The task that talks to Consul for as long as the process lives. What is to be said next is decided elsewhere.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock;
use heddle_node::consul::{CheckStatus, Consul, ConsulError, ConsulSettings, Registration, TtlCheck};
use heddle_node::drain::DrainWatch;
use heddle_node::readiness::Readiness;
use tokio::time::{sleep_until, timeout};

use super::checks::Checks;
use super::keeper::{Keeper, Step};
use super::standing::{Standing, standing};
use super::stats::{Call, Outcome, Stats};
use crate::settings::{RegistrationSettings, ServiceSettings, is_meta_name};

/// How often it is looked whether the node is still ready; answers of the application are heard of at once.
const LOOK: Duration = Duration::from_millis(250);
/// How long a word that is under way when the drain begins may take: what comes after it must not overtake it.
const FINISH: Duration = Duration::from_secs(1);
/// How long the end is tried to be said. Traffic in flight takes longer than that, as a rule; after it Consul reaps.
const LEAVE: Duration = Duration::from_secs(5);
/// Bytes of a value in the meta.
const LONGEST_VALUE: usize = 512;

/// What a registration is made of.
pub struct Parts<'a> {
    /// The service of this node.
    pub service: &'a ServiceSettings,
    /// How it is registered.
    pub settings: &'a RegistrationSettings,
    /// How Consul is reached.
    pub consul: ConsulSettings,
    /// Id of this node.
    pub node: &'a str,
    /// Its zone, empty where none is said.
    pub zone: &'a str,
    /// Its role.
    pub role: &'a str,
    /// Whether it is ready.
    pub readiness: Readiness,
}

/// A service that is kept registered.
pub struct Registrar {
    consul: ConsulSettings,
    service: Registration,
    readiness: Readiness,
    checks: Checks,
    keeper: Keeper,
    stats: Arc<Stats>,
    dice: fastrand::Rng,
    /// The client, as soon as its files can be read.
    client: Option<Consul>,
}

/// How Consul took a word.
type Taken = Result<bool, ConsulError>;

impl Registrar {
    /// Nothing is said yet; the application is asked from now on.
    #[must_use]
    pub fn new(parts: Parts<'_>, dice: fastrand::Rng) -> Registrar {
        let Parts { settings, .. } = parts;
        Registrar {
            service: registration(&parts),
            checks: Checks::begin(&settings.checks),
            keeper: Keeper::new(settings.ttl),
            consul: parts.consul,
            readiness: parts.readiness,
            stats: Arc::default(),
            dice,
            client: None,
        }
    }

    /// What it counts.
    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        self.stats.clone()
    }

    /// Keeps the service registered until the node drains, or what comes in does; then takes it back. The process waits for that, for a bounded time.
    pub async fn run(mut self, mut drain: DrainWatch, mut inbound: DrainWatch) {
        loop {
            let stands = self.standing();
            let step = self.keeper.next(&stands, clock::now());
            let mut seen = self.checks.seen.clone();
            seen.mark_unchanged();
            let drained = async {
                tokio::select! {
                    () = drain.draining() => {}
                    () = inbound.draining() => {}
                }
            };
            if let Step::Rest(until) = step {
                tokio::select! {
                    () = drained => break,
                    () = sleep_until(until.min(clock::now() + LOOK)) => {}
                    Ok(()) = seen.changed() => {}
                }
                continue;
            }
            let taken = {
                let mut saying = pin!(say(&mut self.client, &self.consul, &self.service, step, &stands));
                tokio::select! {
                    () = drained => {
                        // Whether it was taken does not matter any more.
                        let _ = timeout(FINISH, saying).await;
                        break;
                    }
                    taken = &mut saying => taken,
                }
            };
            self.note(step, stands, taken);
        }
        // What comes in ends while this is said.
        drop(inbound);
        self.leave().await;
        drop(drain);
    }

    fn standing(&self) -> Standing {
        standing(&self.readiness.verdict(), &self.checks.seen.borrow())
    }

    fn note(&mut self, step: Step, stands: Standing, taken: Taken) {
        let (now, id) = (clock::now(), &self.service.id);
        let call = if step == Step::Register { Call::Register } else { Call::Tell };
        let outcome = match &taken {
            Ok(true) => Outcome::Taken,
            Ok(false) => Outcome::Unknown,
            Err(_) => Outcome::Failed,
        };
        self.stats.count(call, outcome, now);
        if call == Call::Tell && outcome == Outcome::Taken && self.keeper.is_failing() {
            tracing::info!(id, "Consul answers again");
        }
        match (step, taken) {
            (Step::Register, Ok(_)) => {
                let Registration { name, address, port, .. } = &self.service;
                let address = address.as_deref().unwrap_or("that of its agent");
                tracing::info!(id, service = name, address, port, "registered at Consul");
                self.keeper.has_registered();
            }
            (_, Ok(true)) => {
                if self.keeper.told().map(|told| told.status) != Some(stands.status) {
                    let why = stands.why.replace('\n', "; ");
                    tracing::info!(id, status = stands.status.as_str(), why, "Consul was told how the service stands");
                }
                self.keeper.has_told(stands, now);
            }
            (_, Ok(false)) => {
                tracing::warn!(id, "Consul does not know the service any more; it is registered again");
                self.keeper.has_lost(now, &mut self.dice);
            }
            (_, Err(error)) => {
                if !self.keeper.is_failing() {
                    tracing::warn!(id, %error, "Consul cannot be told of the service; it is tried again and again");
                }
                self.keeper.has_failed(now, &mut self.dice);
            }
        }
        self.stats.stands(self.keeper.is_registered(), self.keeper.told().map(|told| told.status));
    }

    /// Takes the service back, whether or not it is known that Consul has it: what was said last may have arrived.
    async fn leave(self) {
        let Registrar { client, service, stats, .. } = self;
        let Some(client) = client else { return };
        let told = timeout(LEAVE, client.deregister(&service.id)).await;
        let outcome = if matches!(told, Ok(Ok(()))) { Outcome::Taken } else { Outcome::Failed };
        stats.count(Call::Deregister, outcome, clock::now());
        match told {
            Ok(Ok(())) => {
                stats.stands(false, None);
                tracing::info!(id = service.id, "deregistered from Consul");
            }
            Ok(Err(error)) => {
                tracing::warn!(id = service.id, %error, "Consul could not be told of the end; it reaps the service")
            }
            Err(_) => tracing::warn!(id = service.id, "Consul did not answer the end in time; it reaps the service"),
        }
    }
}

async fn say(
    client: &mut Option<Consul>,
    settings: &ConsulSettings,
    service: &Registration,
    step: Step,
    stands: &Standing,
) -> Taken {
    let client = match client {
        Some(client) => client,
        // A file of its token or of TLS may come later.
        none => none.insert(Consul::new(settings.clone())?),
    };
    let Some(check) = service.ttl_checks.first() else { return Ok(true) };
    if step == Step::Register {
        // It begins as it stands, so that nobody who works is critical in between.
        let check = TtlCheck { initial: stands.status, ..check.clone() };
        let service = Registration { ttl_checks: vec![check], ..service.clone() };
        return client.register(&service).await.map(|()| true);
    }
    client.update_ttl(&check.id, stands.status, &stands.why).await
}

/// The service as Consul is to know it.
pub(super) fn registration(parts: &Parts<'_>) -> Registration {
    let Parts { service, settings, node, .. } = parts;
    let id = settings.id.clone().unwrap_or_else(|| format!("{}-{node}", service.name));
    let check = TtlCheck {
        id: format!("{id}:heddle"),
        name: "Heddle: this node and its application".to_owned(),
        ttl: settings.ttl,
        reap_after: Some(settings.reap_after),
        initial: CheckStatus::Critical,
    };
    Registration {
        id,
        name: service.name.to_string(),
        address: settings.address.clone(),
        port: settings.port,
        tags: settings.tags.clone(),
        meta: meta(parts),
        weights: settings.weights,
        ttl_checks: vec![check],
        checks: Vec::new(),
    }
}

/// What others learn of the instance: its labels, its zone, who carries it. What the settings say goes before it.
fn meta(parts: &Parts<'_>) -> BTreeMap<String, String> {
    let Parts { service, settings, node, zone, role, .. } = parts;
    let plain = |name: &str| -> String {
        name.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' }).collect()
    };
    let mut meta: BTreeMap<String, String> =
        service.labels.iter().map(|(name, value)| (plain(name), value.to_string())).collect();
    let own = [
        ("zone", *zone),
        ("version", &*service.version),
        ("heddle-node", *node),
        ("heddle-role", *role),
        ("heddle-namespace", &*service.namespace),
        ("heddle-protocol", service.protocol.as_str()),
        ("heddle-version", env!("CARGO_PKG_VERSION")),
    ];
    meta.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    meta.extend(settings.meta.clone());
    meta.retain(|name, value| is_meta_name(name) && !value.is_empty() && value.len() <= LONGEST_VALUE);
    meta
}
