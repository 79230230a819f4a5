//! What is held of identity and trust: the shared handle, the file that outlives the process when that is wanted, and the version of the bundles. It
//! asks nobody for anything.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use heddle_node::identity::{Bundle, Bundles, Identity, Svid, TrustDomain};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::signer::Trust;

/// The file below `data_dir`. It holds a private key.
const FILE: &str = "identity.json";
/// The largest file that is read.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// Nobody else may read it.
const MODE: u32 = 0o600;

/// What is written down.
#[derive(Serialize, Deserialize)]
struct Written {
    chain: String,
    key: String,
    trust_domain: String,
    bundles: BTreeMap<String, String>,
}

/// What was written down by an earlier process.
pub(super) struct Kept {
    pub(super) svid: Svid,
    pub(super) bundles: Bundles,
}

/// The identity of this process, with what belongs to it.
pub(super) struct Held {
    /// Who we are.
    pub(super) identity: Identity,
    /// The same trust without an identity, for connections that prove who we are by a token.
    pub(super) joiner: Identity,
    file: Option<PathBuf>,
    version: Mutex<String>,
    /// Where our own trust domain's bundle comes from somebody else: what the control plane told last.
    told: Option<Mutex<Option<Trust>>>,
}

impl Held {
    /// Holds nothing yet. With a folder, what is held is written there.
    pub(super) fn new(identity: Identity, folder: Option<&Path>) -> Self {
        let file = folder.map(|folder| folder.join(FILE));
        Self { identity, joiner: Identity::new(), file, version: Mutex::default(), told: None }
    }

    /// Holds what a SPIRE agent gives: it says who we are and what vouches for our own trust domain, the control plane which others are federated.
    pub(super) fn beside(identity: Identity) -> Self {
        Self { told: Some(Mutex::default()), ..Self::new(identity, None) }
    }

    /// Takes over the bundle of our own trust domain, from whoever else gives it.
    pub(super) fn trust_own(&self, own: Bundle) {
        self.join(Some(own), None);
    }

    /// Brings together what two sides have told. The control plane's bundles count as held when all of its roots vouch here too: a root that it gives up or
    /// takes up reaches such nodes by the SPIRE server alone.
    fn join(&self, own: Option<Bundle>, trust: Option<Trust>) {
        let Some(told) = &self.told else { return };
        let mut version = self.version.lock();
        let mut told = told.lock();
        if trust.is_some() {
            *told = trust;
        }
        let held = self.identity.bundles();
        let Some(own) = own.or_else(|| held.own().cloned()) else { return };
        let of_domain = |trust: &&Trust| trust.bundles.own().is_some_and(|theirs| theirs.domain() == own.domain());
        let told = told.as_ref().filter(of_domain);
        let others = told.iter().flat_map(|trust| trust.bundles.federated()).cloned();
        let bundles = others.fold(Bundles::new(own.clone()), Bundles::with_federated);
        let is_held = |trust: &&Trust| {
            trust.bundles.own().is_some_and(|theirs| theirs.roots().iter().all(|root| own.roots().contains(root)))
        };
        *version = told.filter(is_held).map(|trust| trust.version.clone()).unwrap_or_default();
        if *held != bundles {
            self.identity.set_bundles(bundles);
        }
    }

    /// The version of the bundles that are verified with; empty when they did not come from a control plane.
    pub(super) fn version(&self) -> String {
        self.version.lock().clone()
    }

    /// Takes over bundles. What has not changed changes nothing.
    pub(super) fn trust(&self, trust: Trust) {
        if self.told.is_some() {
            return self.join(None, Some(trust));
        }
        let Trust { bundles, version } = trust;
        let mut held = self.version.lock();
        if *self.identity.bundles() != bundles {
            self.joiner.set_bundles(bundles.clone());
            self.identity.set_bundles(bundles);
            self.write();
        }
        *held = version;
    }

    /// Takes over an identity and the bundles that came with it.
    pub(super) fn become_who(&self, svid: Svid, trust: Trust) {
        // Trust first: peers may show certificates of a root that came with this one.
        self.trust(trust);
        let _order = self.version.lock();
        self.identity.set_svid(svid);
        self.write();
    }

    /// Writes identity and bundles down, where that is wanted. A failure is told, and no reason to stop.
    fn write(&self) {
        let (Some(file), Some(svid)) = (&self.file, self.identity.svid()) else { return };
        let bundles = self.identity.bundles();
        let written = Written {
            chain: svid.chain_pem(),
            key: svid.key_pem(),
            trust_domain: svid.id().trust_domain().to_string(),
            bundles: bundles.iter().map(|bundle| (bundle.domain().to_string(), bundle.pem())).collect(),
        };
        let kept = serde_json::to_vec(&written).map_err(io::Error::other).and_then(|bytes| replace(file, &bytes));
        if let Err(error) = kept {
            tracing::error!(file = %file.display(), %error, "the identity cannot be kept; after a restart the control plane is needed");
        }
    }

    /// What an earlier process has written down, if it did.
    ///
    /// # Errors
    /// In words: others can read it, or it is not what we write.
    pub(super) fn read(&self) -> Result<Option<Kept>, String> {
        let Some(path) = &self.file else { return Ok(None) };
        let said = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(said(&error)),
        };
        let metadata = file.metadata().map_err(|error| said(&error))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(said(
                &"others can read this private key: it is not used any more; remove it, a new identity is asked for",
            ));
        }
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, MAX_FILE), &mut bytes).map_err(|error| said(&error))?;
        let written: Written = serde_json::from_slice(&bytes).map_err(|error| said(&error))?;
        let own = TrustDomain::new(&written.trust_domain).map_err(|error| said(&error))?;
        let svid = Svid::from_pem(&written.chain, &written.key).map_err(|error| said(&error))?;
        let mut bundles = Bundles::default();
        for (domain, pem) in &written.bundles {
            let domain = TrustDomain::new(domain).map_err(|error| said(&error))?;
            let bundle = Bundle::from_pem(domain, pem).map_err(|error| said(&error))?;
            bundles =
                if *bundle.domain() == own { merged(Bundles::new(bundle), &bundles) } else { bundles.with_federated(bundle) };
        }
        Ok(Some(Kept { svid, bundles }))
    }
}

/// `own` with what `others` hold besides.
fn merged(own: Bundles, others: &Bundles) -> Bundles {
    others.iter().fold(own, |bundles, bundle| bundles.with_federated(bundle.clone()))
}

/// Replaces a file by another one, which nobody else has ever been able to read.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    let beside = path.with_extension("new");
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(MODE).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}
