//! Certificates and key material.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// Which certificates are shown for which server names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// Id of the user's `ssls` resource.
    pub id: Arc<str>,
    /// Lower-case names; `*.example.com` covers one label, `*` everything and clients without SNI.
    pub snis: Vec<Arc<str>>,
    /// Names of `Secret`s with chain and key; several for several key types.
    pub secrets: Vec<Arc<str>>,
    /// Demand a client certificate.
    pub client: Option<ClientValidation>,
    /// Lowest TLS version, `1.2` or `1.3`.
    pub min_version: TlsVersion,
    /// Highest TLS version.
    pub max_version: TlsVersion,
    /// Names of the listeners that it is for. A listener that is named by any certificate shows these alone; empty: for all listeners that none names.
    pub listeners: Vec<Arc<str>>,
}

/// TLS protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// Demand a client certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientValidation {
    /// Name of the `Secret` with the trusted roots.
    pub ca: Arc<str>,
    /// Longest chain of intermediates that is accepted.
    pub depth: u8,
    /// Paths (regex) for which no certificate is demanded.
    pub skip_uri_regex: Vec<Arc<str>>,
}

/// Key material, delivered as standard SDS.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Secret {
    /// Unique name.
    pub name: Arc<str>,
    /// What it is.
    #[serde(skip)]
    pub body: SecretBody,
}

/// What a secret is.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretBody {
    /// PEM chain and PEM key.
    KeyPair {
        /// Leaf first.
        chain_pem: Arc<str>,
        /// PKCS#8, SEC1 or PKCS#1.
        key_pem: Arc<str>,
    },
    /// PEM roots.
    Roots(Arc<str>),
    /// A manager that `$secret://` references are looked up with, as the JSON object that describes it.
    Manager(Arc<str>),
}

impl fmt::Debug for Secret {
    /// Names only: key material never reaches a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).finish_non_exhaustive()
    }
}
