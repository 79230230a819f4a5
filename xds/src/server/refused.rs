//! What a client refuses of one kind, until it accepts something newer. It knows no stream.

mod gone;
mod stands;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use crate::model::Kind;
use crate::protocol::{parse_nack, shortened};
use crate::snapshot::History;

#[cfg(test)]
pub(super) use self::gone::MAX_KEPT;
pub(super) use self::gone::{Gone, Leads, MAX_WAITING, Taken};
pub use self::stands::Stands;

/// Names of a response that are looked for in a text that others wrote.
const MAX_LOOKED_FOR: usize = 10_000;
/// Refused resources that are remembered by name, per kind and stream.
const MAX_REFUSED: usize = 1000;

/// A resource that a node refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nack {
    /// Its kind.
    pub kind: Kind,
    /// Its name, empty when the node did not say it.
    pub name: Arc<str>,
    /// The version that it refuses, empty where it cannot be said.
    pub version: Arc<str>,
    /// Dotted path inside it, empty when the node did not say it.
    pub field: String,
    /// Why, in the node's words.
    pub reason: String,
    /// When the node said so.
    pub time: SystemTime,
    /// Names of the user's resources in it that have changed since the version that the node took last; empty where it is of one, or that is not known.
    pub parts: Arc<BTreeSet<Arc<str>>>,
}

/// What a client refuses of one kind.
#[derive(Debug, Default)]
pub(super) struct Refused {
    by_name: BTreeMap<Arc<str>, Nack>,
    /// What the client took last of a kind of which it has one resource alone, and its version.
    only: Option<(Arc<str>, Arc<str>)>,
}

impl Refused {
    /// The client accepted a response with these names.
    pub(super) fn accept<'a>(&mut self, names: impl Iterator<Item = &'a Arc<str>>) {
        if !self.by_name.is_empty() {
            names.for_each(|name| drop(self.by_name.remove(name)));
            self.by_name.remove("");
        }
    }

    /// The client has taken these names in these versions.
    pub(super) fn take<'a>(&mut self, mut taken: impl Iterator<Item = (&'a Arc<str>, &'a Arc<str>)>) {
        let first = taken.next().filter(|(_, version)| !version.is_empty());
        self.only = first.filter(|_| taken.next().is_none()).map(|(name, version)| (name.clone(), version.clone()));
    }

    /// Names the parts of what was refused just now in which it differs from what the client has, as far as its history tells.
    pub(super) fn explain(&mut self, history: impl Fn(&str) -> Option<Arc<History>>) {
        let Some((name, since)) = &self.only else { return };
        let Some(nack) = self.by_name.get_mut(name).filter(|nack| nack.parts.is_empty()) else { return };
        if let Some(history) = history(name) {
            nack.parts = Arc::new(history.between(since, &nack.version));
        }
    }

    /// The client refused a response with these names and their versions: those that its text does not name are good.
    pub(super) fn refuse<'a>(
        &mut self,
        kind: Kind,
        sent: impl Iterator<Item = (&'a Arc<str>, &'a Arc<str>)>,
        text: &str,
        now: SystemTime,
    ) {
        let (names, versions): (Vec<&Arc<str>>, Vec<&Arc<str>>) = sent.unzip();
        let versions: HashMap<&str, &Arc<str>> = names.iter().map(|name| &***name).zip(versions).collect();
        self.accept(names.iter().copied());
        for line in parse_nack(kind, text) {
            let blamed = match line.name.is_empty() {
                true => blamed(&names, &line.reason),
                false => vec![(line.name.into(), line.reason)],
            };
            for (name, reason) in blamed {
                if self.by_name.len() < MAX_REFUSED || self.by_name.contains_key(&name) {
                    let version = versions.get(&*name).filter(|_| !name.is_empty());
                    let version = version.map_or_else(|| "".into(), |version| Arc::clone(version));
                    let (field, parts, reason) = (line.field.clone(), Arc::default(), shortened(&reason));
                    let nack = Nack { kind, name: name.clone(), version, field, reason, time: now, parts };
                    self.by_name.insert(name, nack);
                }
            }
        }
    }

    /// The client has a new whole, so that nothing that it refused before matters any more.
    pub(super) fn clear(&mut self) {
        self.by_name.clear();
    }

    /// A resource is no longer the client's business.
    pub(super) fn forget(&mut self, name: &str) {
        self.by_name.remove(name);
    }

    /// Only these resources are the client's business now.
    pub(super) fn keep(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.by_name.retain(|name, _| name.is_empty() || is_kept(name));
    }

    /// All of it.
    pub(super) fn nacks(&self) -> impl Iterator<Item = &Nack> {
        self.by_name.values()
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// What was refused of a resource.
    pub(super) fn of(&self, name: &str) -> Option<&Nack> {
        self.by_name.get(name)
    }

    /// Number of resources refused by name.
    pub(super) fn named(&self) -> usize {
        self.by_name.keys().filter(|name| !name.is_empty()).count()
    }
}

/// Whom a text blames that is not in our form, and for what: of those that were sent, the ones that it names, each with what stands from there to the
/// next; the only one that was sent; or nobody.
fn blamed(names: &[&Arc<str>], text: &str) -> Vec<(Arc<str>, String)> {
    if let [only] = names {
        return vec![(Arc::clone(only), text.to_owned())];
    }
    let looked_for = names.iter().take(MAX_LOOKED_FOR);
    let mut found: Vec<(usize, &Arc<str>)> = looked_for.filter_map(|name| Some((place(name, text)?, *name))).collect();
    found.sort_unstable();
    if found.is_empty() {
        return vec![("".into(), text.to_owned())];
    }
    let ends = found.iter().skip(1).map(|(at, _)| *at).chain([text.len()]);
    let part = |((at, name), end): (&(usize, &Arc<str>), usize)| {
        (Arc::clone(name), text[*at..end].trim_end_matches([' ', ',']).to_owned())
    };
    found.iter().zip(ends).map(part).collect()
}

/// Where a text names something, not merely something that is called alike.
fn place(name: &str, text: &str) -> Option<usize> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '/');
    let mut hits = text.match_indices(name).filter(|_| !name.is_empty());
    let hit = hits.find(|(at, _)| {
        let mut behind = text[at + name.len()..].chars();
        let goes_on = match behind.next() {
            Some('.') => behind.next().is_some_and(is_part),
            next => next.is_some_and(is_part),
        };
        !goes_on && !text[..*at].ends_with(|c| is_part(c) || c == '.')
    });
    hit.map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;

    fn names(all: &[&str]) -> Vec<Arc<str>> {
        all.iter().map(|name| Arc::from(*name)).collect()
    }

    fn told(all: &[&str], text: &str) -> Vec<(String, String)> {
        let (all, mut refused) = (names(all), Refused::default());
        let version: Arc<str> = "1".into();
        refused.refuse(Kind::Upstream, all.iter().map(|name| (name, &version)), text, SystemTime::UNIX_EPOCH);
        assert!(refused.nacks().all(|nack| &*nack.version == if nack.name.is_empty() { "" } else { "1" }));
        refused.nacks().map(|nack| (nack.name.to_string(), nack.reason.clone())).collect()
    }

    fn expected(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(name, reason)| ((*name).to_owned(), (*reason).to_owned())).collect()
    }

    #[test]
    fn whom_others_name_is_blamed() {
        let envoy = "Error adding/updating cluster(s) upstreams/b: no such file, upstreams/c: not this way";
        let all = ["upstreams/a", "upstreams/b", "upstreams/c"];
        assert_eq!(
            told(&all, envoy),
            expected(&[("upstreams/b", "upstreams/b: no such file"), ("upstreams/c", "upstreams/c: not this way")])
        );
        let grpc = "xDS response validation errors: [resource index 0: upstreams/a: INVALID_ARGUMENT: errors validating Cluster]";
        assert_eq!(told(&all, grpc)[0].0, "upstreams/a");
    }

    #[test]
    fn of_a_text_of_several_lines_the_beginning_is_kept() {
        let envoy = "Proto constraint validation failed: virtual_hosts {\n  routes {\n      timeout {\n      }\n  }\n}";
        let told_of = told(&["heddle"], envoy);
        assert_eq!(told_of, expected(&[("heddle", "Proto constraint validation failed: virtual_hosts { routes { timeout {")]));
        let listeners = "Error adding/updating listener(s) a: no address\nb: not this way\n";
        assert_eq!(told(&["a", "b"], listeners), expected(&[("a", "a: no address"), ("b", "b: not this way")]));
    }

    #[test]
    fn who_is_called_alike_is_not_blamed() {
        assert_eq!(told(&["u", "v"], "of upstreams/u2, u-1 and x.u"), expected(&[("", "of upstreams/u2, u-1 and x.u")]));
        assert_eq!(told(&["u", "u.example", "v"], "no good: u.example."), expected(&[("u.example", "u.example.")]));
    }

    #[test]
    fn the_only_one_is_blamed_without_being_named() {
        assert_eq!(told(&["heddle"], "missing )"), expected(&[("heddle", "missing )")]));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_stumble(all in proptest::collection::vec("[a-c/.é]{0,3}", 0..5), text in "[a-c/., é]{0,30}") {
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            prop_assert!(!told(&all, &text).is_empty());
        }
    }
}
