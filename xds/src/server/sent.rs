//! What a delta client has, or is about to get, of one kind. Most clients have what the snapshot held at some position: that is shared by all of them, and only what differs is kept for each. It knows no stream.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::snapshot::{Kindred, NodeScope, Versioned};

/// The version of a resource that is to be sent again, whichever one the client has.
const AGAIN: &str = "";

/// What a client has of one kind.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// What the client has, as far as it sees it, where nothing else is said below.
    base: Kindred,
    /// How much of `base` it has.
    reach: Reach,
    /// Where it differs: the version, or `None` for what it does not have.
    own: HashMap<Arc<str>, Option<Arc<str>>>,
    /// How many resources it has.
    count: usize,
}

/// How much of a base a client has.
#[derive(Debug, Default, PartialEq, Eq)]
enum Reach {
    #[default]
    Nothing,
    /// Names up to this one.
    Through(Arc<str>),
    Everything,
}

impl Sent {
    /// What a client says that it has.
    pub(super) fn told(versions: impl Iterator<Item = (Arc<str>, Arc<str>)>) -> Sent {
        let own: HashMap<_, _> = versions.map(|(name, version)| (name, Some(version))).collect();
        Sent { count: own.len(), own, ..Sent::default() }
    }

    /// The version that the client has.
    pub(super) fn get(&self, name: &str, scope: &NodeScope) -> Option<&Arc<str>> {
        match self.own.get(name) {
            Some(own) => own.as_ref(),
            None => self.base_version(name, scope),
        }
    }

    fn base_version(&self, name: &str, scope: &NodeScope) -> Option<&Arc<str>> {
        let reached = match &self.reach {
            Reach::Nothing => false,
            Reach::Through(last) => name <= &**last,
            Reach::Everything => true,
        };
        let found = reached.then(|| self.base.get(name)).flatten();
        found.filter(|versioned| scope.sees(&versioned.resource)).map(|versioned| &versioned.version)
    }

    /// The client is sent a version.
    pub(super) fn set(&mut self, name: Arc<str>, version: Arc<str>, scope: &NodeScope) {
        self.count += usize::from(self.get(&name, scope).is_none());
        self.own.insert(name, Some(version));
    }

    /// The client does not have it any more. Says whether it did.
    pub(super) fn remove(&mut self, name: &Arc<str>, scope: &NodeScope) -> bool {
        let had = self.get(name, scope).is_some();
        self.count -= usize::from(had);
        if self.base_version(name, scope).is_some() {
            self.own.insert(name.clone(), None);
        } else {
            self.own.remove(name);
        }
        had
    }

    /// What the client has, if it has it, is to be sent again.
    pub(super) fn forget_version(&mut self, name: &Arc<str>, scope: &NodeScope) {
        if self.get(name, scope).is_some() {
            self.own.insert(name.clone(), Some(AGAIN.into()));
        }
    }

    /// Everything that the client has is to be sent again.
    pub(super) fn forget_versions(&mut self, scope: &NodeScope) {
        let names = self.names(scope);
        *self = Sent::told(names.into_iter().map(|name| (name, AGAIN.into())));
    }

    /// Keeps only these names.
    pub(super) fn keep(&mut self, names: &HashSet<Arc<str>>, scope: &NodeScope) {
        let kept: Vec<_> = names.iter().filter_map(|name| Some((name.clone(), self.get(name, scope)?.clone()))).collect();
        *self = Sent::told(kept.into_iter());
    }

    /// All names that the client has.
    pub(super) fn names(&self, scope: &NodeScope) -> Vec<Arc<str>> {
        let own = self.own.iter().filter(|(_, version)| version.is_some()).map(|(name, _)| name);
        let base = self.base.iter().map(|(name, _)| name);
        let base = base.filter(|name| !self.own.contains_key(*name) && self.base_version(name, scope).is_some());
        own.chain(base).cloned().collect()
    }

    /// How many resources the client has.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// A client that has nothing is about to get all of `all`, in the order of names.
    pub(super) fn begin(&mut self, all: Kindred) {
        *self = Sent { base: all, ..Sent::default() };
    }

    /// The next resources of a client that began, one by one until `take` has enough; each that it takes is noted as sent. What has
    /// changed since is `left` out: it is to be sent as it is now.
    pub(super) fn go_on(&mut self, left: &BTreeSet<Arc<str>>, scope: &NodeScope, mut take: impl FnMut(&Versioned) -> bool) {
        let rest = match &self.reach {
            Reach::Nothing => self.base.iter(),
            Reach::Through(last) => self.base.from(&**last),
            Reach::Everything => return,
        };
        for (name, versioned) in rest {
            let had = matches!(&self.reach, Reach::Through(last) if last == name);
            if had || self.own.contains_key(name) || !scope.sees(&versioned.resource) {
                continue;
            }
            if left.contains(name) {
                self.own.insert(name.clone(), None);
                continue;
            }
            self.count += 1;
            if !take(versioned) {
                self.reach = Reach::Through(name.clone());
                return;
            }
        }
        self.reach = Reach::Everything;
    }

    /// A client that began is not to get the rest of what it began with.
    pub(super) fn stop(&mut self, scope: &NodeScope) {
        if self.is_under_way() {
            let names = self.names(scope).into_iter();
            let had: Vec<_> = names.filter_map(|name| Some((name.clone(), self.get(&name, scope)?.clone()))).collect();
            *self = Sent::told(had.into_iter());
        }
    }

    /// Whether a client that began is not done.
    pub(super) fn is_under_way(&self) -> bool {
        self.reach != Reach::Everything && !self.base.is_empty()
    }

    /// The client has exactly what it sees of `all`, and besides what of these `others` it has, which are not there: only those need to be kept for it.
    pub(super) fn settle<'a>(&mut self, all: Kindred, others: impl Iterator<Item = &'a Arc<str>>, scope: &NodeScope) {
        let own = others.filter_map(|name| Some((name.clone(), Some(self.get(name, scope)?.clone())))).collect();
        *self = Sent { base: all, reach: Reach::Everything, own, count: self.count };
    }

    /// Whether it is settled already, with no more of its own than such others.
    pub(super) fn is_settled(&self, all: &Kindred, is_other: impl Fn(&Arc<str>) -> bool) -> bool {
        self.reach == Reach::Everything && self.base.same(all) && self.own.keys().all(is_other)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::Kind;
    use crate::server::tests::{listener, resource};
    use crate::snapshot::Change;

    #[derive(Debug, Clone)]
    enum Step {
        Told(Vec<u8>),
        Begin(Vec<u8>),
        GoOn(usize, u8),
        Stop,
        Set(u8, u8),
        Remove(u8),
        Again(u8),
        AllAgain,
        Keep(Vec<u8>),
        Settle(Vec<u8>),
    }

    fn step() -> impl Strategy<Value = Step> {
        let some = || proptest::collection::vec(0u8..12, 0..12);
        prop_oneof![
            1 => some().prop_map(Step::Told),
            3 => some().prop_map(Step::Begin),
            6 => (1usize..5, 0u8..24).prop_map(|(count, left)| Step::GoOn(count, left)),
            1 => Just(Step::Stop),
            3 => (0u8..12, 0u8..3).prop_map(|(name, version)| Step::Set(name, version)),
            3 => (0u8..12).prop_map(Step::Remove),
            1 => (0u8..12).prop_map(Step::Again),
            1 => Just(Step::AllAgain),
            1 => some().prop_map(Step::Keep),
            2 => some().prop_map(Step::Settle),
        ]
    }

    fn name(n: u8) -> Arc<str> {
        format!("{n:02}").into()
    }

    /// Listeners, every third of which is for somebody else.
    fn kindred(names: &[u8]) -> Kindred {
        let mut all = Kindred::new();
        for n in names {
            let Change::Set(resource) = listener(&name(*n), if n % 3 == 0 { &["other"] } else { &[] }) else { panic!("set") };
            all.insert(name(*n), Arc::new(Versioned::new(resource)));
        }
        all
    }

    fn seen(all: &Kindred, scope: &NodeScope) -> BTreeMap<Arc<str>, Arc<str>> {
        let mine = all.iter().filter(|(_, versioned)| scope.sees(&versioned.resource));
        mine.map(|(name, versioned)| (name.clone(), versioned.version.clone())).collect()
    }

    /// The same, kept plainly: what the client has, and what it is still to get.
    #[derive(Default)]
    struct Model {
        has: BTreeMap<Arc<str>, Arc<str>>,
        coming: BTreeMap<Arc<str>, Arc<str>>,
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn it_knows_what_the_client_has(steps in proptest::collection::vec(step(), 0..40)) {
            let scope = NodeScope { id: "me".into(), ..NodeScope::default() };
            let (mut sent, mut model) = (Sent::default(), Model::default());
            for step in steps {
                match step {
                    Step::Told(names) => {
                        let told: Vec<_> = kindred(&names).iter().map(|(name, _)| (name.clone(), Arc::from("told"))).collect();
                        model = Model { has: told.iter().cloned().collect(), ..Model::default() };
                        sent = Sent::told(told.into_iter());
                    }
                    Step::Begin(names) => {
                        model = Model { coming: seen(&kindred(&names), &scope), ..Model::default() };
                        sent.begin(kindred(&names));
                    }
                    Step::GoOn(count, left) => {
                        let (left, mut taken) = (BTreeSet::from([name(left)]), Vec::new());
                        sent.go_on(&left, &scope, |versioned| {
                            taken.push(versioned.resource.name().clone());
                            taken.len() < count
                        });
                        let mut expected = Vec::new();
                        while expected.len() < count && let Some((name, version)) = model.coming.pop_first() {
                            if !model.has.contains_key(&name) && !left.contains(&name) {
                                model.has.insert(name.clone(), version);
                                expected.push(name);
                            }
                        }
                        prop_assert_eq!(taken, expected);
                    }
                    Step::Stop => {
                        sent.stop(&scope);
                        model.coming.clear();
                    }
                    Step::Set(n, version) => {
                        let version: Arc<str> = version.to_string().into();
                        sent.set(name(n), version.clone(), &scope);
                        model.has.insert(name(n), version);
                    }
                    Step::Remove(n) => prop_assert_eq!(sent.remove(&name(n), &scope), model.has.remove(&name(n)).is_some()),
                    Step::Again(n) => {
                        sent.forget_version(&name(n), &scope);
                        model.has.get_mut(&name(n)).into_iter().for_each(|version| *version = AGAIN.into());
                    }
                    Step::AllAgain => {
                        sent.forget_versions(&scope);
                        model.coming.clear();
                        model.has.values_mut().for_each(|version| *version = AGAIN.into());
                    }
                    Step::Keep(names) => {
                        let names: HashSet<_> = names.into_iter().map(name).collect();
                        sent.keep(&names, &scope);
                        model.coming.clear();
                        model.has.retain(|name, _| names.contains(name));
                    }
                    Step::Settle(names) => {
                        // It has these, besides what it goes on with.
                        let all = kindred(&names);
                        let others: Vec<_> = sent.names(&scope).into_iter().filter(|name| all.get(name).is_none()).collect();
                        sent.stop(&scope);
                        model.coming.clear();
                        model.has.retain(|name, _| others.contains(name));
                        model.has.extend(seen(&all, &scope));
                        for name in sent.names(&scope).iter().filter(|name| !others.contains(name)) {
                            sent.remove(name, &scope);
                        }
                        seen(&all, &scope).into_iter().for_each(|(name, version)| sent.set(name, version, &scope));
                        sent.settle(all.clone(), others.iter(), &scope);
                        prop_assert!(!sent.is_under_way() && sent.is_settled(&all, |name| others.contains(name)));
                    }
                }
                for n in 0..12 {
                    prop_assert_eq!(sent.get(&name(n), &scope), model.has.get(&name(n)));
                }
                let mut names = sent.names(&scope);
                names.sort();
                prop_assert_eq!(names, model.has.keys().cloned().collect::<Vec<_>>());
                prop_assert_eq!(sent.count(), model.has.len());
            }
        }
    }

    #[test]
    fn a_settled_client_keeps_nothing_of_its_own_but_what_is_not_told() {
        let scope = NodeScope::default();
        let secret = resource(Kind::Secret, "a", "1");
        let mut all = Kindred::new();
        all.insert("a".into(), Arc::new(Versioned::new(secret)));
        let version = all.get("a").unwrap().version.clone();
        let mut sent = Sent::told([("a".into(), version.clone()), ("left".into(), "old".into())].into_iter());
        let is_left = |name: &Arc<str>| **name == *"left";
        assert!(!sent.is_settled(&all, is_left));
        sent.settle(all.clone(), ["left".into(), "never".into()].iter(), &scope);
        assert!(sent.is_settled(&all, is_left) && !sent.is_settled(&all, |_| false) && sent.base.same(&all));
        assert_eq!((sent.own.len(), sent.count(), sent.get("a", &scope)), (1, 2, Some(&version)));
        assert_eq!(sent.get("left", &scope).map(|version| &**version), Some("old"));
        sent.set("a".into(), "2".into(), &scope);
        assert!(!sent.is_settled(&all, is_left));
        assert!(sent.remove(&"left".into(), &scope) && sent.own.len() == 1, "nothing is left of it");
    }
}
