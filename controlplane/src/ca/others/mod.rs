//! What other control planes do to the same authority: their roots, tokens and signatures are heard of and taken over. It decides nothing.

mod reports;

use heddle_node::drain::DrainWatch;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::authority::{Authority, before};
use super::error::CaError;
use super::rotation::Rotation;
use super::stored::{self, Said};
use crate::store::{News, RecordWrite, read_again};

pub use reports::Fellows;
pub(super) use reports::{Report, Reports};

impl Authority {
    /// Writes roots and rotation down, unless another control plane has changed them since.
    pub(super) async fn write_state(&self, rotation: &Rotation, mut writes: Vec<RecordWrite>) -> Result<(), CaError> {
        let (before, number) = self.0.written.lock().clone();
        let state = self.state(rotation, number + 1)?;
        let RecordWrite::Set(_, now) = &state else { return Err(CaError::Damaged("roots have no form".into())) };
        let now = now.clone();
        writes.extend([stored::same_state(before), state]);
        self.write(writes, None).await?;
        *self.0.written.lock() = (Some(now), number + 1);
        Ok(())
    }

    /// Forgets what is written down no more: others removed it while nobody listened.
    fn forget_others(&self, all: &[(String, Vec<u8>)]) {
        let (tokens, identities) = stored::names(all);
        let mut book = self.0.book.lock();
        let gone = book.tokens.list().into_iter().filter(|token| !tokens.contains(token.id.as_str()));
        gone.for_each(|token| drop(book.tokens.remove(&token.id)));
        for (root, live) in &mut book.live {
            live.retain(|id, _| identities.contains(&(root, id)));
        }
    }

    /// Takes over what other control planes write, until the drain begins.
    pub async fn follow(self, mut news: Receiver<News>, mut drain: DrainWatch, mut dice: fastrand::Rng) {
        loop {
            let told = tokio::select! {
                told = news.recv() => told,
                () = drain.draining() => return,
            };
            let (is_all, all) = match told {
                Ok(told) if !told.is_empty() => (false, told.to_vec()),
                Err(RecvError::Closed) => return,
                // Some of it was missed.
                Ok(_) | Err(RecvError::Lagged(_)) => {
                    let all = tokio::select! {
                        all = read_again(&*self.0.records, "the authority", &mut dice) => all,
                        () = drain.draining() => return,
                    };
                    self.forget_others(&all);
                    (true, all.into_iter().map(|(key, value)| (key, Some(value))).collect())
                }
            };
            for (key, value) in all {
                if let Err(error) = self.heard(&key, value.as_deref(), is_all) {
                    tracing::error!(%error, key, "what another control plane did to the authority cannot be taken over");
                }
            }
        }
    }

    /// Takes over what another control plane wrote. What this one wrote comes back too, and is nothing new. News may be older than what was read since;
    /// what `is_read` just now is what there is, also when that is older than what was known: then the store was set back.
    ///
    /// # Errors
    /// The record makes no sense, or its key is sealed with another key.
    pub(super) fn heard(&self, key: &str, value: Option<&[u8]>, is_read: bool) -> Result<(), CaError> {
        let known = {
            let written = self.0.written.lock();
            if stored::is_state(key) && written.0.as_deref() == value {
                return Ok(());
            }
            written.1
        };
        match stored::said(key, value).map_err(CaError::Damaged)? {
            None => {}
            // A control plane of an older version writes no number.
            Some(Said::State(state)) if state.number < known && state.number > 0 && !is_read => {}
            Some(Said::State(state)) => {
                if state.number < known {
                    tracing::error!(
                        "the authority is an older one than it was: the store was set back. Identities that a root has signed which it does not know are \
                         refused until they are renewed"
                    );
                }
                let (rotation, roots, issuers) = before(&self.0.settings, Some(&state), &self.0.seal)?;
                let mut book = self.0.book.lock();
                // The operator's key is in no store.
                let own = std::mem::take(&mut book.issuers);
                book.issuers = own.into_iter().filter(|(root, _)| roots.contains_key(root)).chain(issuers).collect();
                book.rotation = rotation.unwrap_or_else(|| book.rotation.clone());
                book.roots = roots;
                drop(book);
                *self.0.written.lock() = (value.map(<[u8]>::to_vec), state.number);
                self.publish();
            }
            Some(Said::Token(token)) => self.0.book.lock().tokens.put(*token),
            Some(Said::NoToken(id)) => drop(self.0.book.lock().tokens.remove(&id)),
            Some(Said::Report(name, report)) => self.0.book.lock().reports.heard(name, report),
            Some(Said::Expiry(root, until_ms)) => {
                let mut book = self.0.book.lock();
                let last = book.last_expiry_ms.entry(root).or_default();
                *last = (*last).max(until_ms);
            }
            Some(Said::Live(root, id, until_ms)) => {
                let mut book = self.0.book.lock();
                let live = book.live.entry(root).or_default();
                match until_ms {
                    Some(until_ms) => drop(live.insert(id, until_ms)),
                    None => drop(live.remove(&id)),
                }
            }
        }
        Ok(())
    }
}
