//! Keeps an identity: gets the first one, renews it in time, keeps the old one while nobody signs, and goes on trying for ever. It knows no wire.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock;
use heddle_node::identity::{SpiffeId, Usage};
use heddle_node::readiness::Guard;

use super::held::Held;
use super::request::Request;
use super::schedule::{Life, Schedule};
use super::signer::{Proof, SignError, Signed, Signer};
use super::stats::Stats;
use crate::settings::ProofSettings;

/// How long an attempt may take.
const ATTEMPT: Duration = Duration::from_secs(15);
/// At least this often is looked whether the machine has slept.
const LOOK: Duration = Duration::from_secs(30);
/// The largest token.
const MAX_TOKEN: u64 = 64 * 1024;
/// After this many renewals that failed in a row, every other attempt shows the service account instead.
const PATIENCE: u32 = 3;

/// What a keeper is made of.
pub(super) struct Keeper {
    pub(super) held: Arc<Held>,
    pub(super) signer: Box<dyn Signer>,
    /// What is shown before there is an identity.
    pub(super) proof: Option<ProofSettings>,
    /// Who this process is by its configuration; `None` lets the proof decide.
    pub(super) wanted: Option<SpiffeId>,
    pub(super) stats: Arc<Stats>,
    pub(super) dice: fastrand::Rng,
    /// Held until there is an identity.
    pub(super) guard: Option<Guard>,
}

impl Keeper {
    /// Goes on for ever.
    pub(super) async fn run(mut self) {
        let mut schedule = Schedule::new(clock::now());
        if let Some(life) = self.restored() {
            schedule.renewed(life, &mut self.dice);
            self.guard = None;
        }
        let mut request = None;
        loop {
            wait(&schedule).await;
            match self.attempt(&schedule, &mut request).await {
                Ok(life) => {
                    schedule.renewed(life, &mut self.dice);
                    self.stats.renewed();
                    (request, self.guard) = (None, None);
                }
                Err(error) => self.failed(&mut schedule, &error),
            }
        }
    }

    /// The life that an identity of an earlier process still has.
    fn restored(&self) -> Option<Life> {
        let svid = self.held.identity.svid()?;
        let (start, wall) = (clock::now(), clock::wall());
        let length = svid.remaining(wall);
        if length.is_zero() || self.wanted.as_ref().is_some_and(|wanted| wanted != svid.id()) {
            return None;
        }
        tracing::info!(id = %svid.id(), serial = svid.serial_hex(), valid_for_s = length.as_secs(), "the identity that was kept is used");
        Some(Life { start, wall, length })
    }

    /// One attempt. The request, with its key, is the same until it is fulfilled, so that an answer that was lost can be given again.
    async fn attempt(&self, schedule: &Schedule, request: &mut Option<Request>) -> Result<Life, SignError> {
        let made = match request.take() {
            Some(made) => made,
            None => Request::new(self.wanted.as_ref()).map_err(SignError::NoProof)?,
        };
        let request = request.insert(made);
        let proof = self.proof(schedule)?;
        let sent = clock::wall();
        let signing = self.signer.sign(request.csr(), &proof);
        let late = |_| SignError::Unreachable(format!("the control plane did not answer within {} s", ATTEMPT.as_secs()));
        let signed = tokio::time::timeout(ATTEMPT, signing).await.map_err(late)??;
        self.stats.clocks(signed.server_time, sent, clock::wall());
        self.take(request, signed)
    }

    /// Takes over what was signed, if it is what was asked for.
    fn take(&self, request: &Request, signed: Signed) -> Result<Life, SignError> {
        let Signed { chain, trust, server_time } = signed;
        let svid = request.fulfil(chain).map_err(|error| SignError::Useless(error.to_string()))?;
        if let Some(wanted) = self.wanted.as_ref().filter(|wanted| *wanted != svid.id()) {
            return Err(SignError::Other { got: svid.id().clone(), wanted: wanted.clone() });
        }
        // By their clock: that ours may be wrong is told elsewhere, and would not be mended by staying nobody.
        trust.bundles.verify(svid.chain(), Usage::Client, server_time).map_err(|error| SignError::Useless(error.to_string()))?;
        let length = svid.remaining(server_time);
        tracing::info!(id = %svid.id(), serial = svid.serial_hex(), valid_for_s = length.as_secs(), "there is a new identity");
        self.held.become_who(svid, trust);
        Ok(Life { start: clock::now(), wall: clock::wall(), length })
    }

    /// What is shown: the present identity while it lives, otherwise what the configuration names.
    fn proof(&self, schedule: &Schedule) -> Result<Proof, SignError> {
        let failures = schedule.failures();
        let account = matches!(self.proof, Some(ProofSettings::ServiceAccount(_)));
        // An identity that is refused, because its root is gone there, would be refused for ever.
        let instead = account && failures >= PATIENCE && failures % 2 == 1;
        if schedule.is_alive(clock::now()) && !instead {
            return Ok(Proof::Svid);
        }
        match &self.proof {
            Some(ProofSettings::JoinToken(path)) => token(path, "token_file").map(Proof::JoinToken),
            Some(ProofSettings::ServiceAccount(path)) => token(path, "service_account_token_file").map(Proof::ServiceAccount),
            None => Err(SignError::NoProof(
                "there is no identity and nothing to get one with: name a join token with controlplane.token_file (`heddle token create`)".to_owned(),
            )),
        }
    }

    fn failed(&mut self, schedule: &mut Schedule, error: &SignError) {
        self.stats.failed();
        let after = if let SignError::Busy { after, .. } = error { *after } else { None };
        let now = clock::now();
        schedule.failed(now, after, &mut self.dice);
        let remaining_s = schedule.remaining(now).as_secs();
        if schedule.is_overdue(now) && self.stats.is_overdue_now() {
            tracing::error!(%error, remaining_s, "two thirds of the life of this identity have passed and it could not be renewed; connections will fail when it ends");
        } else {
            tracing::warn!(%error, remaining_s, attempt = schedule.failures(), "no new identity; it is tried again");
        }
    }
}

/// Waits until the next attempt is due.
async fn wait(schedule: &Schedule) {
    loop {
        let now = clock::now();
        let due = schedule.due(now, clock::wall());
        if due <= now {
            return;
        }
        tokio::time::sleep_until(due.min(now + LOOK)).await;
    }
}

/// The token in a file; read anew for each attempt, since whoever wrote it may write a better one.
fn token(path: &Path, key: &str) -> Result<String, SignError> {
    let wrong = |why: &dyn std::fmt::Display| SignError::NoProof(format!("controlplane.{key} {}: {why}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| wrong(&error))?;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::Read::take(file, MAX_TOKEN), &mut text).map_err(|error| wrong(&error))?;
    match text.trim() {
        "" => Err(wrong(&"the file is empty")),
        token => Ok(token.to_owned()),
    }
}
