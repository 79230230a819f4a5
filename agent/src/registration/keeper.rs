//! What is to be said to Consul next, as a function of what is true, what has been said and how it was taken. It says nothing itself.

use std::time::Duration;

use heddle_node::clock::Instant;
use heddle_node::consul::pause;

use super::standing::Standing;

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The service is to be registered.
    Register,
    /// Its check is to be told how it stands.
    Tell,
    /// Nothing before then, unless something changes.
    Rest(Instant),
}

/// What Consul knows of the service, as far as it has said so.
#[derive(Debug, Clone)]
pub(super) struct Keeper {
    /// Between two words that say the same.
    refresh: Duration,
    registered: bool,
    told: Option<(Standing, Instant)>,
    failures: u32,
    not_before: Option<Instant>,
}

impl Keeper {
    /// Nothing is known. Silence of `ttl` would make the check critical: a third of it is the longest between two words.
    pub(super) fn new(ttl: Duration) -> Keeper {
        Keeper { refresh: ttl / 3, registered: false, told: None, failures: 0, not_before: None }
    }

    /// What is to be done while the service stands like this.
    pub(super) fn next(&self, standing: &Standing, now: Instant) -> Step {
        if let Some(moment) = self.not_before.filter(|moment| now < *moment) {
            return Step::Rest(moment);
        }
        if !self.registered {
            return Step::Register;
        }
        match &self.told {
            Some((told, at)) if told == standing && now < *at + self.refresh => Step::Rest(*at + self.refresh),
            _ => Step::Tell,
        }
    }

    /// What was told last.
    pub(super) fn told(&self) -> Option<&Standing> {
        self.told.as_ref().map(|(standing, _)| standing)
    }

    /// Whether Consul knows the service.
    pub(super) fn is_registered(&self) -> bool {
        self.registered
    }

    /// Whether the last word was not taken.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Consul has taken the registration.
    pub(super) fn has_registered(&mut self) {
        (self.registered, self.told, self.not_before) = (true, None, None);
    }

    /// Consul has taken the word.
    pub(super) fn has_told(&mut self, standing: Standing, now: Instant) {
        (self.told, self.failures, self.not_before) = (Some((standing, now)), 0, None);
    }

    /// Consul knows nothing of the check: it was restarted, or somebody took the service away. One that forgets at once what it has just taken is not asked
    /// without a pause.
    pub(super) fn has_lost(&mut self, now: Instant, dice: &mut fastrand::Rng) {
        let at_once = self.told.take().is_some();
        self.registered = false;
        if at_once {
            (self.failures, self.not_before) = (0, None);
        } else {
            self.has_failed(now, dice);
        }
    }

    /// Consul has not taken it, or could not be asked. Pauses never grow beyond what keeps the check alive.
    pub(super) fn has_failed(&mut self, now: Instant, dice: &mut fastrand::Rng) {
        self.not_before = Some(now + pause(self.failures, dice).min(self.refresh));
        self.failures = self.failures.saturating_add(1);
    }
}
