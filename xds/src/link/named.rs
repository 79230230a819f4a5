//! TLS to a control plane that shows an ordinary certificate: roots and name are told beforehand, there are no identities. It knows neither gRPC nor files.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

/// Whom a server is believed to be, and what is shown to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Named {
    /// PEM of the roots that are trusted.
    pub roots: Arc<str>,
    /// PEM of the chain and the key that are shown to a server that asks.
    pub pair: Option<(Arc<str>, Arc<str>)>,
    /// The name that its certificate must be for, sent as server name too; the host of the address where there is none.
    pub name: Option<Arc<str>>,
}

impl std::fmt::Debug for Named {
    /// Without key material.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Named({:?}, shows {})", self.name, if self.pair.is_some() { "a certificate" } else { "nothing" })
    }
}

impl Named {
    /// TLS to a server at this host.
    ///
    /// # Errors
    /// In words: which of roots, certificate, key and name is of no use.
    pub(super) fn client(&self, host: &str) -> Result<(Arc<ClientConfig>, ServerName<'static>), String> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(self.roots.as_bytes()) {
            let root = root.map_err(|error| format!("the roots are no certificates: {error}"))?;
            roots.add(root).map_err(|error| format!("the roots cannot be used: {error}"))?;
        }
        if roots.is_empty() {
            return Err("the roots hold no certificate".to_owned());
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS provider: {error}"))?
            .with_root_certificates(roots);
        let mut config = match &self.pair {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let wrong = |error: rustls::pki_types::pem::Error| format!("certificate and key cannot be read: {error}");
                let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(wrong)?;
                let unusable = |error| format!("certificate and key cannot be used: {error}");
                builder.with_client_auth_cert(chain, key).map_err(unusable)?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = self.name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(|_| format!("{name:.200?} is no name of a server"))?;
        Ok((Arc::new(config), name))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_is_of_no_use_is_told_and_keys_are_not_shown() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["control.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        let named = Named { roots: certificate.pem().into(), pair: None, name: None };
        assert_eq!(named.client("127.0.0.1").unwrap().1, ServerName::try_from("127.0.0.1").unwrap());
        let none = Named { roots: "".into(), ..named.clone() };
        assert_eq!(none.client("a").unwrap_err(), "the roots hold no certificate");
        let odd = Named { name: Some("a b".into()), ..named.clone() };
        assert_eq!(odd.client("a").unwrap_err(), "\"a b\" is no name of a server");
        let shows = Named { pair: Some((certificate.pem().into(), key.serialize_pem().into())), ..named.clone() };
        assert!(shows.client("control.example").is_ok() && !format!("{shows:?}").contains("BEGIN"));
        let other = rcgen::KeyPair::generate().unwrap();
        let torn = Named { pair: Some((certificate.pem().into(), other.serialize_pem().into())), ..named };
        assert!(torn.client("a").unwrap_err().starts_with("certificate and key cannot be used"));
    }
}
