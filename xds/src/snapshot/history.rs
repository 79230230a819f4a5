//! What has changed in a resource that holds several of the user's, from version to version. It knows no resource.

use std::collections::BTreeSet;
use std::sync::Arc;

/// Versions that are remembered.
const MAX_STEPS: usize = 64;
/// Parts of one step that are remembered; a step with more says nothing.
const MAX_PARTS: usize = 1_000;

/// The last versions of a whole, oldest first, each with the names of the parts in which it differs from the one before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    version: Arc<str>,
    /// `None`: too many to say.
    parts: Option<Arc<[Arc<str>]>>,
}

impl History {
    /// The history of who goes on to this version by changing these parts.
    #[must_use]
    pub fn then(&self, version: Arc<str>, parts: BTreeSet<Arc<str>>) -> History {
        let surplus = (self.steps.len() + 1).saturating_sub(MAX_STEPS);
        let mut steps = self.steps[surplus..].to_vec();
        let parts = (parts.len() <= MAX_PARTS).then(|| parts.into_iter().collect());
        steps.push(Step { version, parts });
        History { steps }
    }

    /// Names of the parts in which `version` may differ from `since`, which was there before; empty where that is not known.
    pub fn between(&self, since: &str, version: &str) -> BTreeSet<Arc<str>> {
        let Some(end) = self.steps.iter().rposition(|step| *step.version == *version) else { return BTreeSet::new() };
        let Some(start) = self.steps[..end].iter().rposition(|step| *step.version == *since) else { return BTreeSet::new() };
        let mut all = BTreeSet::new();
        for step in &self.steps[start + 1..=end] {
            let Some(parts) = &step.parts else { return BTreeSet::new() };
            all.extend(parts.iter().cloned());
        }
        if all.len() <= MAX_PARTS { all } else { BTreeSet::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> BTreeSet<Arc<str>> {
        all.iter().map(|name| Arc::from(*name)).collect()
    }

    fn history(steps: &[(&str, &[&str])]) -> History {
        steps.iter().fold(History::default(), |before, (version, parts)| before.then((*version).into(), names(parts)))
    }

    #[test]
    fn what_differs_is_what_has_changed_since() {
        let history = history(&[("1", &["a", "b"]), ("2", &["a"]), ("3", &["c"]), ("1", &["a", "c"]), ("4", &["d"])]);
        assert_eq!(history.between("1", "3"), names(&["a", "c"]));
        assert_eq!(history.between("1", "4"), names(&["d"]), "since it was last so");
        assert_eq!(history.between("2", "4"), names(&["a", "c", "d"]));
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let history = history(&[("1", &["a"]), ("2", &["b"])]);
        for (since, version) in [("", "2"), ("0", "2"), ("1", "3"), ("2", "1"), ("2", "2")] {
            assert_eq!(history.between(since, version), names(&[]), "{since} {version}");
        }
        let many: BTreeSet<Arc<str>> = (0..=MAX_PARTS).map(|n| n.to_string().into()).collect();
        assert_eq!(history.then("3".into(), many).between("1", "3"), names(&[]));
    }

    #[test]
    fn it_is_bounded() {
        let long = (0..1_000).fold(History::default(), |before, n| before.then(n.to_string().into(), names(&["a"])));
        assert_eq!(long.steps.len(), MAX_STEPS);
        assert_eq!(long.between("998", "999"), names(&["a"]));
    }
}
