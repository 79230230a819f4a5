//! Secrets at rest: which fields are secret, how they are encrypted, and a store that encrypts them. It knows nothing of who asks for them.

mod fields;
mod sealed;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

pub use fields::visit;
pub use sealed::Sealed;

/// What an encrypted text starts with.
const PREFIX: &str = "$sealed:1:";
/// Length of the key in bytes.
const KEY_BYTES: usize = 32;
/// What a key is.
const EXPECTED: &str = "expected 32 bytes in base64";

/// Encrypts and decrypts texts with one key (AES-256-GCM, random nonces).
pub struct Seal {
    key: RandomizedNonceKey,
}

/// Why a secret could not be sealed or unsealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file cannot be read or made.
    #[error("key file {path}: {why}; it encrypts the secrets of the store, so restore it beside the store it belongs to")]
    KeyFile {
        /// Where it was looked for.
        path: String,
        /// What was found.
        why: String,
    },
    /// A text was encrypted with another key, or damaged.
    #[error(
        "a secret of the store was encrypted with another key or is damaged; restore the key that belongs to this store: data_dir/secrets.key, or what \
         store.secrets_key or store.secrets_key_file says"
    )]
    WrongKey,
    /// The cryptographic library refused.
    #[error("encryption failed")]
    Crypto,
}

impl Seal {
    /// A seal with this key.
    pub fn new(key: &[u8; KEY_BYTES]) -> Result<Seal, SealError> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| SealError::Crypto)?;
        Ok(Seal { key })
    }

    /// A seal with a key of 32 bytes in base64.
    ///
    /// # Errors
    /// What was expected; the text is not told.
    pub fn of_text(text: &str) -> Result<Seal, &'static str> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| EXPECTED)?;
        let key: [u8; KEY_BYTES] = bytes.try_into().map_err(|_| EXPECTED)?;
        Seal::new(&key).map_err(|_| EXPECTED)
    }

    /// A seal with the key in a file that somebody else has made: where it is missing nothing is made in its place, as nothing sealed before could be read.
    pub fn read(path: &Path) -> Result<Seal, SealError> {
        let fault = |why: String| SealError::KeyFile { path: path.display().to_string(), why };
        let mut text = String::new();
        File::open(path).and_then(|file| file.take(1024).read_to_string(&mut text)).map_err(|error| fault(error.to_string()))?;
        Seal::of_text(&text).map_err(|why| fault(why.to_owned()))
    }

    /// A seal with the key in a file, which is made (readable by its owner only) when it does not exist.
    pub fn open(path: &Path) -> Result<Seal, SealError> {
        let fault = |why: String| SealError::KeyFile { path: path.display().to_string(), why };
        match File::open(path) {
            Ok(_) => Seal::read(path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut key = [0; KEY_BYTES];
                aws_lc_rs::rand::fill(&mut key).map_err(|_| SealError::Crypto)?;
                write_key(path, &key).map_err(|e| fault(e.to_string()))?;
                Seal::new(&key)
            }
            Err(error) => Err(fault(error.to_string())),
        }
    }

    /// Encrypts a text. What is encrypted already stays.
    pub fn seal(&self, text: &str) -> Result<String, SealError> {
        if text.starts_with(PREFIX) {
            return Ok(text.to_owned());
        }
        let mut bytes = text.as_bytes().to_vec();
        let nonce = self.key.seal_in_place_append_tag(Aad::from(PREFIX.as_bytes()), &mut bytes).map_err(|_| SealError::Crypto)?;
        let mut whole = nonce.as_ref().to_vec();
        whole.append(&mut bytes);
        Ok(format!("{PREFIX}{}", STANDARD.encode(whole)))
    }

    /// Decrypts a text. What is not encrypted stays.
    pub fn unseal(&self, text: &str) -> Result<String, SealError> {
        let Some(encoded) = text.strip_prefix(PREFIX) else { return Ok(text.to_owned()) };
        let mut bytes = STANDARD.decode(encoded).map_err(|_| SealError::WrongKey)?;
        if bytes.len() < NONCE_LEN {
            return Err(SealError::WrongKey);
        }
        let mut cipher = bytes.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&bytes).map_err(|_| SealError::WrongKey)?;
        let plain = self.key.open_in_place(nonce, Aad::from(PREFIX.as_bytes()), &mut cipher).map_err(|_| SealError::WrongKey)?;
        String::from_utf8(plain.to_vec()).map_err(|_| SealError::WrongKey)
    }
}

impl Seal {
    /// Whether all that is sealed in a value can be read with this key.
    pub fn reads(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.unseal(text).is_ok(),
            Value::Array(items) => items.iter().all(|item| self.reads(item)),
            Value::Object(fields) => fields.values().all(|field| self.reads(field)),
            _ => true,
        }
    }
}

impl std::fmt::Debug for Seal {
    /// Never the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

/// Writes a new key file, whole or not at all; fails when it exists by now.
fn write_key(path: &Path, key: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&beside)?;
    file.write_all(STANDARD.encode(key).as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    // A link, unlike a rename, never replaces a key that another process has made meanwhile.
    let linked = std::fs::hard_link(&beside, path);
    std::fs::remove_file(&beside)?;
    linked?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_file_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seal.key");
        let sealed = Seal::open(&path).unwrap().seal("hush").unwrap();
        assert_eq!(Seal::open(&path).unwrap().unseal(&sealed).unwrap(), "hush");
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o777, 0o600);
        std::fs::write(path.with_extension("new"), "cut off").unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(Seal::open(&path).unwrap().unseal(&sealed).is_err(), "a new key, whatever a crash left beside it");
        assert!(!path.with_extension("new").exists());
        std::fs::write(&path, "short").unwrap();
        assert!(Seal::open(&path).unwrap_err().to_string().contains("seal.key: expected 32 bytes in base64"));
    }

    #[test]
    fn another_key_or_damage_is_told() {
        let (one, other) = (Seal::new(&[1; 32]).unwrap(), Seal::new(&[2; 32]).unwrap());
        let sealed = one.seal("hush").unwrap();
        assert!(matches!(other.unseal(&sealed), Err(SealError::WrongKey)));
        assert!(matches!(one.unseal(&format!("{PREFIX}AAAA")), Err(SealError::WrongKey)));
        assert!(matches!(one.unseal(&format!("{PREFIX}!")), Err(SealError::WrongKey)));
        assert_ne!(sealed, one.seal("hush").unwrap(), "equal secrets look different");
    }

    proptest! {
        #[test]
        fn what_is_sealed_comes_back(text in "\\PC{0,64}") {
            let seal = Seal::new(&[7; 32]).unwrap();
            let sealed = seal.seal(&text).unwrap();
            prop_assert!(sealed.starts_with(PREFIX));
            prop_assert_eq!(seal.unseal(&sealed).unwrap(), text);
        }
    }
}
