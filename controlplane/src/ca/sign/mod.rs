//! The decision to sign: who asks, what the proof allows, whether it is written down; only then is a certificate handed out. It knows no messages.

mod counters;
mod journal;
mod rate;
mod refusal;
mod reported;
mod request;

use std::sync::Arc;
use std::time::SystemTime;

use heddle_node::clock;
use heddle_node::identity::{SpiffeId, Usage};
use heddle_xds::link::Peer;
use rustls_pki_types::CertificateDer;

pub(super) use counters::Counters;
pub(super) use journal::{ISSUED, RefusalBudget};
pub(super) use rate::{Limits, Rate};
use request::Request;

pub use journal::Decision;
pub use refusal::{Blame, Reason, Refusal};
pub use reported::PeerRefusal;

use super::authority::{Authority, Book, CONTROL_PLANE, at};
use super::bundles::Trusted;
use super::issuer::{Issued, Issuer, IssuerError};
use super::stored;
use super::tokens::Use;
use crate::store::RecordWrite;

/// Identities that are counted; beyond them a root still knows the last expiry of all.
const MAX_LIVE: usize = 200_000;

/// How a caller shows who it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Proof {
    /// A join token.
    Token(String),
    /// A service-account token.
    Kubernetes(String),
    /// The connection itself.
    Connection,
}

impl Proof {
    fn kind(&self, peer: &Peer) -> &'static str {
        match (self, peer) {
            (Proof::Token(_), _) => "token",
            (Proof::Kubernetes(_), _) => "kubernetes",
            (Proof::Connection, Peer::Process) => "process",
            (Proof::Connection, Peer::Tls { identity: Some(_), .. }) => "identity",
            (Proof::Connection, _) => "none",
        }
    }
}

/// What was signed.
#[derive(Debug, Clone)]
pub struct Signed {
    /// Whose it is.
    pub id: SpiffeId,
    /// The leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// From when it is valid.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
    /// Whom to trust.
    pub trusted: Arc<Trusted>,
    /// When it was signed.
    pub now: SystemTime,
}

/// A certificate that was made but is not written down yet.
struct Draft {
    issued: Issued,
    root: String,
    /// The use of the token that it was made for.
    token: Option<Use>,
}

impl Authority {
    /// Signs the key of a request for the identity that the proof allows.
    pub async fn sign(&self, csr: &[u8], proof: &Proof, peer: &Peer) -> Result<Signed, Refusal> {
        let mut decision = self.begin(proof.kind(peer), peer);
        match self.decide(csr, proof, peer, &mut decision).await {
            Ok(signed) => {
                decision.log();
                self.0.counters.issued(&decision.proof);
                Ok(signed)
            }
            Err(refusal) => {
                self.refused(decision, &refusal).await;
                Err(refusal)
            }
        }
    }

    /// Writes down that a node was turned away by what its connection shows.
    pub async fn turned_away(&self, peer: &Peer, claimed: String, reason: Reason, detail: String) {
        let mut decision = self.begin(Proof::Connection.kind(peer), peer);
        decision.spiffe_id = claimed;
        decision.subject = peer.id().map(ToString::to_string).unwrap_or_default();
        self.refused(decision, &Refusal::new(reason, detail)).await;
    }

    pub(super) fn begin(&self, proof: &str, peer: &Peer) -> Decision {
        Decision {
            time_ms: self.now_ms(),
            verdict: ISSUED.into(),
            detail: String::new(),
            proof: proof.into(),
            subject: String::new(),
            peer: peer.address().map(|address| address.to_string()).unwrap_or_default(),
            spiffe_id: String::new(),
            serial: String::new(),
            not_after_ms: 0,
        }
    }

    async fn decide(&self, csr: &[u8], proof: &Proof, peer: &Peer, decision: &mut Decision) -> Result<Signed, Refusal> {
        let request = request::read(csr)?;
        if let Some(wants) = &request.wants {
            decision.spiffe_id = wants.to_string();
        }
        let id = self.prove(proof, peer, &request, decision).await?;
        if let Some(wants) = request.wants.as_ref().filter(|wants| **wants != id) {
            return Err(Refusal::new(Reason::OtherIdentity, format!("the request is for {wants}, the proof is for {id}")));
        }
        decision.spiffe_id = id.to_string();
        if (id.namespace(), id.service_name()) == (Some(CONTROL_PLANE.0), Some(CONTROL_PLANE.1)) {
            return Err(Refusal::new(Reason::Reserved, format!("{id} is the identity of control planes alone")));
        }
        let draft = self.draft(&id, &request, proof)?;
        self.keep(&draft, &id, decision).await?;
        let Issued { chain, validity, .. } = draft.issued;
        let trusted = self.0.trusted.borrow().clone();
        let (not_before, not_after) = (validity.not_before, validity.not_after);
        Ok(Signed { id, chain, not_before, not_after, trusted, now: at(decision.time_ms) })
    }

    /// Whom the proof shows.
    async fn prove(&self, proof: &Proof, peer: &Peer, request: &Request, decision: &mut Decision) -> Result<SpiffeId, Refusal> {
        match (proof, peer) {
            (Proof::Token(text), _) => {
                let book = self.0.book.lock();
                let token = book.tokens.check(text, &request.key_der, self.now_ms())?;
                decision.subject = format!("token {}", token.id);
                SpiffeId::parse(&token.spiffe_id).map_err(|error| Refusal::new(Reason::TokenUnknown, error.to_string()))
            }
            (Proof::Kubernetes(token), _) => {
                let off = || {
                    Refusal::new(
                        Reason::KubernetesOff,
                        "service-account tokens are not taken here; configure identity.kubernetes",
                    )
                };
                let kubernetes = self.0.kubernetes.as_ref().ok_or_else(off)?;
                let account = kubernetes.verify(token, self.now_ms() / 1_000).await;
                let account = account.map_err(|why| Refusal::new(Reason::Kubernetes, why))?;
                decision.subject = format!("{}/{}", account.namespace, account.name);
                let service = kubernetes.service(&account);
                SpiffeId::service(self.trust_domain(), &account.namespace, service)
                    .map_err(|error| Refusal::new(Reason::Kubernetes, error.to_string()))
            }
            (Proof::Connection, Peer::Process) => {
                let wants =
                    request.wants.clone().filter(|id| id.trust_domain() == self.trust_domain() && id.service_name().is_some());
                wants.ok_or_else(|| {
                    Refusal::new(Reason::NoProof, "within the process the request has to name an identity of this trust domain")
                })
            }
            (Proof::Connection, Peer::Tls { identity: Some(identity), .. }) => {
                decision.subject = identity.id.to_string();
                self.still_good(&identity.chain)
            }
            (Proof::Connection, Peer::Tls { identity: None, .. } | Peer::Clear(_)) => {
                Err(Refusal::new(Reason::NoProof, "neither a token nor a client certificate"))
            }
        }
    }

    /// Looks again at the certificate of a connection: it may have been opened long ago.
    fn still_good(&self, chain: &[CertificateDer<'static>]) -> Result<SpiffeId, Refusal> {
        let bundles = &self.0.trusted.borrow().bundles;
        let id = bundles.verify(chain, Usage::Client, at(self.now_ms()));
        let id = id.map_err(|rejection| {
            Refusal::new(
                Reason::Expired,
                format!("the certificate of this connection is no longer good: {rejection}; connect anew"),
            )
        })?;
        if id.trust_domain() != self.trust_domain() || id.service_name().is_none() {
            return Err(Refusal::new(Reason::ForeignDomain, format!("{id} is not an identity of {}", self.trust_domain())));
        }
        Ok(id)
    }

    /// Makes the certificate. From here on its root is known to be in use, and its token to be used; the latter is taken back if it cannot be written down.
    fn draft(&self, id: &SpiffeId, request: &Request, proof: &Proof) -> Result<Draft, Refusal> {
        let (now_ms, mut book) = (self.now_ms(), self.0.book.lock());
        let dice = book.dice.f64();
        book.limits.take(id.as_str(), now_ms, dice).map_err(|retry_ms| Refusal {
            retry_ms: Some(retry_ms),
            ..Refusal::new(Reason::Rate, format!("too many signatures at present; come again in {retry_ms} ms"))
        })?;
        let token = match proof {
            Proof::Token(text) => {
                let token = book.tokens.check(text, &request.key_der, now_ms)?.id.clone();
                book.tokens.take(&token, &request.key_der, now_ms)
            }
            _ => None,
        };
        let issuer = book.issuer();
        let settings = &self.0.settings;
        let issue = |issuer: Arc<Issuer>| {
            let issued = issuer.issue(id, &request.key, at(now_ms), settings.svid_ttl, settings.clock_skew)?;
            Ok((issued, issuer.meta().fingerprint.clone()))
        };
        let none = || IssuerError::Unfit("there is no key to sign with".into());
        match issuer.ok_or_else(none).and_then(issue) {
            Ok((issued, root)) => {
                note(&mut book, &root, id, clock::unix_ms_of(issued.validity.not_after));
                Ok(Draft { issued, root, token })
            }
            Err(error) => {
                if let Some(token) = &token {
                    book.tokens.give_back(token);
                }
                Err(Refusal::new(Reason::Authority, error.to_string()))
            }
        }
    }

    /// Writes a certificate down before it is handed out.
    async fn keep(&self, draft: &Draft, id: &SpiffeId, decision: &mut Decision) -> Result<(), Refusal> {
        decision.serial.clone_from(&draft.issued.serial);
        decision.not_after_ms = clock::unix_ms_of(draft.issued.validity.not_after);
        let mut writes: Vec<RecordWrite> = stored::live(&draft.root, id.as_str(), decision.not_after_ms).into();
        let used = |used: &Use| Ok([stored::same_token(used.before())?, stored::token(&used.token)?]);
        let token: Result<Option<[RecordWrite; 2]>, serde_json::Error> = draft.token.as_ref().map(used).transpose();
        let written = match token {
            Ok(token) => {
                writes.extend(token.into_iter().flatten());
                self.write(writes, Some(&*decision)).await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        written.map_err(|error| {
            if let Some(token) = &draft.token {
                self.0.book.lock().tokens.give_back(token);
            }
            decision.serial.clear();
            decision.not_after_ms = 0;
            Refusal::new(Reason::Store, format!("the certificate could not be written down, so it is not handed out: {error}"))
        })
    }

    /// Writes a refusal down, as long as there are not too many.
    async fn refused(&self, mut decision: Decision, refusal: &Refusal) {
        self.0.counters.refused(refusal.reason);
        refusal.reason.label().clone_into(&mut decision.verdict);
        decision.detail.clone_from(&refusal.detail);
        let Some(unwritten) = self.0.book.lock().budget.take(decision.time_ms) else { return };
        if unwritten > 0 {
            decision.detail.push_str(&format!(" ({unwritten} refusals before this one are not listed)"));
        }
        decision.log();
        if let Err(error) = self.write(Vec::new(), Some(&decision)).await {
            tracing::error!(%error, "a refusal could not be written down");
        }
    }

    /// Gives the control plane itself a certificate.
    pub(super) async fn sign_own(&self, id: &SpiffeId, key: &rcgen::KeyPair) -> Result<Issued, Refusal> {
        let mut decision = self.begin("own", &Peer::Process);
        decision.spiffe_id = id.to_string();
        let (issued, root) = {
            let mut book = self.0.book.lock();
            let unfit = |error: IssuerError| Refusal::new(Reason::Authority, error.to_string());
            let issuer = book.issuer().ok_or_else(|| unfit(IssuerError::Unfit("there is no key to sign with".into())))?;
            let settings = &self.0.settings;
            let hosts = if *id == SpiffeId::control_plane(&settings.trust_domain) { &settings.names[..] } else { &[] };
            let ages = (settings.svid_ttl, settings.clock_skew);
            let issued = issuer.issue_named(id, hosts, key, at(self.now_ms()), ages).map_err(unfit)?;
            let root = issuer.meta().fingerprint.clone();
            note(&mut book, &root, id, clock::unix_ms_of(issued.validity.not_after));
            (issued, root)
        };
        let draft = Draft { issued, root, token: None };
        self.keep(&draft, id, &mut decision).await?;
        decision.log();
        self.0.counters.issued(&decision.proof);
        Ok(draft.issued)
    }
}

/// Notes until when a root is in use, and for whom.
fn note(book: &mut Book, root: &str, id: &SpiffeId, until_ms: u64) {
    let last = book.last_expiry_ms.entry(root.to_owned()).or_default();
    *last = (*last).max(until_ms);
    let live = book.live.entry(root.to_owned()).or_default();
    if live.len() < MAX_LIVE || live.contains_key(id.as_str()) {
        live.insert(id.to_string(), until_ms);
    }
}
