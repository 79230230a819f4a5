//! What each source of each provider holds: the content that is believed, and a newer one that waits to become valid. It stores and publishes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::{Content, Places, SourceStatus, State, Stored, Update, Validator};
use crate::model::Key;

/// Resources by their full key (`r1@file`).
type Resources = BTreeMap<Key, Value>;

/// A provider and one of its sources.
type Name = (Arc<str>, Arc<str>);

/// Every source that was ever heard of and is not gone.
#[derive(Debug, Default)]
pub(super) struct Sources {
    sources: BTreeMap<Name, Source>,
}

#[derive(Debug, Default)]
struct Source {
    /// What is believed.
    good: Resources,
    /// What the source holds now, when that is not (yet) believed.
    wanted: Option<Wanted>,
    accepted_ms: Option<u64>,
    refused_ms: Option<u64>,
    errors: Vec<String>,
}

#[derive(Debug, Default)]
struct Wanted {
    resources: Resources,
    /// The source itself is gone, and is forgotten once its resources are.
    gone: bool,
    /// Where they stand.
    places: Places,
}

/// A configuration in which some waiting sources have become valid.
#[derive(Debug)]
pub(super) struct Adoption {
    pub(super) candidate: State,
    /// Empty when what they hold is what was believed already.
    pub(super) changed: Vec<Key>,
}

impl Sources {
    /// Notes what sources hold now.
    pub(super) fn offer(&mut self, updates: Vec<Update>, now_ms: u64) {
        for Update { provider, source, content, places } in updates {
            let entry = self.sources.entry((provider.clone(), source)).or_default();
            let (resources, gone) = match content {
                Content::Broken(errors) => {
                    entry.refuse(errors, now_ms);
                    entry.wanted = None;
                    continue;
                }
                Content::Gone => (Resources::new(), true),
                Content::Whole(list) => match named(list, &provider, &places) {
                    Ok(resources) => (resources, false),
                    Err(errors) => {
                        entry.refuse(errors, now_ms);
                        entry.wanted = None;
                        continue;
                    }
                },
            };
            entry.wanted = Some(Wanted { resources, gone, places });
        }
    }

    /// Whether something waits to become valid.
    pub(super) fn waiting(&self) -> bool {
        self.sources.values().any(|source| source.wanted.is_some())
    }

    /// Takes over as many waiting sources as are valid together, or else one that is valid alone; whole sources only. The
    /// others keep what they had, and their faults are noted. `None` when nothing could be taken over.
    pub(super) fn adopt(&mut self, base: &State, validator: &dyn Validator, now_ms: u64) -> Option<Adoption> {
        let waiting = |(name, source): (&Name, &Source)| source.wanted.is_some().then(|| name.clone());
        let waiting: BTreeSet<Name> = self.sources.iter().filter_map(waiting).collect();
        self.join(waiting.clone(), base, validator, now_ms).or_else(|| {
            let mut alone = waiting.into_iter().map(|name| BTreeSet::from([name]));
            alone.find_map(|name| self.join(name, base, validator, now_ms))
        })
    }

    /// Takes over what is valid of `joining`, leaving out what is at fault until the rest is valid.
    fn join(&mut self, mut joining: BTreeSet<Name>, base: &State, validator: &dyn Validator, now_ms: u64) -> Option<Adoption> {
        while !joining.is_empty() {
            let (mut candidate, changed) = self.candidate(base, &joining);
            let mut faults = self.twice(&joining);
            if faults.is_empty() {
                faults = self.blame(validator.check(&candidate, &changed), &joining);
            }
            if faults.is_empty() {
                joining.iter().for_each(|name| self.accept(name, now_ms));
                candidate.generation += u64::from(!changed.is_empty());
                return Some(Adoption { candidate, changed });
            }
            for (name, errors) in faults {
                joining.remove(&name);
                if let Some(source) = self.sources.get_mut(&name) {
                    source.refuse(errors, now_ms);
                }
            }
        }
        None
    }

    /// How the sources stand.
    pub(super) fn status(&self) -> Vec<SourceStatus> {
        let status = |((provider, name), source): (&Name, &Source)| SourceStatus {
            provider: provider.clone(),
            source: name.clone(),
            resources: source.good.len(),
            accepted_ms: source.accepted_ms,
            refused_ms: source.refused_ms,
            errors: source.errors.clone(),
        };
        self.sources.iter().map(status).collect()
    }

    /// `base` with the waiting content of `joining` instead of what these sources had, and what differs.
    fn candidate(&self, base: &State, joining: &BTreeSet<Name>) -> (State, Vec<Key>) {
        let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
        for source in joining.iter().filter_map(|name| self.sources.get(name)) {
            before.extend(source.good.iter());
            after.extend(source.wanted.iter().flat_map(|wanted| wanted.resources.iter()));
        }
        let mut candidate = base.clone();
        let mut changed = Vec::new();
        for key in before.keys().filter(|key| !after.contains_key(*key)) {
            candidate.set(key, None);
            changed.push((*key).clone());
        }
        for (key, value) in after {
            if before.get(key) != Some(&value) {
                let modified = base.generation + 1;
                let created = base.get(key).map_or(modified, |stored| stored.created);
                let stored = Stored { value: value.clone(), created, modified, expires_at_ms: None };
                candidate.set(key, Some(Arc::new(stored)));
                changed.push(key.clone());
            }
        }
        (candidate, changed)
    }

    /// Resources that two sources of a provider define: the fault of the later one, unless only that one is settled.
    fn twice(&self, joining: &BTreeSet<Name>) -> BTreeMap<Name, Vec<String>> {
        let mut owners: BTreeMap<&Key, &Name> = BTreeMap::new();
        let mut faults: BTreeMap<Name, Vec<String>> = BTreeMap::new();
        let settled = self.sources.iter().filter(|(name, _)| !joining.contains(*name));
        for (name, source) in settled {
            owners.extend(source.good.keys().map(|key| (key, name)));
        }
        for name in joining {
            let wanted = self.sources.get(name).and_then(|source| source.wanted.as_ref());
            let Some(wanted) = wanted else { continue };
            for key in wanted.resources.keys() {
                match owners.get(key) {
                    Some(owner) => {
                        let fault = format!("{key}: {} defines it already; each id can be used once", owner.1);
                        faults.entry(name.clone()).or_default().push(wanted.places.tell(key, "", &fault));
                    }
                    None => {
                        owners.insert(key, name);
                    }
                }
            }
        }
        faults
    }

    /// Lays each fault at the door of the source that holds (or held) the resource; what is nobody's is everybody's.
    fn blame(&self, faults: Vec<(Key, crate::model::Fault)>, joining: &BTreeSet<Name>) -> BTreeMap<Name, Vec<String>> {
        let mut blamed: BTreeMap<Name, Vec<String>> = BTreeMap::new();
        for (key, fault) in faults {
            let wants = |name: &&Name| {
                let wanted = self.sources.get(*name).and_then(|source| source.wanted.as_ref());
                wanted.is_some_and(|wanted| wanted.resources.contains_key(&key))
            };
            let had = |name: &&Name| self.sources.get(*name).is_some_and(|source| source.good.contains_key(&key));
            let guilty = joining.iter().find(wants).or_else(|| joining.iter().find(had));
            for name in joining.iter().filter(|name| guilty.is_none_or(|guilty| guilty == *name)) {
                let places = self.sources.get(name).and_then(|source| source.wanted.as_ref()).map(|wanted| &wanted.places);
                let text = format!("{key}: {fault}");
                let text = places.map_or_else(|| text.clone(), |places| places.tell(&key, &fault.path, &text));
                blamed.entry(name.clone()).or_default().push(text);
            }
        }
        blamed
    }

    fn accept(&mut self, name: &Name, now_ms: u64) {
        let Some(source) = self.sources.get_mut(name) else { return };
        let Some(wanted) = source.wanted.take() else { return };
        if wanted.gone {
            self.sources.remove(name);
            return;
        }
        source.good = wanted.resources;
        source.accepted_ms = Some(now_ms);
        source.refused_ms = None;
        source.errors.clear();
    }
}

impl Source {
    /// Notes why the newest content is not believed; since when only changes with the reason.
    fn refuse(&mut self, errors: Vec<String>, now_ms: u64) {
        if self.errors != errors || self.refused_ms.is_none() {
            self.refused_ms = Some(now_ms);
            self.errors = errors;
        }
    }
}

/// Resources under their full names, or what is wrong with the ids.
fn named(list: Vec<(Key, Value)>, provider: &str, places: &Places) -> Result<Resources, Vec<String>> {
    let (mut resources, mut errors) = (Resources::new(), Vec::new());
    for (key, value) in list {
        if key.provider().is_some() {
            let message = format!("{key}: an id cannot contain `@`; `@{provider}` is added by itself");
            errors.push(places.tell(&key, "", &message));
        } else if resources.insert(key.of_provider(provider), value).is_some() {
            errors.push(places.tell(&key, "", &format!("{key}: defined twice; each id can be used once")));
        }
    }
    if errors.is_empty() { Ok(resources) } else { Err(errors) }
}
