//! The identity in files, for applications that speak TLS themselves and read certificates from files again and again, as gRPC's `file_watcher` does.
//! It asks nobody for anything.

use std::io;
use std::path::Path;
use std::time::Duration;

use heddle_node::identity::Identity;

use super::held::replace;

/// The names of the files: whom we trust, the key, the certificate with those between it and its root.
const ROOTS: &str = "bundle.pem";
const KEY: &str = "svid.key";
const CHAIN: &str = "svid.pem";

/// After this long a write that failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Writes the identity, and every change of it, as long as the process lives. A failure is told, and tried again: key and certificate may not belong together then.
pub(super) async fn keep(folder: std::path::PathBuf, identity: Identity) {
    let mut changes = identity.changes();
    let mut written = <[String; 3]>::default();
    loop {
        let mut again = None;
        if let Err(error) = write(&folder, &identity, &mut written) {
            tracing::error!(folder = %folder.display(), %error, "the identity cannot be written whole; it is tried again in some seconds");
            again = Some(AGAIN);
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(again.unwrap_or_default()), if again.is_some() => {}
        }
    }
}

/// Each file is replaced whole, and none that has not changed. Roots come first: with a new certificate peers may show those of a new root. Between key and
/// certificate is as little time as can be; who reads both just then has to read them again.
fn write(folder: &Path, identity: &Identity, written: &mut [String; 3]) -> io::Result<()> {
    let (Some(svid), bundles) = (identity.svid(), identity.bundles()) else { return Ok(()) };
    let roots = bundles.own().map(|own| own.pem()).unwrap_or_default();
    let now = [(ROOTS, roots), (KEY, svid.key_pem()), (CHAIN, svid.chain_pem())];
    for ((name, text), before) in now.into_iter().zip(written) {
        if *before != text {
            replace(&folder.join(name), text.as_bytes())?;
            *before = text;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use heddle_node::identity::{Bundle, Bundles, Svid, Usage};

    use super::super::testing::Authority;
    use super::*;

    fn read(folder: &Path) -> Option<(Svid, Bundle)> {
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
        let domain = Authority::new("a.test").domain;
        Some((Svid::from_pem(&text(CHAIN)?, &text(KEY)?).ok()?, Bundle::from_pem(domain, &text(ROOTS)?).ok()?))
    }

    #[tokio::test]
    async fn an_application_finds_the_newest_identity_which_nobody_else_can_read() {
        let authority = Authority::new("a.test");
        let (web, folder) = (authority.id("web"), tempfile::tempdir().unwrap());
        let (identity, path) = (authority.member(&web), folder.path().join("identity"));
        tokio::spawn(keep(path.clone(), identity.clone()));
        let until = |serial: Vec<u8>| {
            let path = path.clone();
            async move {
                loop {
                    match read(&path).filter(|(svid, _)| svid.serial() == serial) {
                        Some(found) => return found,
                        None => tokio::time::sleep(Duration::from_millis(5)).await,
                    }
                }
            }
        };
        let (svid, bundle) = until(identity.svid().unwrap().serial().to_vec()).await;
        assert_eq!(Bundles::new(bundle).verify(svid.chain(), Usage::Client, heddle_node::clock::wall()).unwrap(), web);
        for name in [ROOTS, KEY, CHAIN] {
            assert_eq!(std::fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
        }
        identity.set_svid(authority.svid(&web, Duration::from_secs(3_600)));
        until(identity.svid().unwrap().serial().to_vec()).await;
    }
}
