//! Where a control plane keeps what it is told: in a file of its own, or with others beside one cluster, among whom it has a name and one leads. It knows
//! no resource.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use heddle_node::drain::DrainWatch;
use heddle_node::membership::Membership;
use heddle_xds::server::NodeRegistry;
use parking_lot::Mutex;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, timeout};

use super::StartError;
use super::cutoff::{CutOff, may_be_better_elsewhere};
use crate::ca::Fellows;
use crate::leader::Leader;
use crate::seal::Seal;
use crate::settings::StoreSettings;
use crate::store::{Clock, Embedded, Etcd, Hold, Leases, News, PRESENT, RecordWrite, Records, Store, StoreError, read_again};

/// The file below `data_dir` that says that a control plane is using it.
const LOCK_FILE: &str = "controlplane.lock";
/// Random bytes of a name.
const NAME_BYTES: usize = 6;
/// How long a control plane that says nothing counts as present.
const PRESENCE: Duration = Duration::from_secs(10);
/// A control plane whose last word is this long ago is cut off: others count it as gone, and its nodes have what is left of a minute to go to them.
const CUT_OFF: Duration = Duration::from_secs(20);
/// After so long it tells the fleet that it does not see its store, so that this is known everywhere when it is cut off.
const BLIND: Duration = Duration::from_secs(10);
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
/// Who listens to what others write: the mesh, and the authority.
const LISTENERS: usize = 2;
/// What is told to whoever follows and not yet taken.
const TOLD: usize = 1_024;

/// What a control plane keeps, and with whom.
pub(super) struct Kept {
    pub(super) store: Arc<dyn Store>,
    pub(super) records: Arc<dyn Records>,
    pub(super) leader: Leader,
    /// Its name among several; `None`: it is the only one.
    pub(super) among: Option<Among>,
    /// What others write, listened to before anything was read, so that nothing lies in between.
    early: Mutex<Vec<Receiver<News>>>,
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

/// Whom a control plane that does not see its store concerns.
struct Watch {
    /// Told when it is cut off.
    cut: CutOff,
    /// Those that are connected.
    nodes: Arc<NodeRegistry>,
    /// What the others say of themselves.
    membership: Membership,
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
            return Ok(Kept {
                store: embedded.clone(),
                records: embedded,
                leader: Leader::alone(),
                among: None,
                early: Mutex::default(),
            });
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
        if let Some(every) = etcd.compact {
            let leads = leader.clone();
            tokio::spawn(store.clone().forget_every(every, move || leads.leads(), drain.clone()));
        }
        let among = Some(Among { name, leases: store.clone(), present: watch::Sender::new(None), lock });
        let early = Mutex::new((0..LISTENERS).filter_map(|_| store.news()).collect());
        Ok(Kept { store: store.clone(), records: store, leader, among, early })
    }

    /// What others write from before the store was read; `None` where nobody else can write.
    pub(super) fn news(&self) -> Option<Receiver<News>> {
        self.early.lock().pop().or_else(|| self.records.news())
    }

    /// Says that this control plane is there, where there are several, and tells what the others do; see [`Among::follow`]. When it cannot say so, it is cut off,
    /// and sends `nodes` to others, if by what these say in the fleet they are better off.
    pub(super) fn others(
        &self,
        nodes: &Arc<NodeRegistry>,
        membership: &Membership,
        drain: &DrainWatch,
    ) -> (CutOff, Option<mpsc::Receiver<Heard>>) {
        let cut = CutOff::new();
        let watch = Watch { cut: cut.clone(), nodes: nodes.clone(), membership: membership.clone() };
        let follow = |among: &Among| among.follow((self.records.clone(), self.news()), watch, drain);
        (cut, self.among.as_ref().map(follow))
    }

    /// Whether all that the store has sealed can be read.
    async fn can_be_read(&self, seal: &Seal, records: &[(String, Vec<u8>)]) -> Result<bool, StoreError> {
        let parsed = |(_, body): &(String, Vec<u8>)| serde_json::from_slice(body).ok();
        if !records.iter().filter_map(parsed).all(|body: serde_json::Value| seal.reads(&body)) {
            return Ok(false);
        }
        let (_, versions) = self.store.load().await?;
        Ok(versions.iter().filter_map(|version| version.value.as_ref()).all(|value| seal.reads(value)))
    }

    /// Makes sure that all control planes have the same key for secrets, for what one seals the others have to read.
    pub(super) async fn same_seal(&self, seal: &Seal, place: &str) -> Result<(), StartError> {
        if self.among.is_none() {
            return Ok(());
        }
        for _ in 0..2 {
            let records = self.records.records().await?;
            let Some((_, there)) = records.iter().find(|(key, _)| key == SEAL_RECORD) else {
                // A store that was moved here, or restored, has secrets and no word of their key yet.
                if !self.can_be_read(seal, &records).await? {
                    return Err(StartError::UnreadableSecrets(place.to_owned()));
                }
                let sealed = seal.seal(SEAL_TEXT)?.into_bytes();
                let first = vec![RecordWrite::Require(SEAL_RECORD.into(), None), RecordWrite::Set(SEAL_RECORD.into(), sealed)];
                match self.records.record(first, Vec::new()).await {
                    Err(StoreError::Changed(_)) => continue,
                    done => return Ok(done?),
                }
            };
            let plain = std::str::from_utf8(there).ok().and_then(|text| seal.unseal(text).ok());
            return if plain.as_deref() == Some(SEAL_TEXT) { Ok(()) } else { Err(StartError::OtherSeal(place.to_owned())) };
        }
        Ok(())
    }
}

impl Among {
    /// Says that this control plane is there, and tells what the others do, until the drain begins. `watch` are those whom it concerns when that cannot be said.
    fn follow(
        &self,
        (records, heard): (Arc<dyn Records>, Option<Receiver<News>>),
        watch: Watch,
        drain: &DrainWatch,
    ) -> mpsc::Receiver<Heard> {
        let (sender, receiver) = mpsc::channel(TOLD);
        tokio::spawn(presence(self.clone(), sender.clone(), watch, drain.clone()));
        tokio::spawn(news((records, heard), sender, drain.clone(), fastrand::Rng::new()));
        receiver
    }

    /// Who is there.
    pub(super) fn fellows(&self) -> Fellows {
        Fellows { name: self.name.clone(), present: self.present.subscribe() }
    }
}

impl Watch {
    /// Sends nodes to other control planes, unless none of `others` is better off; `stays` remembers that this was told.
    fn is_cut_off(&self, others: Option<usize>, stays: &mut bool) {
        if may_be_better_elsewhere(others, &self.membership.fleet()) {
            let connected = self.nodes.nodes().into_iter().map(|view| view.node.scope.id);
            if self.cut.begin(connected) {
                tracing::error!(
                    "this control plane does not see its store for {} s: its nodes are sent to other control planes. Those that reach no other are served \
                     from memory",
                    CUT_OFF.as_secs()
                );
            }
        } else if !std::mem::replace(stays, true) {
            tracing::error!(
                "no control plane sees the store for {} s: nodes stay where they are, and are served from memory",
                CUT_OFF.as_secs()
            );
        }
    }
}

async fn presence(among: Among, told: mpsc::Sender<Heard>, watch: Watch, mut drain: DrainWatch) {
    let Among { name, leases, present, lock } = among;
    let (mut ticks, mut said, mut stays) = (interval(EVERY), heddle_node::clock::now(), false);
    let right = format!("{PRESENT}{name}");
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = drain.draining() => break,
        }
        let held = timeout(LOOK, leases.hold(&right, &name, PRESENCE)).await;
        if !matches!(held, Ok(Ok(Hold::Ours))) {
            if said.elapsed() >= BLIND {
                watch.membership.say(|facts| facts.sees_store = Some(false));
            }
            let others = present.borrow().as_ref().map(|there| there.iter().filter(|other| **other != *name).count());
            if said.elapsed() >= CUT_OFF {
                watch.is_cut_off(others, &mut stays);
            }
            continue;
        }
        (said, stays) = (heddle_node::clock::now(), false);
        watch.membership.say(|facts| facts.sees_store = Some(true));
        if watch.cut.end() {
            tracing::info!("this control plane sees its store again");
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

async fn news(
    (records, heard): (Arc<dyn Records>, Option<Receiver<News>>),
    told: mpsc::Sender<Heard>,
    mut drain: DrainWatch,
    mut dice: fastrand::Rng,
) {
    let Some(mut news) = heard else { return };
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
    use heddle_node::membership::{Facts, Member, MemberState};

    use super::*;
    use crate::store::Cluster;

    async fn open(cluster: &Cluster, folder: &Path, drain: &DrainWatch) -> Kept {
        let settings = StoreSettings {
            keep_revisions: 10,
            keep_for: PRESENCE,
            secrets_key: crate::settings::SecretsKey::Made,
            etcd: Some(cluster.settings("/kept/")),
        };
        Kept::open(&settings, folder, Arc::new(heddle_node::clock::unix_ms), drain).await.unwrap()
    }

    fn set(key: &str, body: &[u8]) -> Vec<RecordWrite> {
        vec![RecordWrite::Set(key.into(), body.to_vec())]
    }

    /// Rights that can be out of reach.
    #[derive(Default)]
    struct Far(std::sync::atomic::AtomicBool);

    #[async_trait::async_trait]
    impl Leases for Far {
        async fn hold(&self, _: &str, _: &str, _: Duration) -> Result<Hold, StoreError> {
            if self.0.load(std::sync::atomic::Ordering::SeqCst) { Err(StoreError::Away("far".into())) } else { Ok(Hold::Ours) }
        }
        async fn held(&self, _: &str) -> Result<Vec<String>, StoreError> {
            Ok(vec!["one".into(), "two".into()])
        }
        async fn release(&self, _: &str) -> Result<(), StoreError> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_see_the_store_for_long_sends_its_nodes_on() {
        let (folder, (_completion, drain)) = (tempfile::tempdir().unwrap(), heddle_node::drain::pair());
        let far = Arc::new(Far::default());
        let lock = Arc::new(taken(folder.path()).unwrap());
        let among = Among { name: "one".into(), leases: far.clone(), present: watch::Sender::new(None), lock };
        let (sender, mut told) = mpsc::channel(100);
        let cut = CutOff::new();
        let streams = cut.elsewhere();
        let membership = Membership::alone("cp-1", Facts::default());
        let watch = Watch { cut: cut.clone(), nodes: Arc::new(NodeRegistry::new()), membership: membership.clone() };
        tokio::spawn(presence(among, sender, watch, drain));
        assert!(matches!(told.recv().await, Some(Heard::Present(_))));
        let is_far = |is: bool| far.0.store(is, std::sync::atomic::Ordering::SeqCst);
        is_far(true);
        tokio::time::sleep(CUT_OFF / 2).await;
        is_far(false);
        tokio::time::sleep(EVERY * 2).await;
        assert!(!streams.has_changed().unwrap(), "a short while does not matter");
        assert_eq!(membership.facts().sees_store, Some(true));
        let other = |sees_store| {
            let facts = Arc::new(Facts { sees_store, ..Facts::default() });
            membership.hear(vec![Member { id: "cp-2".into(), facts, state: MemberState::Alive, last_seen_ms: 0 }]);
        };
        other(Some(false));
        is_far(true);
        tokio::time::sleep(CUT_OFF + EVERY * 2).await;
        assert!(!streams.has_changed().unwrap(), "the other one does not see it either");
        assert_eq!(membership.facts().sees_store, Some(false), "and each tells the other");
        other(Some(true));
        tokio::time::sleep(EVERY * 2).await;
        assert!(streams.has_changed().unwrap());
        assert!(cut.admit(&"new".into()).is_err() && cut.admit(&"new".into()).is_ok());
        is_far(false);
        tokio::time::sleep(EVERY * 2).await;
        assert!(cut.admit(&"another".into()).is_ok(), "it sees its store again");
    }

    #[tokio::test]
    async fn nothing_is_missed_between_reading_and_listening() {
        let (cluster, folder, (_completion, drain)) = (Cluster::of(1), tempfile::tempdir().unwrap(), heddle_node::drain::pair());
        let kept = open(&cluster, folder.path(), &drain).await;
        let (other, mut open) = (cluster.store("/kept/", Arc::new(|| 0)).await, kept.records.news().unwrap());
        let mut hears = async |name: &str| {
            let is_it = |heard: &News| heard.iter().any(|(key, _)| key == name);
            while !matches!(open.recv().await, Ok(heard) if is_it(&heard)) {}
        };
        // From here on it follows.
        for n in 0.. {
            other.record(set("mark", &[n]), vec![]).await.unwrap();
            if timeout(Duration::from_secs(1), hears("mark")).await.is_ok() {
                break;
            }
        }
        kept.records.records().await.unwrap();
        other.record(set("between", b""), vec![]).await.unwrap();
        hears("between").await;
        let membership = Membership::alone("cp-1", Facts::default());
        let mut told = kept.others(&Arc::new(NodeRegistry::new()), &membership, &drain).1.unwrap();
        loop {
            match told.recv().await.unwrap() {
                Heard::News(news) if news.iter().any(|(key, _)| key == "between") => return,
                Heard::All(all) if all.iter().any(|(key, _)| key == "between") => return,
                _ => {}
            }
        }
    }

    #[tokio::test]
    async fn who_cannot_read_what_is_sealed_does_not_say_with_what_it_is_sealed() {
        let (cluster, folder, (_completion, drain)) = (Cluster::of(1), tempfile::tempdir().unwrap(), heddle_node::drain::pair());
        let kept = open(&cluster, folder.path(), &drain).await;
        let (right, wrong) = (Seal::new(&[1; 32]).unwrap(), Seal::new(&[2; 32]).unwrap());
        let secret = serde_json::json!({ "roots": [{ "key": right.seal("hush").unwrap() }] });
        kept.records.record(set("authority/state", secret.to_string().as_bytes()), vec![]).await.unwrap();
        let refused = kept.same_seal(&wrong, "the key file secrets.key").await.unwrap_err().to_string();
        assert!(refused.contains("secrets.key") && refused.contains("cannot be read"), "{refused}");
        kept.records.record(vec![RecordWrite::Remove("authority/state".into())], vec![]).await.unwrap();
        let key = crate::model::Key::new(crate::model::ResourceKind::Ssl, "s");
        let value = Some(serde_json::json!({ "key": right.seal("hush").unwrap() }));
        let write = crate::store::Write { key, value, expires_at_ms: None };
        kept.store.txn(vec![], vec![write], "ops".into()).await.unwrap();
        assert!(kept.same_seal(&wrong, "the key file secrets.key").await.is_err());
        assert!(kept.records.records().await.unwrap().is_empty());
        kept.same_seal(&right, "the key file secrets.key").await.unwrap();
        kept.same_seal(&right, "the key file secrets.key").await.unwrap();
        assert!(matches!(kept.same_seal(&wrong, "the key file secrets.key").await, Err(StartError::OtherSeal(_))));
    }

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
