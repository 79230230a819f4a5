//! `heddle.identity.v1` as spoken by an agent: has requests signed, and follows the bundles. Generated types stay here.

mod decode;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use heddle_node::clock;
use heddle_node::identity::{Refused, Told};
use heddle_proto::heddle::identity::v1 as proto;
use heddle_xds::link::Connector;
use proto::identity_service_client::IdentityServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::held::Held;
use super::signer::{Proof, SignError, Signed, Signer};
use super::stats::Stats;

/// The trailer that says when to come again.
const RETRY_AFTER: &str = "retry-after-ms";
/// Before a stream that has ended is opened again, at first and at most.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How often a node says how it stands.
const AGAIN: Duration = Duration::from_secs(60);
/// Refusals that come within this are told together.
const TOGETHER: Duration = Duration::from_secs(1);
/// What was told so shortly before a stream ended may not have been heard, and is told again: better twice than never.
const UNSURE: Duration = Duration::from_secs(2);
/// A stream that has lasted this long was a good one.
const GOOD: Duration = Duration::from_secs(60);

/// The control plane as a signer.
pub(super) struct GrpcSigner {
    /// The way on which we show no certificate.
    pub(super) joining: Connector,
    /// The way on which we show the present one.
    pub(super) renewing: Connector,
}

impl Signer for GrpcSigner {
    fn sign<'a>(&'a self, csr: &'a [u8], proof: &'a Proof) -> BoxFuture<'a, Result<Signed, SignError>> {
        Box::pin(self.ask(csr, proof))
    }
}

impl GrpcSigner {
    async fn ask(&self, csr: &[u8], proof: &Proof) -> Result<Signed, SignError> {
        let (connector, proof) = match proof {
            Proof::Svid => (&self.renewing, None),
            Proof::JoinToken(token) => (&self.joining, Some(proto::sign_request::Proof::JoinToken(token.clone()))),
            Proof::ServiceAccount(token) => (&self.joining, Some(proto::sign_request::Proof::KubernetesToken(token.clone()))),
        };
        let channel = connector.connect().await.map_err(|error| SignError::Unreachable(error.to_string()))?;
        let request = proto::SignRequest { csr_der: csr.to_vec(), proof };
        let response = IdentityServiceClient::new(channel).sign(request).await.map_err(|status| refusal(&status))?;
        decode::signed(response.into_inner()).map_err(SignError::Useless)
    }
}

fn refusal(status: &Status) -> SignError {
    let why = if status.message().is_empty() { status.code().to_string() } else { status.message().to_owned() };
    let after = || status.metadata().get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_millis);
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument => SignError::Refused(why),
        Code::ResourceExhausted | Code::FailedPrecondition | Code::Unavailable => SignError::Busy { why, after: after() },
        _ => SignError::Unreachable(format!("the control plane did not sign: {why}")),
    }
}

/// Follows the bundles for ever, over connections that show our identity.
pub(super) async fn follow(connector: Connector, held: Arc<Held>, stats: Arc<Stats>, node: String, mut dice: fastrand::Rng) {
    let mut failures = 0_u32;
    loop {
        let opened = clock::now();
        let mut unsure = Vec::new();
        let why = stream(&connector, &held, &stats, &node, &mut unsure).await;
        forget_the_heard(&mut unsure);
        unsure.into_iter().for_each(|(_, told)| held.identity.refusals().give_back(told));
        if clock::now().saturating_duration_since(opened) >= GOOD {
            failures = 0;
        }
        let full = FIRST_WAIT.saturating_mul(1 << failures.min(16)).min(LONGEST_WAIT);
        failures = failures.saturating_add(1);
        tracing::debug!(why, "trust bundles are not followed at present; those that are held stay");
        tokio::time::sleep(full.mul_f64(0.5 + dice.f64() / 2.0)).await;
    }
}

/// Lets go of what was told so long ago that it was heard.
fn forget_the_heard(unsure: &mut Vec<(clock::Instant, Told)>) {
    let now = clock::now();
    unsure.retain(|(at, _)| now.saturating_duration_since(*at) < UNSURE);
}

/// Follows the bundles on one stream; returns why it has ended. `unsure` is what was told of refusals of late, and when.
async fn stream(
    connector: &Connector,
    held: &Held,
    stats: &Stats,
    node: &str,
    unsure: &mut Vec<(clock::Instant, Told)>,
) -> String {
    let channel = match connector.connect().await {
        Ok(channel) => channel,
        Err(error) => return error.to_string(),
    };
    let (sender, requests) = mpsc::channel(1);
    if sender.send(word(held, stats, node, Told::default())).await.is_err() {
        return "closed".to_owned();
    }
    let mut client = IdentityServiceClient::new(channel);
    let mut responses = match client.watch_bundles(ReceiverStream::new(requests)).await {
        Ok(responses) => responses.into_inner(),
        Err(status) => return status.to_string(),
    };
    let mut again = tokio::time::interval(AGAIN);
    again.reset();
    loop {
        let told = tokio::select! {
            response = responses.message() => match heard(response, held, stats) {
                Ok(()) => held.identity.refusals().take(clock::unix_ms()),
                Err(why) => return why,
            },
            () = connector.strayed() => return "discovery goes to another control plane by now".to_owned(),
            () = refusals(held) => held.identity.refusals().take(clock::unix_ms()),
            _ = again.tick() => held.identity.refusals().take(clock::unix_ms()),
        };
        if !told.is_empty() {
            forget_the_heard(unsure);
            unsure.push((clock::now(), told.clone()));
        }
        if sender.send(word(held, stats, node, told)).await.is_err() {
            return "the control plane has ended the stream".to_owned();
        }
    }
}

/// Waits until peers were refused, and a moment longer for those that come with them.
async fn refusals(held: &Held) {
    held.identity.refusals().noted().await;
    tokio::time::sleep(TOGETHER).await;
}

/// What a node says: what it holds, how its clock and its identity stand, and whom it has refused.
fn word(held: &Held, stats: &Stats, node: &str, told: Told) -> proto::WatchBundlesRequest {
    let refused = |refused: Refused| proto::RefusedPeer {
        time: Some((UNIX_EPOCH + Duration::from_millis(refused.at_ms)).into()),
        reason: refused.reason.to_owned(),
        peer: refused.peer.map(|peer| peer.to_string()).unwrap_or_default(),
        subject: refused.subject,
        detail: refused.detail,
        count: refused.count,
    };
    proto::WatchBundlesRequest {
        held_version: held.version(),
        node: node.to_owned(),
        refused: told.entries.into_iter().map(refused).collect(),
        left_out: told.left_out,
        clock_skew_ms: stats.skew_ms(),
        not_after: held.identity.svid().map(|svid| svid.not_after().into()),
    }
}

/// Takes over what the control plane tells.
fn heard(response: Result<Option<proto::WatchBundlesResponse>, Status>, held: &Held, stats: &Stats) -> Result<(), String> {
    let response = match response {
        Ok(Some(response)) => response,
        Ok(None) => return Err("the control plane has ended the stream".to_owned()),
        Err(status) => return Err(status.to_string()),
    };
    if let Some(theirs) = response.server_time.and_then(decode::time) {
        let now = clock::wall();
        stats.clocks(theirs, now, now);
    }
    match response.bundles.ok_or_else(|| "no bundles".to_owned()).and_then(decode::trust) {
        Ok(trust) => held.trust(trust),
        // What is held stays; the control plane sees by the version that this node did not take it.
        Err(error) => tracing::error!(%error, "the trust bundles of the control plane cannot be used"),
    }
    Ok(())
}
