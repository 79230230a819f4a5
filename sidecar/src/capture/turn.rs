//! One at a time: who changes capture in a network, or tries it, waits for whoever does so already. It knows nothing of what they do.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::process::geteuid;

use super::trouble::CaptureError;

/// Where the locks are, one of each network. Root alone gets in: a lock that any user could take would keep everybody from his work.
const FOLDER: &str = "/run/heddle-capture";
/// The network of this process, by which its lock is named.
const NETWORK: &str = "/proc/self/ns/net";
/// How long it is waited for: longer than tools and attempts together may take, but for a firewall that is stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is tried.
const AGAIN: Duration = Duration::from_millis(20);
/// Which users of other namespaces this process knows, by which numbers.
const USERS: &str = "/proc/self/uid_map";
/// All of them, by their own.
const ALL_USERS: [&str; 3] = ["0", "0", "4294967295"];
/// The number of all others.
const UNMAPPED: &str = "/proc/sys/kernel/overflowuid";
/// That number, unless somebody has changed it.
const USUALLY_UNMAPPED: u32 = 65_534;
/// What others than the owner may do to a file: nothing here.
const OTHERS_WRITE: u32 = 0o022;

/// Our turn, until it is dropped; the kernel ends it with the process, however that ends.
#[derive(Debug)]
pub(super) struct Turn {
    /// None where nobody can have a turn: for users that are not root, and where /run cannot be written or is that of another user namespace, as in a container.
    _lock: Option<File>,
}

impl Turn {
    /// Waits for it.
    pub(super) async fn take() -> Result<Turn, CaptureError> {
        if !geteuid().is_root() {
            return Ok(Turn { _lock: None });
        }
        let network = std::fs::metadata(NETWORK).map_err(|error| refused(Path::new(NETWORK), &error.to_string()))?;
        Turn::take_in(Path::new(FOLDER), &format!("net-{}.lock", network.ino()), PATIENCE, unmapped_user()).await
    }

    async fn take_in(folder: &Path, name: &str, patience: Duration, unmapped: Option<u32>) -> Result<Turn, CaptureError> {
        let Some(lock) = open(folder, name, unmapped)? else { return Ok(Turn { _lock: None }) };
        let path = folder.join(name);
        let taken = async {
            loop {
                match lock.try_lock() {
                    Ok(()) => return Ok(()),
                    Err(TryLockError::WouldBlock) => tokio::time::sleep(AGAIN).await,
                    Err(TryLockError::Error(error)) => return Err(refused(&path, &error.to_string())),
                }
            }
        };
        let seconds = patience.as_secs();
        tokio::time::timeout(patience, taken)
            .await
            .map_err(|_| CaptureError::Occupied { path: path.display().to_string(), seconds })??;
        Ok(Turn { _lock: Some(lock) })
    }
}

/// Whom files seem to belong to whose owner has no number in this user namespace (user_namespaces(7)); none where each has one.
fn unmapped_user() -> Option<u32> {
    let map = std::fs::read_to_string(USERS).ok()?;
    let is_all = map.split_ascii_whitespace().eq(ALL_USERS);
    let user = std::fs::read_to_string(UNMAPPED).ok().and_then(|text| text.trim().parse().ok());
    (!is_all).then(|| user.unwrap_or(USUALLY_UNMAPPED))
}

/// The file of the lock; none where there can be no such file.
fn open(folder: &Path, name: &str, unmapped: Option<u32>) -> Result<Option<File>, CaptureError> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) if cannot_be_written(&error) => return Ok(None),
        Err(error) => return Err(refused(folder, &error.to_string())),
    }
    if !is_ours(folder, unmapped)? {
        return Ok(None);
    }
    let path = folder.join(name);
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        _ if is_ours(&path, unmapped)? => {}
        _ => return Ok(None),
    }
    match OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if cannot_be_written(&error) => Ok(None),
        Err(error) => Err(refused(&path, &error.to_string())),
    }
}

fn cannot_be_written(error: &io::Error) -> bool {
    use io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), ReadOnlyFilesystem | NotFound | PermissionDenied)
}

/// Nobody else may have made it, nor write to it, nor have it lead elsewhere. It is not ours, and nobody's fault, where it belongs to a user of another namespace,
/// as to the host's own root with whom a container shares `/run`: who is nobody there could not open it anyway.
fn is_ours(path: &Path, unmapped: Option<u32>) -> Result<bool, CaptureError> {
    let found = path.symlink_metadata().map_err(|error| refused(path, &error.to_string()))?;
    let own = geteuid().as_raw();
    let why = if found.is_symlink() {
        "it is a symbolic link".to_owned()
    } else if found.uid() != own && Some(found.uid()) == unmapped {
        return Ok(false);
    } else if found.uid() != own {
        format!("it belongs to user {}", found.uid())
    } else if found.mode() & OTHERS_WRITE != 0 {
        "others than root may write to it".to_owned()
    } else {
        return Ok(true);
    };
    Err(refused(path, &why))
}

fn refused(path: &Path, why: &str) -> CaptureError {
    CaptureError::NoTurn { path: path.display().to_string(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn who_waits_in_vain_is_told_for_what_and_who_comes_after_has_his_turn() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("locks");
        let held = Turn::take_in(&at, "net-1.lock", PATIENCE, None).await.unwrap();
        let vain = Turn::take_in(&at, "net-1.lock", Duration::from_millis(50), None).await.unwrap_err().to_string();
        assert!(vain.contains("net-1.lock") && vain.contains("nothing was changed"), "{vain}");
        Turn::take_in(&at, "net-2.lock", Duration::from_millis(50), None).await.unwrap();
        drop(held);
        Turn::take_in(&at, "net-1.lock", Duration::from_millis(50), None).await.unwrap();
        assert_eq!(at.symlink_metadata().unwrap().mode() & 0o777, 0o700);
        assert_eq!(at.join("net-1.lock").symlink_metadata().unwrap().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_lock_that_others_have_a_hand_in_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = async |at: &Path| Turn::take_in(at, "net-1.lock", PATIENCE, None).await.unwrap_err().to_string();
        let (link, open) = (folder.path().join("link"), folder.path().join("open"));
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        assert!(refused(&link).await.contains("symbolic link"));
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(refused(&open).await.contains("may write to it"));
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink("/dev/null", open.join("net-1.lock")).unwrap();
        assert!(refused(&open).await.contains("symbolic link"));
        if geteuid().is_root() {
            std::os::unix::fs::chown(&open, Some(1000), None).unwrap();
            assert!(refused(&open).await.contains("belongs to user 1000"));
            // Where the host's own root is nobody, its lock is for others.
            Turn::take_in(&open, "net-1.lock", PATIENCE, Some(1000)).await.unwrap();
            Turn::take_in(&open, "net-1.lock", PATIENCE, Some(1001)).await.unwrap_err();
        }
        // Where nothing can be written, nobody else writes.
        Turn::take_in(&folder.path().join("no/such"), "net-1.lock", PATIENCE, None).await.unwrap();
    }
}
