//! Keeps the certificates of the listeners in step with the tables, and knows when each one ends.

use std::sync::Arc;

use arc_swap::ArcSwap;
use heddle_xds::model::{Certificate, SecretBody};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::listener::{CertificateFault, CertificateStore, SharedCertificates};
use crate::tables::Tables;

/// Ends of certificates by id, Unix seconds.
pub type Ends = Arc<ArcSwap<Vec<(Arc<str>, i64)>>>;

/// Keeps the certificates of the listeners in step with the tables.
pub struct Keeper {
    store: SharedCertificates,
    ends: Ends,
    last: Mutex<Arc<Tables>>,
}

impl Keeper {
    /// Keeps this store.
    pub fn new(store: SharedCertificates) -> Keeper {
        Keeper { store, ends: Ends::default(), last: Mutex::default() }
    }

    /// When each certificate ends.
    pub fn ends(&self) -> Ends {
        self.ends.clone()
    }

    /// Takes new tables; does nothing when certificates and secrets are the same.
    pub fn follow(&self, tables: &Arc<Tables>) {
        let mut last = self.last.lock();
        if Arc::ptr_eq(&last.certificates, &tables.certificates) && Arc::ptr_eq(&last.secrets, &tables.secrets) {
            return;
        }
        let certificates: Vec<Arc<Certificate>> = tables.certificates.values().cloned().collect();
        let (store, faults) =
            CertificateStore::build(&certificates, |name| tables.secrets.get(name).cloned(), &self.store.load());
        for CertificateFault { id, what, stays } in faults {
            if stays {
                tracing::warn!(certificate = %id, what, "a certificate cannot be used; its last good version stays, for the names that it had");
            } else {
                tracing::warn!(certificate = %id, what, "a certificate cannot be used, and its last good version demands less: none is shown");
            }
        }
        self.store.store(Arc::new(store));
        let ends = certificates.iter().filter_map(|certificate| Some((certificate.id.clone(), end(certificate, tables)?)));
        self.ends.store(Arc::new(ends.collect()));
        *last = tables.clone();
    }
}

/// The earliest end of the leaves of a certificate.
fn end(certificate: &Certificate, tables: &Tables) -> Option<i64> {
    let leaf_end = |name: &Arc<str>| {
        let SecretBody::KeyPair { chain_pem, .. } = &tables.secrets.get(name)?.body else { return None };
        let leaf = CertificateDer::from_pem_slice(chain_pem.as_bytes()).ok()?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).ok()?;
        Some(parsed.validity().not_after.timestamp())
    };
    certificate.secrets.iter().filter_map(leaf_end).min()
}
