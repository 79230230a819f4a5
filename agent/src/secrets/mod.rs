//! Secrets that are kept elsewhere: references in configurations, looked up by the agent that needs them, remembered, and asked for again in the
//! background. It knows no plugins and no tables; what a reference stands for is never logged.

pub mod reference;
#[cfg(test)]
mod tests;
mod values;
mod vault;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_lc_rs::hmac;
use heddle_node::clock;
use heddle_node::config::Environment;
use heddle_node::hex;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::outbound::Outbound;
use reference::Reference;
use values::Values;
use vault::Vault;

/// What resource names of managers begin with (`secrets/vault/1`).
const MANAGERS: &str = "secrets/";
/// How often is looked for references that are due.
const TICK: Duration = Duration::from_secs(1);
/// Longest that a change of configuration waits for secrets that nobody has asked for before.
const PATIENCE: Duration = Duration::from_secs(5);
/// References asked for at the same time.
const AT_ONCE: usize = 16;
/// Requests that wait for the keeper.
const WAITING: usize = 16;
/// Longest secret in a file, in bytes.
const LONGEST_FILE: u64 = 1024 * 1024;

/// What references stand for. Clones are one.
#[derive(Clone)]
pub struct References {
    shared: Arc<Shared>,
}

struct Shared {
    environment: Arc<dyn Environment + Send + Sync>,
    /// Where the manager `file` looks.
    folder: PathBuf,
    outbound: Outbound,
    values: Mutex<Values>,
    /// Descriptions of managers by name (`vault/1`).
    managers: Mutex<HashMap<String, Arc<str>>>,
    /// Makes what stands for what cannot be looked up; made when that is needed first.
    closed: OnceLock<hmac::Key>,
}

/// A request to look up what is not known yet; answered when that was tried.
type Wanted = (BTreeSet<String>, oneshot::Sender<()>);

/// The way to a keeper at work.
pub struct Kept {
    requests: mpsc::Sender<Wanted>,
    changes: mpsc::Receiver<BTreeSet<String>>,
}

impl References {
    /// Nothing is known. `$env://` is looked up in `environment`, `$secret://file/` below `folder`, and others are asked through `outbound`.
    pub fn new(environment: Arc<dyn Environment + Send + Sync>, folder: PathBuf, outbound: Outbound) -> References {
        let (values, managers, closed) = (Mutex::default(), Mutex::default(), OnceLock::new());
        let shared = Shared { environment, folder, outbound, values, managers, closed };
        References { shared: Arc::new(shared) }
    }

    /// The value with every reference replaced by what it stands for; whether all are known. One that is not becomes a text that nobody can guess.
    pub fn resolved(&self, value: &Arc<Value>) -> (Arc<Value>, bool) {
        if wanted(value).is_empty() {
            return (value.clone(), true);
        }
        let mut complete = true;
        let replaced = reference::replaced(value, &mut |text| match self.get(text) {
            Some(secret) => secret.to_string(),
            None => {
                complete = false;
                self.closed(text)
            }
        });
        (Arc::new(replaced), complete)
    }

    /// Stands for what cannot be looked up: nobody can guess it, so that whatever it should have opened stays closed. Each reference has another one,
    /// so that who is shown one (where a secret was to be part of an answer) has nothing that opens others.
    fn closed(&self, text: &str) -> String {
        let key = self.shared.closed.get_or_init(|| {
            let mut random = [0; 32];
            // Without random bytes there is no TLS either; what then stands for an unknown secret is still no text that anybody would send.
            let _ = aws_lc_rs::rand::fill(&mut random);
            hmac::Key::new(hmac::HMAC_SHA256, &random)
        });
        format!("unresolved\u{1}{}", hex::encode(hmac::sign(key, text.as_bytes()).as_ref()))
    }

    /// What one reference stands for, as far as is known.
    pub fn get(&self, text: &str) -> Option<Arc<str>> {
        self.shared.values.lock().get(text, clock::now())
    }

    /// Takes the description of a manager by its resource name, or that it is gone. Whatever it was asked for before is asked for again.
    pub fn manager(&self, name: &str, json: Option<Arc<str>>) {
        let Some(name) = name.strip_prefix(MANAGERS) else { return };
        let mut managers = self.shared.managers.lock();
        let before = match &json {
            Some(json) => managers.insert(name.to_owned(), json.clone()),
            None => managers.remove(name),
        };
        if before != json {
            self.shared.values.lock().outdate(clock::now());
        }
    }

    /// Begins to look up what is asked for and to ask again for what has grown old, on a thread of its own.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn keep(&self) -> std::io::Result<Kept> {
        let (requests, mut asked) = mpsc::channel::<Wanted>(WAITING);
        let (sender, changes) = mpsc::channel(WAITING);
        let references = self.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = async move {
            let mut ticks = tokio::time::interval(TICK);
            loop {
                let (due, done) = tokio::select! {
                    request = asked.recv() => match request {
                        Some((wanted, done)) => (references.shared.values.lock().unknown(wanted), Some(done)),
                        None => break,
                    },
                    _ = ticks.tick() => (references.shared.values.lock().due(clock::now()), None),
                };
                let changed = references.fetch(due).await;
                if let Some(done) = done {
                    let _ = done.send(());
                } else if !changed.is_empty() && sender.send(changed).await.is_err() {
                    break;
                }
            }
        };
        std::thread::Builder::new().name("secrets".to_owned()).spawn(move || runtime.block_on(work))?;
        Ok(Kept { requests, changes })
    }

    /// Looks these up; gives those that stand for something else than before.
    async fn fetch(&self, references: BTreeSet<String>) -> BTreeSet<String> {
        let mut changed = BTreeSet::new();
        let references: Vec<String> = references.into_iter().collect();
        for some in references.chunks(AT_ONCE) {
            let found = futures_util::future::join_all(some.iter().map(|text| self.look_up(text))).await;
            for (text, found) in some.iter().zip(found) {
                let found = found.inspect_err(|why| tracing::warn!(reference = %text, %why, "a secret cannot be looked up; the last good value, if there was one, stays")).ok();
                if self.shared.values.lock().learn(text, found, clock::now()) {
                    changed.insert(text.clone());
                }
            }
        }
        changed
    }

    async fn look_up(&self, text: &str) -> Result<Arc<str>, String> {
        let shared = &self.shared;
        let reference = Reference::parse(text)?;
        let Reference::Managed { manager, id, name, key } = reference else {
            return vault::from_environment(&reference, &*shared.environment);
        };
        match manager {
            "file" => self.read(id, name, key),
            "vault" => {
                let json = shared.managers.lock().get(&format!("vault/{id}")).cloned();
                let json = json.ok_or_else(|| format!("there is no secrets/vault/{id}"))?;
                Vault::new(&json, &shared.outbound, &*shared.environment)?.ask(name, key).await
            }
            "aws" | "gcp" => Err(format!("the manager {manager} is not supported; use vault or file")),
            _ => Err("no such manager; expected vault or file".to_owned()),
        }
    }

    /// One file per key. Symbolic links are followed, since that is how volumes of secrets are mounted.
    fn read(&self, id: &str, name: &str, key: &str) -> Result<Arc<str>, String> {
        let path = self.shared.folder.join(id).join(name).join(key);
        let data = std::fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        if !data.is_file() || data.len() > LONGEST_FILE {
            return Err(format!("{}: expected a file of at most 1 MiB", path.display()));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(text.strip_suffix('\n').unwrap_or(&text).into())
    }
}

impl Kept {
    /// Has looked up what nobody has asked for before, or has waited long enough.
    pub async fn ready(&self, wanted: BTreeSet<String>) {
        let (done, answer) = oneshot::channel();
        if !wanted.is_empty() && self.requests.send((wanted, done)).await.is_ok() {
            // Whatever comes later comes as a change.
            let _ = tokio::time::timeout(PATIENCE, answer).await;
        }
    }

    /// The next references that stand for something else than before.
    pub async fn changed(&mut self) -> Option<BTreeSet<String>> {
        self.changes.recv().await
    }
}

/// All references in a value.
pub fn wanted(value: &Value) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    reference::visit(value, &mut |text| {
        all.insert(text.to_owned());
    });
    all
}
