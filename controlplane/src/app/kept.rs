//! Where a control plane keeps what it is told: in a file of its own, or with others beside one cluster, among whom it has a name and one leads. It knows
//! no resource.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use heddle_node::drain::DrainWatch;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, timeout};

use super::{SEAL_FILE, StartError};
use crate::ca::Fellows;
use crate::leader::Leader;
use crate::seal::Seal;
use crate::settings::StoreSettings;
use crate::store::{Clock, Embedded, Etcd, Hold, Leases, News, RecordWrite, Records, Store, StoreError, read_again};

/// The file below `data_dir` that says that a control plane is using it.
const LOCK_FILE: &str = "controlplane.lock";
/// Random bytes of a name.
const NAME_BYTES: usize = 6;
/// Rights that say who is there begin with this.
const PRESENT: &str = "replica/";
/// How long a control plane that says nothing counts as present.
const PRESENCE: Duration = Duration::from_secs(10);
/// How often it says so, and looks who else is there.
const EVERY: Duration = Duration::from_secs(2);
/// How long one look may take.
const LOOK: Duration = Duration::from_secs(5);
/// The record of a text that is sealed with the key that all control planes have.
const SEAL_RECORD: &str = "seal/check";
/// That text.
const SEAL_TEXT: &str = "heddle";
/// How long a start waits for a cluster that comes up at the same time.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is told to whoever follows and not yet taken.
const TOLD: usize = 1_024;

/// What a control plane keeps, and with whom.
pub(super) struct Kept {
    pub(super) store: Arc<dyn Store>,
    pub(super) records: Arc<dyn Records>,
    pub(super) leader: Leader,
    /// Its name among several; `None`: it is the only one.
    pub(super) among: Option<Among>,
}

/// One of several control planes.
#[derive(Clone)]
pub(super) struct Among {
    pub(super) name: Arc<str>,
    leases: Arc<dyn Leases>,
    present: watch::Sender<Option<BTreeSet<String>>>,
    /// Open as long as the data directory is this one's.
    lock: Arc<File>,
}

/// What others do.
pub(super) enum Heard {
    /// Records were written.
    News(News),
    /// These are all records.
    All(Vec<(String, Vec<u8>)>),
    /// Who is there.
    Present(BTreeSet<String>),
}

impl Kept {
    /// Opens the store.
    pub(super) async fn open(
        settings: &StoreSettings,
        data_dir: &Path,
        clock: Clock,
        drain: &DrainWatch,
    ) -> Result<Kept, StartError> {
        let Some(etcd) = &settings.etcd else {
            let embedded = Arc::new(Embedded::open(data_dir, clock)?);
            return Ok(Kept { store: embedded.clone(), records: embedded, leader: Leader::alone(), among: None });
        };
        let lock = Arc::new(taken(data_dir)?);
        let failed = |source| StartError::DataDir { path: data_dir.to_owned(), source };
        let name: Arc<str> = name().map_err(failed)?.into();
        let mut dice = fastrand::Rng::new();
        let started = heddle_node::clock::now();
        let store = loop {
            match Etcd::open(etcd, clock.clone(), dice.fork()).await {
                Err(error @ StoreError::Away(_)) if started.elapsed() < PATIENCE => {
                    tracing::warn!(%error, "waiting for the store");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                opened => break opened?,
            }
        };
        let leader = Leader::campaign(store.clone(), name.to_string(), drain.clone(), dice);
        let among = Some(Among { name, leases: store.clone(), present: watch::Sender::new(None), lock });
        Ok(Kept { store: store.clone(), records: store, leader, among })
    }

    /// Makes sure that all control planes have the same key for secrets, for what one seals the others have to read.
    pub(super) async fn same_seal(&self, seal: &Seal, data_dir: &Path) -> Result<(), StartError> {
        if self.among.is_none() {
            return Ok(());
        }
        for _ in 0..2 {
            let records = self.records.records().await?;
            let Some((_, there)) = records.iter().find(|(key, _)| key == SEAL_RECORD) else {
                let sealed = seal.seal(SEAL_TEXT)?.into_bytes();
                let first = vec![RecordWrite::Require(SEAL_RECORD.into(), None), RecordWrite::Set(SEAL_RECORD.into(), sealed)];
                match self.records.record(first, Vec::new()).await {
                    Err(StoreError::Changed(_)) => continue,
                    done => return Ok(done?),
                }
            };
            let plain = std::str::from_utf8(there).ok().and_then(|text| seal.unseal(text).ok());
            return if plain.as_deref() == Some(SEAL_TEXT) {
                Ok(())
            } else {
                Err(StartError::OtherSeal(data_dir.join(SEAL_FILE)))
            };
        }
        Ok(())
    }
}

impl Among {
    /// Says that this control plane is there, and tells what the others do, until the drain begins.
    pub(super) fn follow(&self, records: Arc<dyn Records>, drain: &DrainWatch) -> mpsc::Receiver<Heard> {
        let (sender, receiver) = mpsc::channel(TOLD);
        tokio::spawn(presence(self.clone(), sender.clone(), drain.clone()));
        tokio::spawn(news(records, sender, drain.clone(), fastrand::Rng::new()));
        receiver
    }

    /// Who is there.
    pub(super) fn fellows(&self) -> Fellows {
        Fellows { name: self.name.clone(), present: self.present.subscribe() }
    }
}

async fn presence(among: Among, told: mpsc::Sender<Heard>, mut drain: DrainWatch) {
    let Among { name, leases, present, lock } = among;
    let mut ticks = interval(EVERY);
    let right = format!("{PRESENT}{name}");
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = drain.draining() => break,
        }
        let held = timeout(LOOK, leases.hold(&right, &name, PRESENCE)).await;
        if !matches!(held, Ok(Ok(Hold::Ours))) {
            continue;
        }
        // Who cannot see the store says nothing of others: it may be this one that is cut off.
        if let Ok(Ok(there)) = timeout(LOOK, leases.held(PRESENT)).await {
            let there: BTreeSet<String> = there.into_iter().collect();
            present.send_replace(Some(there.clone()));
            if told.send(Heard::Present(there)).await.is_err() {
                return;
            }
        }
    }
    if let Err(error) = leases.release(&right).await {
        tracing::debug!(%error, "that this control plane ends could not be said; others find out");
    }
    drop(lock);
}

async fn news(records: Arc<dyn Records>, told: mpsc::Sender<Heard>, mut drain: DrainWatch, mut dice: fastrand::Rng) {
    let Some(mut news) = records.news() else { return };
    loop {
        let heard = tokio::select! {
            heard = news.recv() => heard,
            () = drain.draining() => return,
        };
        let heard = match heard {
            Ok(heard) if !heard.is_empty() => Heard::News(heard),
            Err(RecvError::Closed) => return,
            // Some of it was missed.
            Ok(_) | Err(RecvError::Lagged(_)) => tokio::select! {
                all = read_again(&*records, "the mesh", &mut dice) => Heard::All(all),
                () = drain.draining() => return,
            },
        };
        if told.send(heard).await.is_err() {
            return;
        }
    }
}

/// Takes a data directory for this process alone, as long as what is returned is open.
fn taken(data_dir: &Path) -> Result<File, StartError> {
    let failed = |source| StartError::DataDir { path: data_dir.to_owned(), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(data_dir.join(LOCK_FILE)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::Taken(data_dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// A name that no other control plane has, and none had before: what a process that was killed has written is told apart from what the next one writes.
fn name() -> std::io::Result<String> {
    let mut bytes = [0; NAME_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| std::io::Error::other("the system gives no random numbers"))?;
    Ok(heddle_node::hex::encode(&bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_data_directory_is_for_one_control_plane() {
        let folder = tempfile::tempdir().unwrap();
        let held = taken(folder.path()).unwrap();
        let told = taken(folder.path()).unwrap_err().to_string();
        assert!(told.contains("another control plane") && told.contains("node.data_dir"), "{told}");
        drop(held);
        assert!(taken(folder.path()).is_ok());
    }
}
