//! The certificate that the webhook shows, from our own authorities below `data_dir` or from files of others, replaced while connections go on. It does not know who connects.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use heddle_node::clock;
use heddle_node::identity::end_of;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::authorities::{Authorities, Serving};
use super::settings::CertificateFiles;

/// The folder below `data_dir`.
const FOLDER: &str = "webhook";
/// Authorities with their keys.
const AUTHORITIES: &str = "authorities.json";
/// Whom to trust, for `heddle inject --webhook-configuration --webhook-ca`.
const BUNDLE: &str = "ca.pem";
/// Larger files are none of ours.
const MOST_BYTES: u64 = 1 << 20;

/// The certificate that is shown now.
#[derive(Debug, Default)]
pub struct Shown(RwLock<Option<Arc<CertifiedKey>>>);

impl Shown {
    fn set(&self, certificate: CertifiedKey) {
        // Nobody leaves the value half written: it is one pointer.
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certificate));
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a look after the certificate came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tended {
    /// Whom the API server is to trust, PEM; unknown with files of others that do not say.
    pub bundle: Option<String>,
    /// When the certificate that is shown ends, in seconds since 1970.
    pub not_after: Option<u64>,
}

/// Looks after a certificate.
#[derive(Debug)]
pub enum Keeper {
    /// Our own.
    Own(Own),
    /// That of files.
    Files(CertificateFiles),
}

/// Our own authorities and what they signed last.
#[derive(Debug)]
pub struct Own {
    folder: PathBuf,
    names: Vec<String>,
    authorities: Authorities,
    serving: Option<Serving>,
}

impl Keeper {
    /// With authorities that were kept, or with files.
    ///
    /// # Errors
    /// What was kept is damaged, or cannot be read.
    pub fn open(data_dir: &Path, names: Vec<String>, files: Option<CertificateFiles>) -> Result<Keeper, String> {
        if let Some(files) = files {
            return Ok(Keeper::Files(files));
        }
        let folder = data_dir.join(FOLDER);
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let path = folder.join(AUTHORITIES);
        let authorities = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                format!("{}: damaged: {error}; remove it, and new authorities are made, which the webhook configuration has to be told", path.display())
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Authorities::default(),
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        Ok(Keeper::Own(Own { folder, names, authorities, serving: None }))
    }

    /// Renews what is due. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// It cannot be renewed; what is shown stays.
    pub fn tend(&mut self, shown: &Shown, now: u64) -> Result<Tended, String> {
        match self {
            Keeper::Own(own) => own.tend(shown, now),
            Keeper::Files(files) => {
                let of = |path: &Path, error: String| format!("{}: {error}", path.display());
                let certificate = certified(&read(&files.certificate)?, &read(&files.key)?);
                let certificate = certificate.map_err(|error| of(&files.certificate, error))?;
                let not_after = certificate.cert.first().and_then(end_of).map(|end| clock::unix_ms_of(end) / 1_000);
                if not_after.is_some_and(|end| end <= now) {
                    return Err(of(&files.certificate, "the certificate has expired".to_owned()));
                }
                let bundle = files.ca.as_deref().map(read).transpose()?;
                if let (Some(path), Some(bundle)) = (&files.ca, &bundle) {
                    certificates(bundle).map_err(|error| of(path, error))?;
                }
                shown.set(certificate);
                Ok(Tended { bundle, not_after })
            }
        }
    }
}

impl Own {
    fn tend(&mut self, shown: &Shown, now: u64) -> Result<Tended, String> {
        if self.authorities.turn(now).map_err(|error| format!("no authority of the webhook can be made: {error}"))? {
            self.keep()?;
        }
        if self.serving.as_ref().is_none_or(|serving| self.authorities.is_stale(serving, now)) {
            let serving = self.authorities.sign(&self.names, now)?;
            shown.set(certified(&serving.certificate, &serving.key)?);
            tracing::info!(names = ?self.names, not_after = serving.not_after, "the webhook shows a new certificate");
            self.serving = Some(serving);
        }
        Ok(Tended { bundle: Some(self.authorities.bundle()), not_after: self.serving.as_ref().map(|serving| serving.not_after) })
    }

    fn keep(&self) -> Result<(), String> {
        let text = serde_json::to_string(&self.authorities).map_err(|error| error.to_string())?;
        for (name, text, mode) in [(AUTHORITIES, text, 0o600), (BUNDLE, self.authorities.bundle(), 0o644)] {
            let (path, fresh) = (self.folder.join(name), self.folder.join(format!("{name}.new")));
            let write = || -> std::io::Result<()> {
                let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&fresh)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()?;
                std::fs::rename(&fresh, &path)
            };
            write().map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }
}

/// A file of PEM.
///
/// # Errors
/// It cannot be read, or is too large.
pub fn read(path: &Path) -> Result<String, String> {
    let place = path.display();
    let size = std::fs::metadata(path).map_err(|error| format!("{place}: {error}"))?.len();
    if size > MOST_BYTES {
        return Err(format!("{place}: expected at most {MOST_BYTES} bytes, found {size}"));
    }
    std::fs::read_to_string(path).map_err(|error| format!("{place}: {error}"))
}

/// All certificates of a text.
///
/// # Errors
/// There is none, or a damaged one.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err("expected a certificate in PEM, found none".to_owned()),
        Err(error) => Err(format!("expected certificates in PEM: {error}")),
    }
}

fn certified(certificate: &str, key: &str) -> Result<CertifiedKey, String> {
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| format!("expected a private key in PEM: {error}"))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| format!("certificate and key do not fit: {error}"))
}
