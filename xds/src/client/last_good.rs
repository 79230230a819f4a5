//! The file that keeps what an agent held, so that it starts without a control plane. It knows no stream.
//!
//! Layout: 8 bytes `HEDDLELG`, format number (u32, little endian), number of entries (u32), then each entry as its length (u32) and a
//! `envoy.service.discovery.v3.Resource`, and at the end XXH3-128 of all before (16 bytes). It holds keys, so only its owner reads it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::holdings::{Held, Holdings};
use crate::model::Kind;
use crate::protocol::wire::{stored_from_bytes, stored_to_bytes};

const MAGIC: &[u8; 8] = b"HEDDLELG";
const FORMAT: u32 = 1;
const HEAD: usize = 16;
const CHECKSUM: usize = 16;
/// Largest file that is read.
const MAX_FILE: u64 = 1024 * 1024 * 1024;

/// Why the last good state cannot be used. The agent then starts without it.
#[derive(Debug, thiserror::Error)]
pub enum LastGoodError {
    /// The file cannot be read or written.
    #[error("last good configuration {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what we wrote.
    #[error(
        "last good configuration {path} is damaged ({reason}); it is not used, and is replaced once a control plane answered"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// The file is of another release.
    #[error("last good configuration {path} has format {found}, this release reads {FORMAT}; it is not used")]
    Format {
        /// The file.
        path: PathBuf,
        /// What was found.
        found: u32,
    },
}

/// Writes what is held: a new file beside the old one, flushed, then renamed over it.
pub fn save(path: &Path, holdings: &Holdings) -> Result<(), LastGoodError> {
    let fail = |source| LastGoodError::Io { path: path.to_path_buf(), source };
    let beside = path.with_extension("new");
    // A leftover of a crash may have been made with other permissions.
    if let Err(error) = std::fs::remove_file(&beside)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(fail(error));
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(fail)?;
    let mut out = BufWriter::new(&mut file);
    write(holdings, &mut out).and_then(|()| out.flush()).map_err(fail)?;
    drop(out);
    file.sync_all().map_err(fail)?;
    std::fs::rename(&beside, path).map_err(fail)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail)
}

/// Reads what was held; `None` when there is no file.
pub fn load(path: &Path) -> Result<Option<Holdings>, LastGoodError> {
    let fail = |source| LastGoodError::Io { path: path.to_path_buf(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(LastGoodError::Damaged { path: path.to_path_buf(), reason: "it is too large" });
    }
    from_bytes(&bytes).map(Some).map_err(|fault| match fault {
        Fault::Damaged(reason) => LastGoodError::Damaged { path: path.to_path_buf(), reason },
        Fault::Format(found) => LastGoodError::Format { path: path.to_path_buf(), found },
    })
}

/// Writes the file entry by entry: it may be larger than all else that the process holds.
fn write(holdings: &Holdings, out: &mut impl Write) -> io::Result<()> {
    let mut checksum = Xxh3::new();
    let mut put = |bytes: &[u8]| {
        checksum.update(bytes);
        out.write_all(bytes)
    };
    let count: usize = Kind::ALL.into_iter().map(|kind| holdings.count(kind)).sum();
    put(MAGIC)?;
    put(&FORMAT.to_le_bytes())?;
    put(&u32::try_from(count).map_err(io::Error::other)?.to_le_bytes())?;
    for kind in Kind::ALL {
        for (name, held) in holdings.list(kind) {
            let entry = stored_to_bytes(kind.type_url(), name, &held.version, &held.body);
            put(&u32::try_from(entry.len()).map_err(io::Error::other)?.to_le_bytes())?;
            put(&entry)?;
        }
    }
    let checksum = checksum.digest128();
    out.write_all(&checksum.to_le_bytes())
}

enum Fault {
    Damaged(&'static str),
    Format(u32),
}

fn from_bytes(bytes: &[u8]) -> Result<Holdings, Fault> {
    let cut = Fault::Damaged("it is cut short");
    let Some((rest, checksum)) = bytes.split_last_chunk::<CHECKSUM>() else { return Err(cut) };
    let Some((head, mut rest_entries)) = rest.split_first_chunk::<HEAD>() else { return Err(cut) };
    if !head.starts_with(MAGIC) {
        return Err(Fault::Damaged("it does not begin as such a file does"));
    }
    let number = |at: usize| head[at..].first_chunk::<4>().copied().map(u32::from_le_bytes).unwrap_or_default();
    if number(8) != FORMAT {
        return Err(Fault::Format(number(8)));
    }
    if xxh3_128(rest).to_le_bytes() != *checksum {
        return Err(Fault::Damaged("its checksum does not match"));
    }
    let mut holdings = Holdings::default();
    for _ in 0..number(12) {
        let Some((length, after)) = rest_entries.split_first_chunk::<4>() else { return Err(cut) };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let Some((entry, after)) = after.split_at_checked(length) else { return Err(cut) };
        rest_entries = after;
        let raw = stored_from_bytes(entry).map_err(|_| Fault::Damaged("an entry cannot be read"))?;
        // A kind that this release does not know is left out; the control plane sends it again to one that does.
        if let Some(kind) = Kind::from_type_url(&raw.type_url) {
            holdings.insert(kind, raw.name, Held { version: raw.version, body: raw.body });
        }
    }
    Ok(holdings)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    fn to_bytes(holdings: &Holdings) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(holdings, &mut bytes).unwrap();
        bytes
    }

    fn some() -> Holdings {
        let mut holdings = Holdings::default();
        for (kind, name) in [(Kind::Route, "r1"), (Kind::Route, "r2"), (Kind::Secret, "s")] {
            holdings.insert(kind, name.into(), Held { version: "v".into(), body: name.as_bytes().to_vec().into() });
        }
        holdings
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last-good");
        assert_eq!(load(&path).unwrap(), None);
        save(&path, &Holdings::default()).unwrap();
        assert_eq!(load(&path).unwrap(), Some(Holdings::default()));
        std::fs::write(folder.path().join("last-good.new"), "a crash left this").unwrap();
        save(&path, &some()).unwrap();
        assert_eq!(load(&path).unwrap(), Some(some()));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn other_formats_are_told_apart_from_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last-good");
        let mut bytes = to_bytes(&some());
        bytes[8] = 9;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(load(&path), Err(LastGoodError::Format { found: 9, .. })));
        std::fs::write(&path, b"short").unwrap();
        assert!(matches!(load(&path), Err(LastGoodError::Damaged { .. })));
    }

    proptest! {
        #[test]
        fn damage_is_found(at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<bool>()) {
            let mut bytes = to_bytes(&some());
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            prop_assert!(from_bytes(&bytes).is_err());
        }
    }
}
