//! Whether key material is of use: certificates, keys and roots that TLS takes, and keys that belong to their certificates. It never shows material.

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};

use super::SecretBody;

const CHAIN: &str = "tls_certificate.certificate_chain";
const KEY: &str = "tls_certificate.private_key";
const ROOTS: &str = "validation_context.trusted_ca";

/// Key material that is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// The field of a `Secret` on the wire.
    pub field: &'static str,
    /// Why.
    pub reason: String,
}

impl SecretBody {
    /// Looks whether TLS takes it. References to what is kept elsewhere are none of it: it is looked at again when it is known what they stand for.
    ///
    /// # Errors
    /// What cannot be read, or a key of another certificate.
    pub fn usable(&self) -> Result<(), Unusable> {
        match self {
            SecretBody::KeyPair { chain_pem, key_pem } if !(is_reference(chain_pem) || is_reference(key_pem)) => {
                pair(chain_pem, key_pem)
            }
            SecretBody::Roots(pem) if !is_reference(pem) => roots(pem),
            SecretBody::KeyPair { .. } | SecretBody::Roots(_) | SecretBody::Manager(_) => Ok(()),
        }
    }
}

/// Whether a text stands for a secret that is kept elsewhere (`$env://NAME`, `$secret://…`), well-formed or not.
pub fn is_reference(text: &str) -> bool {
    let starts = |prefix: &str| text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    starts("$env://") || starts("$secret://")
}

fn unusable(field: &'static str, reason: impl Into<String>) -> Unusable {
    Unusable { field, reason: reason.into() }
}

fn pair(chain: &str, key: &str) -> Result<(), Unusable> {
    let no_chain = || unusable(CHAIN, "expected certificates as PEM, the one that is shown first");
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().map_err(|_| no_chain())?;
    if chain.is_empty() {
        return Err(no_chain());
    }
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| unusable(KEY, "expected a private key as PEM that is not encrypted (PKCS#8, SEC1 or PKCS#1)"))?;
    let signer = aws_lc_rs::sign::any_supported_type(&key).map_err(|_| {
        unusable(KEY, "cannot be used: expected a key of RSA (2048 to 8192 bits), ECDSA (P-256, P-384 or P-521) or Ed25519")
    })?;
    match CertifiedKey::new(chain, signer).keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(()),
        Err(Error::InconsistentKeys(_)) => {
            Err(unusable(KEY, "is the key of another certificate than the first of certificate_chain"))
        }
        Err(error) => Err(unusable(CHAIN, format!("its first certificate cannot be used: {error}"))),
    }
}

fn roots(pem: &str) -> Result<(), Unusable> {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let root = root.map_err(|_| unusable(ROOTS, "expected certificates as PEM"))?;
        store.add(root).map_err(|error| unusable(ROOTS, format!("one of its certificates cannot be used: {error}")))?;
    }
    if store.is_empty() { Err(unusable(ROOTS, "expected certificates as PEM, found none")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// A certificate and its key.
    fn issued() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn what_tls_would_not_take_is_told_by_its_field_without_the_material() {
        let ((one, key), (_, other)) = (issued(), issued());
        let pair = |chain: &str, key: &str| SecretBody::KeyPair { chain_pem: chain.into(), key_pem: key.into() }.usable();
        let roots = |pem: &str| SecretBody::Roots(pem.into()).usable();
        let torn = one.replace("-----END", "-----and");
        let odd = "-----BEGIN CERTIFICATE-----\nMTIz\n-----END CERTIFICATE-----\n";
        assert_eq!((pair(&one, &key), roots(&one)), (Ok(()), Ok(())));
        assert_eq!((pair("$secret://vault/a/c", &key), pair(&one, "$ENV://KEY"), roots("$env://CA")), (Ok(()), Ok(()), Ok(())));
        for (outcome, field) in [
            (pair(&one, &other), KEY),
            (pair(&one, &one), KEY),
            (pair(&one, "no key"), KEY),
            (pair("none", &key), CHAIN),
            (pair(&torn, &key), CHAIN),
            (pair(odd, &key), CHAIN),
            (roots("garbage"), ROOTS),
            (roots(odd), ROOTS),
            (roots(&format!("{one}{odd}")), ROOTS),
        ] {
            let fault = outcome.unwrap_err();
            assert_eq!(fault.field, field, "{fault:?}");
            assert!(!fault.reason.contains("MTIz") && !fault.reason.contains("no key"), "{fault:?}");
        }
    }
}
