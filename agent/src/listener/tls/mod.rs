//! TLS towards clients: certificates by server name, changed at run time, and what a handshake tells. It knows no HTTP.

mod accept;
mod entry;
mod principals;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwap;

pub(super) use accept::{Accepted, Speaks, accept, facts};
use entry::Entry;
use store::Kept;
pub use store::{CertificateFault, CertificateStore};

/// The certificates of all listeners of a node; workers share them and see a change with the next handshake.
pub type SharedCertificates = Arc<ArcSwap<CertificateStore>>;

/// The certificate that was shown on a connection, and with it the demands that its client has met.
#[derive(Clone)]
pub(super) struct Identity {
    entry: Arc<Entry>,
    certificates: SharedCertificates,
    /// Name of the listener that it was shown at.
    listener: Arc<str>,
}

impl Identity {
    /// Whether that holds for every host of the listener: nobody demands a client certificate.
    pub(super) fn serves_every_host(&self) -> bool {
        !self.entry.demands_client() && !self.certificates.load().of(&self.listener).demands_client()
    }

    /// Whether no certificate of the listener demands more of a client than the one that it has chosen by its server name.
    pub(super) fn demands_all(&self) -> bool {
        self.entry.demands_client() || !self.certificates.load().of(&self.listener).demands_client()
    }

    /// Whether its client has met whatever is demanded now for the server name that it came by: routes may go by that name.
    pub(super) fn is_current(&self, server_name: Option<&str>) -> bool {
        self.meets(self.certificates.load().of(&self.listener).find(server_name))
    }

    /// Whether requests for `host` may come on this connection: a host whose certificate demands a client certificate is served only where that
    /// was demanded, and a connection that was let in for one such host serves no other (RFC 9110 section 7.4).
    pub(super) fn serves(&self, host: &str) -> bool {
        self.meets(self.certificates.load().of(&self.listener).find(Some(host)))
    }

    fn meets(&self, shown: Option<&Kept>) -> bool {
        match shown {
            Some(Some(other)) => self.entry.meets(other),
            // Nobody can meet its demands.
            Some(None) => false,
            None => !self.entry.demands_client(),
        }
    }
}
