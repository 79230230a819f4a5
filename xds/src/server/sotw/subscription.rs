//! What a state-of-the-world client wants and has of one kind. It knows no other kind and no stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use crate::dialect::envoy::encode::grpc;
use crate::model::Kind;
use crate::protocol::{BadRequest, Names, SotwRequest, Types, WILDCARD};
use crate::server::refused::{Gone, Leads, Refused, Taken};
use crate::server::{ResourceView, Standing};
use crate::snapshot::{NodeScope, SnapshotSource, Versioned, version_of};

/// What a client is shown, by name.
pub(super) type Shown = BTreeMap<Arc<str>, Arc<Versioned>>;

/// What a client wants and has of one kind.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    /// There was a request.
    pub(super) open: bool,
    /// The client came with something that is not known here.
    pub(super) came_with: bool,
    /// It keeps that for now.
    pub(super) left: bool,
    /// All names are asked for.
    pub(super) wildcard: bool,
    /// A request named something once: from then on, no names means nothing.
    pub(super) named: bool,
    pub(super) names: BTreeSet<Arc<str>>,
    /// The same as the last request said it.
    pub(super) said: Option<Names>,
    /// What the client was sent.
    pub(super) sent: Shown,
    /// What the last response was about, and in which version, where that was not all of it.
    pub(super) part: Option<Vec<(Arc<str>, Arc<str>)>>,
    /// What is good of a refused response was told once more.
    pub(super) repeated: bool,
    /// Version and nonce of the last response.
    pub(super) version: Arc<str>,
    pub(super) nonce: Arc<str>,
    /// The last response waits for ACK or NACK.
    pub(super) in_flight: bool,
    /// Something may have changed.
    pub(super) dirty: bool,
    /// What that is, where it is told in parts; `None`: all of it may have.
    pub(super) touched: Option<BTreeSet<Arc<str>>>,
    /// An answer is owed even when there is nothing new.
    pub(super) answer: bool,
    /// What is to be taken away once everything else was sent.
    pub(super) gone: Gone,
    /// How far the client is with what it was told.
    pub(super) taken: Taken,
    pub(super) acked: Arc<str>,
    pub(super) refused: Refused,
}

/// The version of a whole: that of its names and their versions.
pub(super) fn version_of_all(shown: &Shown) -> Arc<str> {
    let mut text = String::new();
    for (name, now) in shown {
        text.push_str(name);
        text.push('\0');
        text.push_str(&now.version);
        text.push('\0');
    }
    version_of(text.as_bytes())
}

impl Subscription {
    pub(super) fn wants(&self, name: &str) -> bool {
        self.open && (self.wildcard || self.names.contains(name))
    }

    /// Something that the client may not have, whatever it was sent, is to be told by itself, if it wants it.
    pub(super) fn owe(&mut self, name: &Arc<str>) {
        if self.wants(name) && self.sent.remove(name).is_some() {
            self.dirty = true;
            self.touched.iter_mut().for_each(|touched| {
                touched.insert(name.clone());
            });
        }
    }

    pub(super) fn wanted(&self, kind: Kind, source: &dyn SnapshotSource, (scope, types): (&NodeScope, Types)) -> Shown {
        let mut shown = Shown::new();
        // Who speaks gRPC names the service that it wants, which many listeners may stand for.
        let get = |name: &Arc<str>| match (types, kind) {
            (Types::Grpc, Kind::Listener) => grpc::listener(source, name, scope),
            _ => source.get(kind, name, scope),
        };
        if self.wildcard && types == Types::Grpc {
            return shown;
        }
        if self.wildcard {
            shown.extend(source.list(kind, scope).into_iter().map(|found| (found.resource.name().clone(), found)));
        } else {
            shown.extend(self.names.iter().filter_map(|name| Some((name.clone(), get(name)?))));
        }
        if source.leaves(kind) {
            // A list without what is not told would take it away.
            let untold = self.sent.iter().filter(|(name, _)| source.is_untold(kind, name));
            shown.extend(untold.map(|(name, then)| (name.clone(), then.clone())));
        }
        shown
    }

    pub(super) fn answered(&mut self, request: &SotwRequest, now: SystemTime) {
        self.in_flight = false;
        self.taken.answered(u64::MAX);
        match &request.error {
            None if request.version == self.version => {
                self.forgive();
                if self.part.is_none() {
                    self.refused.take(self.sent.iter().map(|(name, sent)| (name, &sent.version)));
                }
                self.repeated = false;
                self.acked = self.version.clone();
            }
            // After a NACK the same nonce with the previous version only changes the subscription.
            None => {}
            Some(text) => {
                self.forgive();
                let all = self.part.is_none().then(|| self.sent.iter().map(|(name, sent)| (name, &sent.version)));
                let part = self.part.iter().flatten().map(|(name, version)| (name, version));
                self.refused.refuse(request.kind, all.into_iter().flatten().chain(part), text, now);
                self.owe_the_good();
            }
        }
    }

    /// Who refuses one of several may not have taken the others either. Of a kind that is told in parts they are told once more, by themselves; where nobody is
    /// blamed, or that is refused too, with what changes next.
    pub(super) fn owe_the_good(&mut self) {
        let Some(touched) = &mut self.touched else { return };
        let all = self.part.is_none().then(|| self.sent.keys()).into_iter().flatten();
        let told = all.chain(self.part.iter().flatten().map(|(name, _)| name));
        let good: Vec<Arc<str>> = told.filter(|name| self.refused.of(name).is_none()).cloned().collect();
        let repeats = !self.repeated && self.refused.of("").is_none() && !good.is_empty();
        self.dirty |= repeats;
        self.repeated = repeats;
        for name in good {
            self.sent.remove(&name);
            touched.insert(name);
        }
    }

    /// What was refused before of that which the last response was about does not matter any more.
    pub(super) fn forgive(&mut self) {
        match &self.part {
            Some(part) => self.refused.accept(part.iter().map(|(name, _)| name)),
            None => self.refused.clear(),
        }
    }

    /// Whether something may have changed that is to be told.
    pub(super) fn is_due(&self) -> bool {
        self.dirty && !self.left
    }

    /// Everything was told that there is at a position, but for what is still to be taken away. Only to the newest response clients have to answer.
    pub(super) fn told(&mut self, position: u64) {
        if self.stands() != Leads::Refused {
            self.taken.told(position, &self.gone, self.in_flight.then_some(0));
        }
    }

    /// How the client stands to what it was sent.
    pub(super) fn stands(&self) -> Leads {
        match self.refused.is_empty() && !self.left {
            true => self.taken.stands(),
            false => Leads::Refused,
        }
    }

    pub(super) fn resources(&self, kind: Kind) -> Vec<ResourceView> {
        let names: BTreeSet<&Arc<str>> = self.sent.keys().chain(&self.names).collect();
        let one = |name: &Arc<str>| {
            let sent = self.sent.get(name).map(|sent| &sent.version);
            match self.refused.of(name) {
                Some(nack) => ResourceView::new(kind, name, Some(&nack.version), Standing::Refused(nack.clone())),
                None if sent.is_none() => ResourceView::new(kind, name, None, Standing::NotSent),
                None if self.in_flight => ResourceView::new(kind, name, sent, Standing::Stale),
                None => ResourceView::new(kind, name, sent, Standing::Synced),
            }
        };
        names.into_iter().map(one).collect()
    }

    /// The names of a request where they are not those of the last one.
    pub(super) fn others(&self, names: &Names) -> Result<Option<Vec<Arc<str>>>, BadRequest> {
        if self.said.as_ref() == Some(names) { Ok(None) } else { names.read().map(Some) }
    }

    /// Whether exactly these names are asked for; none are those of the last request.
    pub(super) fn is_subscribed(&self, others: Option<&[Arc<str>]>) -> bool {
        let is_same = |names: &[Arc<str>]| names.len() == self.names.len() && names.iter().all(|name| self.names.contains(name));
        !self.wildcard && others.is_none_or(is_same)
    }

    /// Takes over the names of a request, where they are others than those of the last one; says whether there are new ones.
    pub(super) fn subscribe(&mut self, said: Names, others: Option<Vec<Arc<str>>>) -> bool {
        let Some(names) = others else { return false };
        self.said = Some(said);
        let was_wildcard = self.wildcard;
        self.wildcard = names.iter().any(|name| &**name == WILDCARD) || (names.is_empty() && !self.named);
        self.named |= !names.is_empty();
        let names: BTreeSet<Arc<str>> = names.into_iter().filter(|name| &**name != WILDCARD).collect();
        let grew = !was_wildcard && (self.wildcard || names.iter().any(|name| !self.names.contains(name)));
        self.names = names;
        if !self.wildcard {
            let names = &self.names;
            self.sent.retain(|name, _| names.contains(name));
            self.refused.keep(|name| names.contains(name));
        }
        grew
    }
}
