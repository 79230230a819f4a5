//! The life of a node that follows a control plane of Envoy's: start from a bootstrap and from disk, connect, follow, lose, wait. It knows no message.

use std::collections::BTreeSet;
use std::sync::Arc;

use heddle_node::clock;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::EnvoySource;
use super::disk::{self, Stood};
use super::follower::Follower;
use super::kept;
use super::stream::{self, Delta, Sotw};
use crate::client::shell::{End, Session};
use crate::client::{Batch, ClientConfig, ClientStatus, Holdings, Origin, TypedUpdate, backoff};
use crate::codec::InvalidResource;
use crate::model::Kind;
use crate::protocol::Dialect;

/// What outlives the streams.
pub(super) struct Shell {
    pub(super) session: Session,
    /// What the consumer has, for the disk; empty when nothing is kept there.
    mirror: Holdings,
    /// The listeners that were on disk, until it is known that they are still there.
    from_disk: Stood,
    /// What was on disk and is no more was taken away, but for that of these listeners.
    swept: Option<BTreeSet<Arc<str>>>,
    /// The consumer refused a part of what it was told last, and nothing of that is live yet.
    held_back: bool,
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
    let session = Session::new(config, updates, status);
    let mut shell = Shell::new(session);
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
    fn new(session: Session) -> Shell {
        Shell { session, mirror: Holdings::default(), from_disk: Stood::default(), swept: None, held_back: false }
    }

    /// What is there without a control plane: what was held at the last run, and the bootstrap.
    async fn start(&mut self, follower: &mut Follower) -> Result<(), End> {
        self.mirror = disk::start(&mut self.session, |holdings| follower.world().sift(holdings)).await?;
        self.from_disk = Stood::of(&self.mirror);
        self.proceed(follower).await
    }

    /// Nobody is followed: whatever there is, is there.
    async fn stay(&mut self, follower: &mut Follower) -> End {
        loop {
            let wake = self.wake(follower);
            tokio::select! {
                () = sleep_until(wake.unwrap_or_else(clock::now)), if wake.is_some() => match self.proceed(follower).await {
                    Ok(()) => {}
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
            self.session.save(&self.mirror).await;
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

    /// Lets go live what is ready; what the consumer refuses, for whoever answers for it.
    pub(super) async fn warm(&mut self, follower: &mut Follower) -> Result<Vec<InvalidResource>, End> {
        if self.session.save_at.is_some_and(|at| at <= clock::now()) {
            self.session.save(&self.mirror).await;
        }
        let updates = follower.world().step(clock::now());
        self.deliver(follower, updates).await
    }

    /// Lets go live what is ready, where nobody is answered: what the consumer refuses a part of is withdrawn.
    pub(super) async fn proceed(&mut self, follower: &mut Follower) -> Result<(), End> {
        let rejected = self.warm(follower).await?;
        let undone = follower.withdraw(&rejected, clock::now());
        self.undo(follower, undone).await?;
        if follower.is_synced() {
            self.sweep(follower).await?;
            self.session.stands(follower.is_whole(), None);
        }
        Ok(())
    }

    /// Hands over what is undone of the last step, as often as the consumer refuses something of that, too. Then what is left of the step goes live: a table
    /// is never in use without the routes that keep out.
    pub(super) async fn undo(&mut self, follower: &mut Follower, mut undone: Vec<TypedUpdate>) -> Result<(), End> {
        loop {
            let rejected = self.deliver(follower, undone).await?;
            if rejected.is_empty() {
                return Ok(());
            }
            undone = follower.withdraw(&rejected, clock::now());
        }
    }

    /// Hands updates to the consumer, which uses nothing of them while it refuses a part.
    async fn deliver(&mut self, follower: &mut Follower, mut updates: Vec<TypedUpdate>) -> Result<Vec<InvalidResource>, End> {
        let mut encoded = follower.world().take_encoded();
        encoded.extend(self.from_disk.make_room(&mut updates, &self.mirror, follower.world()));
        if updates.is_empty() {
            return self.release().await;
        }
        let of = |update: &TypedUpdate| update.removed.iter().map(|name| (update.kind, name.clone())).collect::<Vec<_>>();
        let removed: Vec<(Kind, Arc<str>)> = updates.iter().flat_map(of).collect();
        let rejected = self.session.offer(Origin::ControlPlane, updates).await?;
        self.held_back = !rejected.is_empty();
        if self.session.config.last_good.is_none() {
            return Ok(rejected);
        }
        let refused = |kind: Kind, name: &str| rejected.iter().any(|fault| fault.kind == kind && *fault.name == *name);
        for (kind, name, held) in encoded {
            if !refused(kind, &name) {
                self.mirror.insert(kind, name, held);
            }
        }
        removed.iter().for_each(|(kind, name)| drop(self.mirror.remove(*kind, name)));
        self.session.save_soon();
        Ok(rejected)
    }

    /// Nothing is to be undone: what the consumer has taken goes live without what it refuses.
    async fn release(&mut self) -> Result<Vec<InvalidResource>, End> {
        if std::mem::take(&mut self.held_back) {
            self.session.release(Origin::ControlPlane, Vec::new()).await?;
        }
        Ok(Vec::new())
    }

    /// The control plane has answered.
    pub(super) fn heard(&mut self, follower: &Follower, version: Arc<str>) {
        self.session.stands(follower.is_synced() && follower.is_whole(), Some(version));
    }

    /// What was on disk and what nobody has told of since is gone; listeners of which only versions were told that cannot be used stay as they were.
    async fn sweep(&mut self, follower: &mut Follower) -> Result<(), End> {
        let unusable = follower.unusable();
        if self.swept.as_ref() == Some(unusable) {
            return Ok(());
        }
        self.swept = Some(unusable.clone());
        self.from_disk.retain(unusable);
        let kept = kept::of(unusable, &self.mirror);
        let told: BTreeSet<(Kind, Arc<str>)> = follower.world().told().cloned().collect();
        let gone = |kind: Kind| TypedUpdate {
            kind,
            set: Vec::new(),
            removed: self
                .mirror
                .list(kind)
                .map(|(name, _)| name)
                .filter(|name| {
                    let key = (kind, (*name).clone());
                    !told.contains(&key) && !kept.contains(&key)
                })
                .cloned()
                .collect(),
            rejected: Vec::new(),
        };
        let updates: Vec<TypedUpdate> = Kind::ALL.into_iter().map(gone).filter(|update| !update.removed.is_empty()).collect();
        self.deliver(follower, updates).await.map(drop)
    }
}
