//! The life of a client: start from disk, connect, follow, lose, wait, connect again. It knows no message of the protocol.

use std::sync::Arc;

use heddle_node::clock;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::demand::{Asked, Interest};
use super::stream::{self, Speak};
use super::{
    Batch, ClientConfig, ClientStatus, DeltaClient, Holdings, Origin, SotwClient, TypedUpdate, backoff, envoy, last_good,
};
use crate::codec::InvalidResource;
use crate::model::Kind;
use crate::protocol::{Dialect, NodeInfo, seeds};

/// Why a stream ended.
pub(super) enum End {
    /// To be tried again.
    Lost(String),
    /// The consumer is gone: the client ends.
    Closed,
}

/// What outlives the streams, beside the machine.
pub(super) struct Session {
    pub(super) config: ClientConfig,
    pub(super) updates: mpsc::Sender<Batch>,
    /// When what is held must be on disk.
    pub(super) save_at: Option<Instant>,
    status: watch::Sender<ClientStatus>,
    answered: [bool; Kind::ALL.len()],
    /// Kinds that the open stream has asked for.
    asked: [bool; Kind::ALL.len()],
}

/// Follows a control plane until the receiver of `updates` is dropped. `status` always tells how it stands; `dice` spread the
/// reconnects of a fleet.
pub async fn run(
    config: ClientConfig,
    updates: mpsc::Sender<Batch>,
    status: watch::Sender<ClientStatus>,
    mut dice: fastrand::Rng,
) {
    if let Some(source) = config.envoy.clone() {
        return envoy::run(config, source, updates, status, dice).await;
    }
    let mut session = Session::new(config, updates, status);
    let Ok(mut holdings) = session.start_from_disk().await else { return };
    session.adopt(&mut holdings);
    let asked = Asked::new(session.config.interests.clone());
    match session.config.dialect {
        Dialect::Delta => follow(&mut DeltaClient::new(holdings, asked), &mut session, &mut dice).await,
        Dialect::Sotw => follow(&mut SotwClient::new(holdings, asked), &mut session, &mut dice).await,
    }
}

/// Stream after stream, until the consumer is gone.
async fn follow<M: Speak>(machine: &mut M, session: &mut Session, dice: &mut fastrand::Rng) {
    loop {
        let end = match session.config.connector.connect().await {
            Ok(channel) => stream::run(machine, channel, session).await,
            Err(error) => End::Lost(error.to_string()),
        };
        if session.save_at.is_some() {
            session.save(machine.holdings()).await;
        }
        let End::Lost(reason) = end else { return };
        let failures = session.lost(reason);
        let wake = clock::now() + backoff(failures.saturating_sub(1), dice);
        tokio::select! {
            () = sleep_until(wake) => {}
            () = session.updates.closed() => return,
        }
    }
}

impl Session {
    pub(super) fn new(config: ClientConfig, updates: mpsc::Sender<Batch>, status: watch::Sender<ClientStatus>) -> Session {
        config.demand.lost(clock::now());
        Session { config, updates, save_at: None, status, answered: Default::default(), asked: [true; Kind::ALL.len()] }
    }

    /// Hands what was held at the last run to the consumer. What it refuses is asked for again.
    async fn start_from_disk(&mut self) -> Result<Holdings, End> {
        let Some(mut holdings) = self.load().await else { return Ok(Holdings::default()) };
        let updates = holdings.updates();
        let unread: Vec<InvalidResource> = updates.iter().flat_map(|update| update.rejected.iter().cloned()).collect();
        let refused = self.deliver(Origin::LastGood, vec![updates]).await?;
        holdings.forget(&unread);
        holdings.forget(&refused);
        self.loaded();
        Ok(holdings)
    }

    /// What was held at the last run, where that can be read.
    pub(super) async fn load(&self) -> Option<Holdings> {
        let path = self.config.last_good.clone()?;
        match tokio::task::spawn_blocking(move || last_good::load(&path)).await {
            Ok(Ok(holdings)) => return holdings,
            Ok(Err(error)) => tracing::warn!(%error, "starting without the last good configuration"),
            Err(error) => tracing::warn!(%error, "the last good configuration was not read"),
        }
        None
    }

    /// All that was held at the last run is in use.
    pub(super) fn loaded(&self) {
        self.status.send_modify(|status| status.last_good = true);
    }

    /// What is held of kinds that are asked for by name is wanted from the start; what is not asked for is not held.
    fn adopt(&self, holdings: &mut Holdings) {
        for kind in Kind::ALL {
            match self.config.interests.of(kind) {
                Interest::All => {}
                Interest::Named => {
                    let names: Vec<_> = holdings.list(kind).map(|(name, _)| name.clone()).collect();
                    self.config.demand.adopt(kind, names.into_iter(), clock::now());
                }
                Interest::Nothing => holdings.clear(kind),
            }
        }
    }

    /// Hands updates of the control plane to the consumer; says what it refuses. Whoever waits for names is told behind that.
    pub(super) async fn hand_over(&mut self, views: Vec<Vec<TypedUpdate>>) -> Result<Vec<InvalidResource>, End> {
        let demand = self.config.demand.clone();
        let by_name = |update: &&TypedUpdate| self.config.interests.of(update.kind) == Interest::Named;
        let mut told: Vec<TypedUpdate> = views.iter().flatten().filter(by_name).cloned().collect();
        let rejected = self.deliver(Origin::ControlPlane, views).await?;
        for update in &mut told {
            let refused = |name: &str| rejected.iter().any(|fault| fault.kind == update.kind && *fault.name == *name);
            update.set.retain(|set| !refused(&set.name));
            update.rejected.extend(rejected.iter().filter(|fault| fault.kind == update.kind).cloned());
            demand.note(update);
        }
        Ok(rejected)
    }

    /// Whether everything of a kind is asked for.
    pub(super) fn all_of(&self, kind: Kind) -> bool {
        self.config.interests.of(kind) == Interest::All
    }

    /// A stream asks for these kinds.
    pub(super) fn asks_for(&mut self, kinds: &[Kind]) {
        self.asked = Default::default();
        kinds.iter().for_each(|kind| self.asked[kind.index()] = true);
    }

    /// A view could not be handed over whole: who asks meanwhile may be answered by half of it.
    pub(super) fn parted(&self, why: &str) {
        tracing::warn!("a view of the configuration is applied in parts: {why}");
        self.status.send_modify(|status| status.parted = status.parted.saturating_add(1));
    }

    pub(super) async fn deliver(&mut self, origin: Origin, views: Vec<Vec<TypedUpdate>>) -> Result<Vec<InvalidResource>, End> {
        let something =
            |update: &TypedUpdate| !(update.set.is_empty() && update.removed.is_empty() && update.rejected.is_empty());
        let of = |view: Vec<TypedUpdate>| view.into_iter().filter(something).collect::<Vec<TypedUpdate>>();
        let views: Vec<Vec<TypedUpdate>> = views.into_iter().map(of).filter(|view| !view.is_empty()).collect();
        if views.is_empty() {
            return Ok(Vec::new());
        }
        self.judged(Batch::new(origin, views)).await
    }

    /// Hands a view over of which nothing is used while a part of it is refused: what comes next says what instead.
    pub(super) async fn offer(&mut self, origin: Origin, view: Vec<TypedUpdate>) -> Result<Vec<InvalidResource>, End> {
        self.judged(Batch::whole(origin, vec![view])).await
    }

    /// What was offered last is used without what was refused, and with this instead.
    pub(super) async fn release(&mut self, origin: Origin, instead: Vec<TypedUpdate>) -> Result<(), End> {
        let views = if instead.is_empty() { Vec::new() } else { vec![instead] };
        self.judged(Batch::new(origin, views)).await.map(drop)
    }

    pub(super) async fn judged(
        &mut self,
        (batch, verdict): (Batch, oneshot::Receiver<Vec<InvalidResource>>),
    ) -> Result<Vec<InvalidResource>, End> {
        let undecoded: usize = batch.updates().map(|update| update.rejected.len()).sum();
        let is_told = batch.origin == Origin::ControlPlane;
        self.updates.send(batch).await.map_err(|_| End::Closed)?;
        let rejected = verdict.await.map_err(|_| End::Closed)?;
        for fault in &rejected {
            if is_told {
                tracing::warn!(%fault, "resource refused; its last good version stays");
            } else {
                tracing::warn!(%fault, "what was kept on disk cannot be used, and is missing until a control plane tells it");
            }
        }
        let count = u64::try_from(undecoded + rejected.len()).unwrap_or(u64::MAX);
        self.status.send_modify(|status| status.rejected = status.rejected.saturating_add(count));
        Ok(rejected)
    }

    /// A stream is open.
    pub(super) fn opened(&mut self) {
        tracing::info!(dialect = %self.config.dialect, "connected to the control plane");
        self.config.demand.found();
        self.status.send_modify(|status| {
            status.connected = true;
            status.last_contact = Some(clock::wall());
        });
    }

    /// The node was said on the open stream.
    pub(super) fn said(&self, node: &NodeInfo) {
        let takes_requests = node.instance.as_ref().is_some_and(|instance| !instance.draining);
        self.status.send_modify(|status| status.takes_requests = takes_requests);
    }

    /// What opens a stream, with the cell in which this node gossips.
    pub(super) fn asking<T>(&self, requests: T) -> tonic::Request<T> {
        let mut question = tonic::Request::new(requests);
        if self.config.gossip.is_some() {
            seeds::ask(question.metadata_mut(), &self.config.cell);
        }
        question
    }

    /// A stream is open; passes on with whom to begin to gossip, and gives the stream.
    pub(super) fn seeded<T>(&self, answer: tonic::Response<T>) -> T {
        let seeds = seeds::read(answer.metadata());
        if let Some(gossip) = &self.config.gossip {
            if let Some(cells) = seeds::elsewhere(answer.metadata()) {
                tracing::warn!(
                    cell = %self.config.cell,
                    cells = %cells.join(", "),
                    "the control plane is no member of the gossip.cell of this node and cannot say with whom to begin: name the cell in gossip.bridges of the \
                     control plane, or members of it in gossip.seeds of this node"
                );
            }
            gossip.send_if_modified(|known| {
                let news = *known != seeds;
                *known = seeds;
                news
            });
        }
        answer.into_inner()
    }

    /// The control plane answered these kinds, and stands at this version.
    pub(super) fn heard(&mut self, kinds: &[Kind], version: Option<Arc<str>>) {
        kinds.iter().for_each(|kind| self.answered[kind.index()] = true);
        let synced = self.answered.iter().zip(&self.asked).all(|(answered, asked)| *answered || !asked);
        self.status.send_modify(|status| {
            status.last_contact = Some(clock::wall());
            status.synced = synced;
            if let Some(version) = version {
                status.version = version;
            }
            status.failures = 0;
        });
    }

    /// Everything that is asked for is there, or not yet; with a version, the control plane has said something just now.
    pub(super) fn stands(&self, synced: bool, version: Option<Arc<str>>) {
        self.status.send_modify(|status| {
            status.synced |= synced;
            if let Some(version) = version {
                status.version = version;
                status.last_contact = Some(clock::wall());
                status.failures = 0;
            }
        });
    }

    /// The stream is lost; says how many attempts failed since the last answer.
    pub(super) fn lost(&mut self, reason: String) -> u32 {
        self.config.demand.lost(clock::now());
        let mut failures = 0;
        self.status.send_modify(|status| {
            status.connected = false;
            status.failures = status.failures.saturating_add(1);
            failures = status.failures;
            status.last_error.clone_from(&reason);
        });
        tracing::warn!(%reason, failures, "no control plane; running on what is held");
        failures
    }

    /// What is held changed: it is written soon.
    pub(super) fn save_soon(&mut self) {
        if self.config.last_good.is_some() {
            self.save_at = self.save_at.or_else(|| Some(clock::now() + self.config.save_after));
        }
    }

    /// Writes what is held.
    pub(super) async fn save(&mut self, holdings: &Holdings) {
        self.save_at = None;
        let Some(path) = self.config.last_good.clone() else { return };
        let holdings = holdings.clone();
        match tokio::task::spawn_blocking(move || last_good::save(&path, &holdings)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last good configuration was not written"),
            Err(error) => tracing::warn!(%error, "the last good configuration was not written"),
        }
    }
}
