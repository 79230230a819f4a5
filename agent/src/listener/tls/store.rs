//! Which certificate is shown for which server name, at which listener. It knows no connections.

use std::collections::HashMap;
use std::sync::Arc;

use heddle_xds::model::{Certificate, Secret};
use rustls::ServerConfig;
use rustls::server::ResolvesServerCertUsingSni;

use super::entry::Entry;

/// All certificates by listener and name; immutable, swapped whole.
#[derive(Default)]
pub struct CertificateStore {
    /// For listeners that have none of their own.
    shared: Names,
    /// Those of listeners that certificates name. They look at no others: what these demand of clients would be got around.
    own: HashMap<Arc<str>, Names>,
}

/// The certificates of a listener by name.
#[derive(Default)]
pub(super) struct Names {
    exact: HashMap<Arc<str>, Kept>,
    /// By what follows the star's label, dot included.
    wildcards: HashMap<Arc<str>, Kept>,
    fallback: Option<Kept>,
    /// Whether any of them demands a client certificate.
    demands_client: bool,
    /// Whether a wildcard covers any number of labels, as it does where names choose a chain of filters.
    is_deep: bool,
}

/// What is shown for a name. `None`: its certificate cannot be used, and no other takes its place, which might demand less of clients.
pub(super) type Kept = Option<Arc<Entry>>;

/// A certificate that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("certificate {id}: {what}")]
pub struct CertificateFault {
    /// Id of the certificate.
    pub id: Arc<str>,
    /// What is wrong.
    pub what: String,
    /// Whether the one of the same id that was used before stays in use, for the names that it had.
    pub stays: bool,
}

impl CertificateStore {
    /// Builds a store. `secret` finds key material by name; entries of `before` that have not changed are used on. For a name that several
    /// certificates claim, the first one counts.
    pub fn build(
        certificates: &[Arc<Certificate>],
        secret: impl Fn(&str) -> Option<Arc<Secret>>,
        before: &CertificateStore,
    ) -> (CertificateStore, Vec<CertificateFault>) {
        let old = before.by_id();
        let (mut store, mut faults) = (CertificateStore::default(), Vec::new());
        for certificate in certificates {
            let old = old.get(&certificate.id).copied();
            let kept = match entry(certificate, &secret, old) {
                Ok(entry) => Some(entry),
                Err(what) => {
                    let roots = certificate.client.as_ref().and_then(|client| secret(&client.ca));
                    let kept = old.filter(|old| old.stands_in_for(certificate, roots.as_ref())).cloned();
                    faults.push(CertificateFault { id: certificate.id.clone(), what, stays: kept.is_some() });
                    kept
                }
            };
            store.insert(certificate, &kept);
        }
        (store, faults)
    }

    fn insert(&mut self, certificate: &Certificate, kept: &Kept) {
        if certificate.listeners.is_empty() {
            self.shared.insert(certificate, kept);
        }
        for listener in &certificate.listeners {
            let names = self.own.entry(listener.clone()).or_insert_with(|| Names { is_deep: true, ..Names::default() });
            names.insert(certificate, kept);
        }
    }

    fn by_id(&self) -> HashMap<Arc<str>, &Arc<Entry>> {
        let all = self.own.values().chain([&self.shared]).flat_map(Names::entries);
        all.map(|entry| (entry.id().clone(), entry)).collect()
    }

    /// What the listener of this name shows.
    pub(super) fn of(&self, listener: &str) -> &Names {
        self.own.get(listener).unwrap_or(&self.shared)
    }
}

impl Names {
    fn insert(&mut self, certificate: &Certificate, kept: &Kept) {
        let demands = certificate.client.is_some() || kept.as_ref().is_some_and(|entry| entry.demands_client());
        self.demands_client |= demands;
        let has_all = kept.as_ref().is_none_or(|entry| entry.names() == certificate.snis);
        for name in &certificate.snis {
            // An older version is shown for the names that it had.
            let kept = kept.as_ref().filter(|entry| has_all || entry.names().contains(name)).cloned();
            if kept.is_none() && !demands && certificate.listeners.is_empty() {
                continue;
            }
            match name.strip_prefix('*') {
                Some("") => {
                    self.fallback.get_or_insert(kept);
                }
                Some(suffix) => {
                    self.wildcards.entry(suffix.into()).or_insert(kept);
                }
                None => {
                    self.exact.entry(name.clone()).or_insert(kept);
                }
            }
        }
    }

    fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.exact.values().chain(self.wildcards.values()).chain(&self.fallback).flatten()
    }

    /// Whether any certificate demands one of the client.
    pub(super) fn demands_client(&self) -> bool {
        self.demands_client
    }

    /// The certificate for a lower-case server name: the exact one, the closest wildcard, or that for everything.
    pub(super) fn find(&self, name: Option<&str>) -> Option<&Kept> {
        let named = name.and_then(|name| self.exact.get(name).or_else(|| self.wildcard(name)));
        named.or(self.fallback.as_ref())
    }

    /// That of the wildcard over the first label, or over as many as it takes.
    fn wildcard(&self, name: &str) -> Option<&Kept> {
        let dots = name.match_indices('.').map(|(at, _)| at).filter(|dot| *dot > 0);
        dots.take(if self.is_deep { usize::MAX } else { 1 }).find_map(|dot| self.wildcards.get(&name[dot..]))
    }
}

fn entry(
    certificate: &Arc<Certificate>,
    secret: &impl Fn(&str) -> Option<Arc<Secret>>,
    old: Option<&Arc<Entry>>,
) -> Result<Arc<Entry>, String> {
    let find = |name: &Arc<str>| secret(name).ok_or_else(|| format!("secret {name} is missing"));
    let secrets = certificate.secrets.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    let roots = certificate.client.as_ref().map(|client| find(&client.ca)).transpose()?;
    match old {
        Some(old) if old.is_of(certificate, &secrets, roots.as_ref()) => Ok(old.clone()),
        _ => Entry::build(certificate, secrets, roots).map(Arc::new),
    }
}

/// A configuration that has no certificate: the handshake ends with an alert.
pub(super) fn refusing() -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_no_client_auth().with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()))))
}
