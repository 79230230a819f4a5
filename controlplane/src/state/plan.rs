//! From intents to the configuration that they would give. A function of its arguments: it stores, validates and publishes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::{Effect, Expect, Intent, Options, Outcome, Refused, State, Stored};
use crate::model::{Key, ResourceKind};
use crate::store::{Compare, Revision, Write};

/// What a transaction would do.
#[derive(Debug)]
pub(super) struct Plan {
    /// Everything as it would be.
    pub(super) candidate: State,
    /// For the store.
    pub(super) writes: Vec<Write>,
    /// What the store has to find, or somebody else wrote in between.
    pub(super) compare: Vec<Compare>,
    /// What would be different, each once.
    pub(super) changed: Vec<Key>,
    /// One for each intent, then what follows from them.
    pub(super) outcomes: Vec<Outcome>,
}

/// Plans `intents` upon `base` as the revision after it.
pub(super) fn plan(base: &State, intents: Vec<Intent>, options: &Options, now_ms: u64) -> Result<Plan, Refused> {
    let mut planner = Planner {
        base,
        revision: base.revision + 1,
        now_ms,
        touched: BTreeSet::new(),
        plan: Plan { candidate: base.clone(), writes: vec![], compare: vec![], changed: vec![], outcomes: vec![] },
        followers: vec![],
    };
    for intent in intents {
        match intent {
            Intent::Put { key, value, expires_at_ms, expect } => {
                planner.expect(&key, expect)?;
                planner.put(key, value, expires_at_ms, options.skip_unchanged)?;
            }
            Intent::Create { kind, value, expires_at_ms } => {
                let key = planner.fresh(kind);
                planner.put(key, value, expires_at_ms, false)?;
            }
            Intent::Delete { key, expect } => {
                planner.expect(&key, expect)?;
                planner.delete(key)?;
            }
        }
    }
    Ok(planner.finish())
}

struct Planner<'a> {
    base: &'a State,
    revision: Revision,
    now_ms: u64,
    touched: BTreeSet<Key>,
    plan: Plan,
    /// Deletions that follow from others.
    followers: Vec<Outcome>,
}

impl Planner<'_> {
    /// Provider resources are not ours; everything else has to be what the intent expects.
    fn expect(&self, key: &Key, expect: Expect) -> Result<(), Refused> {
        if let Some(provider) = key.provider() {
            return Err(Refused::ReadOnly { key: key.clone(), provider: provider.to_owned() });
        }
        let found = self.plan.candidate.get(key).map(|stored| stored.modified);
        let expected = match expect {
            Expect::Any => return Ok(()),
            Expect::Modified(revision) => Some(revision),
            Expect::Absent => None,
        };
        if found == expected { Ok(()) } else { Err(Refused::Conflict { key: key.clone(), expected, found }) }
    }

    /// An id that nobody has: the coming revision, or the next free number after it.
    fn fresh(&self, kind: ResourceKind) -> Key {
        let mut number = self.revision;
        loop {
            let key = Key::new(kind, format!("{number:020}"));
            if self.plan.candidate.get(&key).is_none() {
                return key;
            }
            number += 1;
        }
    }

    fn put(&mut self, key: Key, value: Value, expires_at_ms: Option<u64>, skip_unchanged: bool) -> Result<(), Refused> {
        let before = self.plan.candidate.get(&key).cloned();
        if let Some(before) = before
            .as_ref()
            .filter(|before| skip_unchanged && before.expires_at_ms == expires_at_ms && same(&before.value, &value))
        {
            self.plan.outcomes.push(Outcome { key, effect: Effect::Unchanged, stored: before.clone() });
            return Ok(());
        }
        let value = stamp(&key, value, before.as_deref(), self.now_ms / 1000);
        let created = self.base.get(&key).map_or(self.revision, |stored| stored.created);
        let stored = Arc::new(Stored { value: value.clone(), created, modified: self.revision, expires_at_ms });
        self.write(&key, Some(stored.clone()), expires_at_ms);
        let effect = if before.is_some() { Effect::Replaced } else { Effect::Created };
        self.plan.outcomes.push(Outcome { key, effect, stored });
        Ok(())
    }

    fn delete(&mut self, key: Key) -> Result<(), Refused> {
        let Some(before) = self.plan.candidate.get(&key).cloned() else {
            // A deletion before this one may have taken it along.
            let Some(stored) = self.base.get(&key).cloned() else { return Err(Refused::NotFound(key)) };
            self.followers.retain(|outcome| outcome.key != key);
            self.plan.outcomes.push(Outcome { key, effect: Effect::Deleted, stored });
            return Ok(());
        };
        self.write(&key, None, None);
        if key.kind == ResourceKind::Consumer {
            let prefix = format!("{}/credentials/", key.id);
            let owned = self.plan.candidate.beginning(ResourceKind::Credential, &prefix);
            let owned: Vec<(Key, Arc<Stored>)> =
                owned.map(|(id, stored)| (Key::new(ResourceKind::Credential, id.clone()), stored.clone())).collect();
            for (key, stored) in owned.into_iter().filter(|(key, _)| key.provider().is_none()) {
                self.write(&key, None, None);
                self.followers.push(Outcome { key, effect: Effect::Deleted, stored });
            }
        }
        self.plan.outcomes.push(Outcome { key, effect: Effect::Deleted, stored: before });
        Ok(())
    }

    fn write(&mut self, key: &Key, stored: Option<Arc<Stored>>, expires_at_ms: Option<u64>) {
        let value = stored.as_ref().map(|stored| stored.value.clone());
        self.plan.candidate.set(key, stored);
        if self.touched.insert(key.clone()) {
            let modified = self.base.get(key).map(|stored| stored.modified);
            self.plan.compare.push(Compare { key: key.clone(), modified });
        }
        self.plan.writes.push(Write { key: key.clone(), value, expires_at_ms });
    }

    fn finish(mut self) -> Plan {
        let differs = |key: &Key| self.base.get(key) != self.plan.candidate.get(key);
        self.plan.changed = self.touched.iter().filter(|key| differs(key)).cloned().collect();
        if !self.plan.changed.is_empty() {
            self.plan.candidate.revision = self.revision;
            self.plan.candidate.generation = self.revision.max(self.base.generation + 1);
        }
        self.plan.outcomes.append(&mut self.followers);
        self.plan
    }
}

/// The fields that the keeper fills in.
pub(super) const STAMPS: [&str; 3] = ["id", "create_time", "update_time"];

/// Whether two values say the same, apart from what the keeper fills in.
pub(super) fn same(before: &Value, after: &Value) -> bool {
    let (Value::Object(before), Value::Object(after)) = (before, after) else { return before == after };
    let told = |name: &String| !STAMPS.contains(&name.as_str());
    before.keys().filter(|name| told(name)).all(|name| before.get(name) == after.get(name))
        && after.keys().filter(|name| told(name)).all(|name| before.contains_key(name))
}

/// Fills in `id` (where the kind has one), `create_time` and `update_time` (Unix seconds). A time that the writer gives
/// and that is not just what was read before stays as given.
fn stamp(key: &Key, mut value: Value, before: Option<&Stored>, now: u64) -> Value {
    let Value::Object(fields) = &mut value else { return value };
    let earlier = |name: &str| before.and_then(|before| before.value.get(name));
    if key.kind != ResourceKind::Consumer && !fields.contains_key("id") {
        let id = key.id.rsplit_once("/credentials/").map_or(&*key.id, |(_, id)| id);
        fields.insert("id".into(), id.into());
    }
    if !fields.contains_key("create_time") {
        fields.insert("create_time".into(), earlier("create_time").cloned().unwrap_or_else(|| now.into()));
    }
    let given = fields.get("update_time").filter(|given| before.is_some() && Some(*given) != earlier("update_time"));
    let updated = given.cloned().unwrap_or_else(|| now.into());
    fields.insert("update_time".into(), updated);
    value
}
