//! Configuration that lies in Consul: resources behind keys, routes that services ask for by their tags, and intentions. What was read last is kept, so that a start
//! without Consul has it too.

mod catalog;
mod conditions;
mod intentions;
mod kv;
mod middlewares;
mod permissions;
mod rule;
mod tags;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use heddle_node::clock;
use heddle_node::consul::{Belief, Consul, ConsulError, Intention, KvPair, Scope, Services, Verdict, Watch};
use heddle_node::drain::DrainWatch;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use super::{Batch, Provider, ProviderError};
use crate::model::{Key, ResourceKind};
use crate::seal::Seal;
use crate::settings::{CatalogSettings, IntentionsSettings, KvSettings};
use crate::state::{Content, Places, Update};
use crate::store::{RecordWrite, Records, fitting};

/// What is wrong with the constraints of the catalog, if anything.
pub fn check_constraints(settings: &CatalogSettings) -> Option<String> {
    let fault = tags::satisfies(settings.constraints.as_deref()?, &[]).err()?;
    Some(format!("providers.consul.catalog.constraints: {fault}"))
}

/// What each source holds, or what is wrong with it.
type Sources = BTreeMap<Arc<str>, Result<Vec<(Key, Value)>, Vec<String>>>;

/// The source that stands for Consul itself while it does not answer.
const ITSELF: &str = "consul";

/// Where what is read is kept for a start without Consul.
#[derive(Clone)]
pub struct Memory {
    /// The records of the store.
    pub records: Arc<dyn Records>,
    /// Encrypts them: resources may hold secrets.
    pub seal: Arc<Seal>,
}

/// What is read.
#[derive(Debug, Clone)]
enum What {
    Keys(KvSettings),
    Catalog(CatalogSettings),
    Intentions(IntentionsSettings),
}

/// Configuration that lies in Consul.
pub struct ConsulProvider {
    name: &'static str,
    consul: Consul,
    what: What,
    memory: Memory,
    dice: fastrand::Rng,
    /// What was reported last.
    told: BTreeMap<Arc<str>, Content>,
    begun: bool,
    /// What is held comes from before a restart or a failure: the next answer may be another Consul's, whose index says nothing.
    unsure: bool,
}

/// What is being watched.
enum Watching {
    Keys(Watch<Vec<KvPair>>),
    Catalog(Watch<Services>),
    Intentions(Watch<Vec<Intention>>),
}

impl ConsulProvider {
    /// Resources behind keys.
    pub fn keys(consul: Consul, settings: KvSettings, memory: Memory, dice: fastrand::Rng) -> ConsulProvider {
        ConsulProvider::new("consul-kv", consul, What::Keys(settings), memory, dice)
    }

    /// Routes that services ask for by their tags.
    pub fn catalog(consul: Consul, settings: CatalogSettings, memory: Memory, dice: fastrand::Rng) -> ConsulProvider {
        ConsulProvider::new("consul-catalog", consul, What::Catalog(settings), memory, dice)
    }

    /// Intentions as authorization policies.
    pub fn intentions(consul: Consul, settings: IntentionsSettings, memory: Memory, dice: fastrand::Rng) -> ConsulProvider {
        ConsulProvider::new("consul", consul, What::Intentions(settings), memory, dice)
    }

    fn new(name: &'static str, consul: Consul, what: What, memory: Memory, dice: fastrand::Rng) -> ConsulProvider {
        ConsulProvider { name, consul, what, memory, dice, told: BTreeMap::new(), begun: false, unsure: false }
    }

    fn watching(&mut self) -> Watching {
        let dice = self.dice.fork();
        match &self.what {
            What::Keys(settings) => Watching::Keys(self.consul.keys(&format!("{}/", settings.prefix), &Scope::default(), dice)),
            What::Catalog(_) => Watching::Catalog(self.consul.services(&Scope::default(), dice)),
            What::Intentions(_) => Watching::Intentions(self.consul.intentions(&Scope::default(), dice)),
        }
    }

    /// What the sources hold now; `None`: an empty answer is doubted.
    async fn look(&self, watching: &mut Watching, belief: &mut Belief) -> Result<Option<Sources>, ConsulError> {
        let (sources, empty, index, reset, filtered) = match (watching, &self.what) {
            (Watching::Keys(watch), What::Keys(settings)) => {
                let seen = watch.next().await?;
                let sources = kv::read(&settings.prefix, self.name, &seen.value);
                let empty = sources.is_empty();
                (sources, empty, seen.index, seen.reset, seen.filtered)
            }
            (Watching::Catalog(watch), What::Catalog(settings)) => {
                let seen = watch.next().await?;
                let sources = catalog::read(settings, self.name, &seen.value);
                let empty = sources.is_empty();
                (sources, empty, seen.index, seen.reset, seen.filtered)
            }
            (Watching::Intentions(watch), What::Intentions(settings)) => {
                let seen = watch.next().await?;
                let sources = intentions::read(settings, self.name, &seen.value);
                (sources, seen.value.is_empty(), seen.index, seen.reset, seen.filtered)
            }
            _ => return Ok(None),
        };
        let verdict = belief.judge(empty, index, reset || self.unsure, filtered, clock::now());
        Ok((verdict == Verdict::Believe).then_some(sources))
    }

    /// Writes down what Consul holds, for a start without it.
    async fn write_down(&self, writes: Vec<RecordWrite>) {
        let (writes, too_large) = fitting(writes, self.memory.records.most());
        if !too_large.is_empty() {
            tracing::error!(provider = self.name, keys = ?too_large, "this is too large for the store; a start without Consul will not have it");
        }
        if !writes.is_empty()
            && let Err(error) = self.memory.records.record(writes, Vec::new()).await
        {
            tracing::warn!(provider = self.name, %error, "what Consul holds cannot be written down; a start without Consul will not have it");
        }
    }

    /// What there is when Consul holds nothing.
    fn nothing(&self) -> Sources {
        match &self.what {
            What::Keys(_) | What::Catalog(_) => Sources::new(),
            What::Intentions(settings) => intentions::read(settings, self.name, &[]),
        }
    }

    /// What differs from what was reported.
    fn news(&mut self, sources: Sources) -> (Batch, Vec<RecordWrite>) {
        let mut now: BTreeMap<Arc<str>, Content> = BTreeMap::new();
        for (source, held) in sources {
            now.insert(source, held.map_or_else(Content::Broken, Content::Whole));
        }
        let (mut batch, mut writes) = (Batch::new(), Vec::new());
        for source in self.told.keys().filter(|source| !now.contains_key(*source)) {
            batch.push(self.update(source, Content::Gone));
            if **source != *ITSELF {
                writes.push(RecordWrite::Remove(self.record_key(source)));
            }
        }
        for (source, content) in &now {
            if self.told.get(source) == Some(content) {
                continue;
            }
            batch.push(self.update(source, content.clone()));
            if let Content::Whole(resources) = content
                && let Ok(sealed) = self.memory.seal.seal(&body(resources))
            {
                writes.push(RecordWrite::Set(self.record_key(source), sealed.into_bytes()));
            }
        }
        self.told = now;
        (batch, writes)
    }

    fn update(&self, source: &Arc<str>, content: Content) -> Update {
        Update { provider: self.name.into(), source: source.clone(), content, places: Places::default() }
    }

    /// Consul does not answer: that is told once.
    fn away(&mut self, error: &ConsulError) -> Batch {
        let mut batch = Batch::new();
        let (source, content) = (Arc::from(ITSELF), Content::Broken(vec![error.to_string()]));
        if self.told.insert(source, content.clone()).as_ref() != Some(&content) {
            batch.push(self.update(&Arc::from(ITSELF), content));
        }
        batch
    }

    /// Reports what was known before a restart: it is the last good content of what Consul holds now, and all there is while Consul is away.
    async fn remember(&mut self) -> Batch {
        let mut batch = Batch::new();
        for (source, resources) in self.remembered().await {
            self.told.insert(source.clone(), Content::Whole(resources.clone()));
            batch.push(self.update(&source, Content::Whole(resources)));
        }
        batch
    }

    async fn remembered(&self) -> Vec<(Arc<str>, Vec<(Key, Value)>)> {
        let records = match self.memory.records.records().await {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(provider = self.name, %error, "what was read from Consul before cannot be read from the store");
                return Vec::new();
            }
        };
        let prefix = self.record_key("");
        let read = |(key, sealed): (String, Vec<u8>)| {
            let source = key.strip_prefix(&prefix)?;
            let text = self.memory.seal.unseal(&String::from_utf8(sealed).ok()?).ok()?;
            Some((Arc::from(source), resources(&text)?))
        };
        records.into_iter().filter_map(read).collect()
    }

    fn record_key(&self, source: &str) -> String {
        format!("providers/{}/{source}", self.name)
    }
}

/// Resources as they are kept.
fn body(resources: &[(Key, Value)]) -> String {
    let list: Vec<(&str, &str, &Value)> = resources.iter().map(|(key, value)| (key.kind.plural(), &*key.id, value)).collect();
    // Texts and values of JSON always have a form in JSON.
    serde_json::to_string(&list).unwrap_or_default()
}

fn resources(text: &str) -> Option<Vec<(Key, Value)>> {
    let list: Vec<(String, String, Value)> = serde_json::from_str(text).ok()?;
    let key = |kind: &str, id: &str| {
        let credential = kind == ResourceKind::Credential.plural();
        Some(Key::new(if credential { ResourceKind::Credential } else { ResourceKind::from_plural(kind)? }, id))
    };
    list.into_iter().map(|(kind, id, value)| Some((key(&kind, &id)?, value))).collect()
}

#[async_trait]
impl Provider for ConsulProvider {
    fn name(&self) -> &str {
        self.name
    }

    async fn run(&mut self, updates: mpsc::Sender<Batch>, mut shutdown: DrainWatch) -> Result<(), ProviderError> {
        let mut watching = self.watching();
        let remembered = if self.begun { Batch::new() } else { self.remember().await };
        let mut belief = Belief::new(!self.told.is_empty());
        if !remembered.is_empty() {
            (self.begun, self.unsure) = (true, true);
            if updates.send(remembered).await.is_err() {
                return Ok(());
            }
        }
        loop {
            let end = belief.ends();
            let looked = tokio::select! {
                () = shutdown.draining() => return Ok(()),
                () = sleep_until(end.unwrap_or_else(clock::now)), if end.is_some() => Ok(None),
                looked = self.look(&mut watching, &mut belief) => looked,
            };
            self.unsure = looked.is_err();
            // It was said for long enough that there is nothing.
            let over = looked.as_ref().is_ok_and(Option::is_none) && belief.ends().is_some_and(|end| end <= clock::now());
            let looked = if over {
                belief.settle();
                Ok(Some(self.nothing()))
            } else {
                looked
            };
            let batch = match looked {
                Ok(Some(sources)) => {
                    let (batch, writes) = self.news(sources);
                    self.write_down(writes).await;
                    if batch.is_empty() && self.begun {
                        continue;
                    }
                    batch
                }
                Ok(None) => {
                    let doubt = "the answer is empty and nothing says why; what was known before stays until something comes, or for a minute";
                    self.away(&ConsulError::Settings(doubt.to_owned()))
                }
                Err(error) => {
                    belief.away(clock::now());
                    let batch = self.away(&error);
                    if batch.is_empty() && self.begun {
                        continue;
                    }
                    batch
                }
            };
            self.begun = true;
            if updates.send(batch).await.is_err() {
                return Ok(());
            }
        }
    }
}
