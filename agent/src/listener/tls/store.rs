//! Which certificate is shown for which server name. It knows no connections.

use std::collections::HashMap;
use std::sync::Arc;

use heddle_xds::model::{Certificate, Secret};
use rustls::ServerConfig;
use rustls::server::ResolvesServerCertUsingSni;

use super::entry::Entry;

/// All certificates by name; immutable, swapped whole.
#[derive(Default)]
pub struct CertificateStore {
    exact: HashMap<Arc<str>, Arc<Entry>>,
    /// By what follows the star's label, dot included.
    wildcards: HashMap<Arc<str>, Arc<Entry>>,
    fallback: Option<Arc<Entry>>,
    /// Whether any of them demands a client certificate.
    demands_client: bool,
}

/// A certificate that cannot be used. The one of the same id that was used before stays in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("certificate {id}: {what}")]
pub struct CertificateFault {
    /// Id of the certificate.
    pub id: Arc<str>,
    /// What is wrong.
    pub what: String,
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
            let old = old.get(&certificate.id);
            match entry(certificate, &secret, old) {
                Ok(entry) => store.insert(certificate, &entry),
                Err(what) => {
                    faults.push(CertificateFault { id: certificate.id.clone(), what });
                    if let Some(old) = old {
                        store.insert(certificate, old);
                    }
                }
            }
        }
        (store, faults)
    }

    fn insert(&mut self, certificate: &Certificate, entry: &Arc<Entry>) {
        self.demands_client |= entry.demands_client();
        for name in &certificate.snis {
            match name.strip_prefix('*') {
                Some("") => {
                    self.fallback.get_or_insert_with(|| entry.clone());
                }
                Some(suffix) => {
                    self.wildcards.entry(suffix.into()).or_insert_with(|| entry.clone());
                }
                None => {
                    self.exact.entry(name.clone()).or_insert_with(|| entry.clone());
                }
            }
        }
    }

    fn by_id(&self) -> HashMap<Arc<str>, Arc<Entry>> {
        let all = self.exact.values().chain(self.wildcards.values()).chain(&self.fallback);
        all.map(|entry| (entry.id().clone(), entry.clone())).collect()
    }

    /// Whether any certificate demands one of the client.
    pub(super) fn demands_client(&self) -> bool {
        self.demands_client
    }

    /// The certificate for a lower-case server name: the exact one, the wildcard over its first label, or that for everything.
    pub(super) fn find(&self, name: Option<&str>) -> Option<&Arc<Entry>> {
        let named = name.and_then(|name| {
            self.exact.get(name).or_else(|| {
                let dot = name.find('.').filter(|dot| *dot > 0)?;
                self.wildcards.get(&name[dot..])
            })
        });
        named.or(self.fallback.as_ref())
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
