//! The admin keys: those of the configuration, or one that is generated at the first start and kept in `data_dir`.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use heddle_node::config::Secret;
use heddle_node::hex;

use crate::settings::{ADMIN_KEY_FILE, AdminKey, Role};

/// A key that was generated because none is configured.
#[derive(Debug)]
pub struct GeneratedKey {
    /// Where it is kept.
    pub path: PathBuf,
    /// The key, to be printed once; `None` when it was there already.
    pub fresh: Option<Secret>,
}

/// Bytes of a generated key, 192 bits.
const GENERATED_BYTES: usize = 24;

/// The keys in force: those of the configuration, or the generated one.
///
/// # Errors
/// The key file cannot be read or written.
pub(super) fn keys(configured: &[AdminKey], data_dir: &Path) -> io::Result<(Vec<AdminKey>, Option<GeneratedKey>)> {
    if !configured.is_empty() {
        return Ok((configured.to_vec(), None));
    }
    let path = data_dir.join(ADMIN_KEY_FILE);
    let (key, fresh) = match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => (text.trim().to_owned(), None),
        Ok(_) => generate(&path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => generate(&path)?,
        Err(error) => return Err(error),
    };
    let keys = vec![AdminKey { name: "generated".into(), key: Secret::new(key), role: Role::Admin }];
    Ok((keys, Some(GeneratedKey { path, fresh })))
}

fn generate(path: &Path) -> io::Result<(String, Option<Secret>)> {
    let mut bytes = [0; GENERATED_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    let key = hex::encode(&bytes);
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    writeln!(file, "{key}")?;
    file.sync_all()?;
    Ok((key.clone(), Some(Secret::new(key))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_generated_once_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let (_, first) = keys(&[], folder.path()).unwrap();
        let first = first.unwrap();
        let key = first.fresh.unwrap();
        assert_eq!(fs::read_to_string(&first.path).unwrap().trim(), key.reveal());
        assert_eq!(fs::metadata(&first.path).unwrap().permissions().mode() & 0o777, 0o600);
        let (_, second) = keys(&[], folder.path()).unwrap();
        assert!(second.unwrap().fresh.is_none(), "the second start uses the key that is there");
    }
}
