//! Why the authority refuses: one table from a reason to what the journal, the metric and the caller are told. It knows neither messages nor proofs.

/// Why a signature is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Nothing shows who asks.
    NoProof,
    /// A join token that was never made, or was revoked.
    TokenUnknown,
    /// A join token that came too late.
    TokenExpired,
    /// A join token that was used with another key.
    TokenUsed,
    /// A service-account token that is not good.
    Kubernetes,
    /// Service-account tokens are not taken here.
    KubernetesOff,
    /// A client certificate that opens no connection: of no root that is trusted, expired, or no identity.
    Certificate,
    /// The certificate of the connection has expired since its handshake.
    Expired,
    /// The proof is of another trust domain.
    ForeignDomain,
    /// The proof is for another identity than the request.
    OtherIdentity,
    /// An identity that is nobody's but the control plane's.
    Reserved,
    /// The request is too large.
    RequestSize,
    /// The request cannot be read.
    Request,
    /// The request is not signed by its key.
    Signature,
    /// A key that is not signed.
    Key,
    /// The request asks for more than an identity.
    Extra,
    /// Too many at present.
    Rate,
    /// The authority has expired.
    Authority,
    /// The decision cannot be written down.
    Store,
}

/// Whose fault it is, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The proof is not good.
    Proof,
    /// The proof is good, but not for this.
    Permission,
    /// The request is wrong.
    Request,
    /// Come again later.
    Later,
    /// An operator has to do something.
    Operator,
    /// The control plane has a problem that may pass.
    Unavailable,
}

impl Reason {
    /// All of them, for metrics that start at zero.
    pub const ALL: [Reason; 19] = [
        Reason::NoProof,
        Reason::TokenUnknown,
        Reason::TokenExpired,
        Reason::TokenUsed,
        Reason::Kubernetes,
        Reason::KubernetesOff,
        Reason::Certificate,
        Reason::Expired,
        Reason::ForeignDomain,
        Reason::OtherIdentity,
        Reason::Reserved,
        Reason::RequestSize,
        Reason::Request,
        Reason::Signature,
        Reason::Key,
        Reason::Extra,
        Reason::Rate,
        Reason::Authority,
        Reason::Store,
    ];

    /// As journal and metrics show it.
    pub fn label(self) -> &'static str {
        match self {
            Reason::NoProof => "no-proof",
            Reason::TokenUnknown => "token-unknown",
            Reason::TokenExpired => "token-expired",
            Reason::TokenUsed => "token-used",
            Reason::Kubernetes => "kubernetes-token",
            Reason::KubernetesOff => "kubernetes-off",
            Reason::Certificate => "certificate",
            Reason::Expired => "identity-expired",
            Reason::ForeignDomain => "foreign-domain",
            Reason::OtherIdentity => "other-identity",
            Reason::Reserved => "reserved-identity",
            Reason::RequestSize => "request-size",
            Reason::Request => "request-malformed",
            Reason::Signature => "request-signature",
            Reason::Key => "request-key",
            Reason::Extra => "request-extra",
            Reason::Rate => "rate",
            Reason::Authority => "authority-expired",
            Reason::Store => "store",
        }
    }

    /// Whose fault it is.
    pub fn blame(self) -> Blame {
        match self {
            Reason::NoProof
            | Reason::TokenUnknown
            | Reason::TokenExpired
            | Reason::TokenUsed
            | Reason::Kubernetes
            | Reason::KubernetesOff
            | Reason::Certificate
            | Reason::Expired => Blame::Proof,
            Reason::ForeignDomain | Reason::OtherIdentity | Reason::Reserved => Blame::Permission,
            Reason::RequestSize | Reason::Request | Reason::Signature | Reason::Key | Reason::Extra => Blame::Request,
            Reason::Rate => Blame::Later,
            Reason::Authority => Blame::Operator,
            Reason::Store => Blame::Unavailable,
        }
    }
}

/// A signature that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// What was found, for operators. The caller is told it only where that helps nobody to guess a proof.
    pub detail: String,
    /// When to come again, milliseconds.
    pub retry_ms: Option<u64>,
}

impl Refusal {
    /// A refusal that is final.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Refusal {
        Refusal { reason, detail: detail.into(), retry_ms: None }
    }

    /// What the caller is told: the same for every proof that is not good, so that it learns nothing about tokens that it does not have.
    pub fn told(&self) -> String {
        match self.reason {
            Reason::NoProof => {
                "no proof of an identity: send a join token or a service-account token, or connect with the present certificate"
                    .into()
            }
            Reason::TokenUnknown | Reason::TokenExpired | Reason::TokenUsed => {
                "the join token is not good: unknown, used or expired; make another one with `heddle token create`".into()
            }
            Reason::Kubernetes => "the service-account token is not good".into(),
            _ => self.detail.clone(),
        }
    }
}
