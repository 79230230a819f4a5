//! The life of a node that follows a control plane of Envoy's: start from a bootstrap and from disk, connect, follow, lose, wait. It knows no message.

use std::collections::BTreeSet;
use std::sync::Arc;

use heddle_node::clock;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::EnvoySource;
use super::follower::Follower;
use super::stream::{self, Delta, Sotw};
use crate::client::shell::{End, Session};
use crate::client::{Batch, ClientConfig, ClientStatus, Held, Holdings, Origin, TypedUpdate, backoff};
use crate::codec::{InvalidResource, encode_body};
use crate::model::Kind;
use crate::protocol::Dialect;

/// What outlives the streams.
pub(super) struct Shell {
    pub(super) session: Session,
    /// What the consumer has, for the disk; empty when nothing is kept there.
    mirror: Holdings,
    /// What was on disk and is no more was taken away.
    swept: bool,
}

/// Follows until the receiver of `updates` is dropped.
pub(crate) async fn run(
    config: ClientConfig,
    source: EnvoySource,
    updates: mpsc::Sender<Batch>,
    status: watch::Sender<ClientStatus>,
    mut dice: fastrand::Rng,
) {
    let mut follower = match Follower::new(config.dialect, source.whole.clone(), &source.statics, clock::now()) {
        Ok(follower) => follower,
        Err(((kind, name), fault)) => {
            tracing::error!(%kind, %name, field = %fault.field, reason = %fault.reason, "the bootstrap cannot be used");
            return;
        }
    };
    let mut shell = Shell { session: Session::new(config, updates, status), mirror: Holdings::default(), swept: false };
    if shell.start(&mut follower).await.is_err() {
        return;
    }
    // It ends when nobody wants to know any more.
    _ = if source.whole.is_empty() {
        shell.stay(&mut follower).await
    } else {
        shell.follow(&mut follower, &source, &mut dice).await
    };
}

impl Shell {
    /// What is there without a control plane: what was held at the last run, and the bootstrap.
    async fn start(&mut self, follower: &mut Follower) -> Result<(), End> {
        self.mirror = self.session.start_from_disk().await?;
        self.proceed(follower).await.map(drop)
    }

    /// Nobody is followed: whatever there is, is there.
    async fn stay(&mut self, follower: &mut Follower) -> End {
        loop {
            let wake = self.wake(follower);
            tokio::select! {
                () = sleep_until(wake.unwrap_or_else(clock::now)), if wake.is_some() => match self.proceed(follower).await {
                    Ok(_) => {}
                    Err(ended) => return ended,
                },
                () = self.session.updates.closed() => return End::Closed,
            }
        }
    }

    /// Stream after stream.
    async fn follow(&mut self, follower: &mut Follower, source: &EnvoySource, dice: &mut fastrand::Rng) -> End {
        loop {
            let end = match self.session.config.connector.connect().await {
                Ok(channel) => match self.session.config.dialect {
                    Dialect::Delta => stream::run::<Delta>(follower, channel, self, source).await,
                    Dialect::Sotw => stream::run::<Sotw>(follower, channel, self, source).await,
                },
                Err(error) => End::Lost(error.to_string()),
            };
            self.session.save(&self.mirror.clone()).await;
            let End::Lost(reason) = end else { return End::Closed };
            let failures = self.session.lost(reason);
            let retry = clock::now() + backoff(failures.saturating_sub(1), dice);
            // What waits for something goes on waiting, no longer than it would with a control plane.
            while clock::now() < retry {
                let until = self.wake(follower).map_or(retry, |wake| wake.min(retry));
                tokio::select! {
                    () = sleep_until(until) => {}
                    () = self.session.updates.closed() => return End::Closed,
                }
                if let Err(ended) = self.proceed(follower).await {
                    return ended;
                }
            }
        }
    }

    /// When something is to be done without being told.
    pub(super) fn wake(&self, follower: &mut Follower) -> Option<Instant> {
        [follower.world().wake(), self.session.save_at].into_iter().flatten().min()
    }

    /// Lets go live what is ready; what the consumer refuses.
    pub(super) async fn proceed(&mut self, follower: &mut Follower) -> Result<Vec<InvalidResource>, End> {
        if self.session.save_at.is_some_and(|at| at <= clock::now()) {
            self.session.save(&self.mirror.clone()).await;
        }
        let updates = follower.world().step(clock::now());
        let rejected = self.deliver(updates).await?;
        if follower.is_synced() {
            self.sweep(follower).await?;
            self.session.stands(true, None);
        }
        Ok(rejected)
    }

    /// Hands updates to the consumer.
    pub(super) async fn deliver(&mut self, updates: Vec<TypedUpdate>) -> Result<Vec<InvalidResource>, End> {
        if updates.is_empty() {
            return Ok(Vec::new());
        }
        let kept = self.session.config.last_good.is_some().then(|| updates.clone());
        let rejected = self.session.deliver(Origin::ControlPlane, vec![updates]).await?;
        for update in kept.into_iter().flatten() {
            let refused = |name: &str| rejected.iter().any(|fault| fault.kind == update.kind && *fault.name == *name);
            for set in update.set.iter().filter(|set| !refused(&set.name)) {
                let held = Held { version: set.version.clone(), body: encode_body(&set.resource) };
                self.mirror.insert(update.kind, set.name.clone(), held);
            }
            update.removed.iter().for_each(|name| drop(self.mirror.remove(update.kind, name)));
        }
        self.session.save_soon();
        Ok(rejected)
    }

    /// The control plane has answered.
    pub(super) fn heard(&mut self, follower: &Follower, version: Arc<str>) {
        self.session.stands(follower.is_synced(), Some(version));
    }

    /// What was on disk and what nobody has told of since is gone.
    async fn sweep(&mut self, follower: &mut Follower) -> Result<(), End> {
        if std::mem::replace(&mut self.swept, true) {
            return Ok(());
        }
        let told: BTreeSet<(Kind, Arc<str>)> = follower.world().told().cloned().collect();
        let gone = |kind: Kind| TypedUpdate {
            kind,
            set: Vec::new(),
            removed: self
                .mirror
                .list(kind)
                .map(|(name, _)| name)
                .filter(|name| !told.contains(&(kind, (*name).clone())))
                .cloned()
                .collect(),
            rejected: Vec::new(),
        };
        let updates: Vec<TypedUpdate> = Kind::ALL.into_iter().map(gone).filter(|update| !update.removed.is_empty()).collect();
        self.deliver(updates).await.map(drop)
    }
}
