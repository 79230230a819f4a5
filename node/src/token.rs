//! The token by which somebody shows a node's own endpoint that he may read the node's folder. It does not know what he may do for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::{constant_time, rand};

use crate::hex;

/// The field of a request that shows it.
pub const FIELD: &str = "x-heddle-token";
/// The file below the folder.
const FILE: &str = "admin.token";
/// Its random bytes: nobody guesses 256 bits.
const BYTES: usize = 32;
/// The largest file that is read: the digits and an end of line.
const MOST: u64 = 2 * BYTES as u64 + 2;
/// Nobody else may read it.
const MODE: u32 = 0o600;

/// What stands in the file.
pub struct Token(String);

/// Where the token of a folder is.
#[must_use]
pub fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

impl Token {
    /// Sees to it that a folder has one. One that is there stays, so that processes that follow each other on the folder have the same.
    ///
    /// # Errors
    /// It cannot be written, or the system gives no random numbers.
    pub fn keep(folder: &Path) -> io::Result<()> {
        if Token::read(folder).is_ok() {
            return Ok(());
        }
        let mut bytes = [0; BYTES];
        rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random numbers"))?;
        // Whole under its name or not at all; the draft is of this process alone.
        let draft = folder.join(format!("{FILE}.{}", std::process::id()));
        match std::fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&draft)?;
        writeln!(file, "{}", hex::encode(&bytes))?;
        std::fs::rename(&draft, path(folder))
    }

    /// The one of a folder.
    ///
    /// # Errors
    /// There is none, it cannot be read, or others than its owner may read or write it.
    pub fn read(folder: &Path) -> io::Result<Token> {
        let file = File::open(path(folder))?;
        let about = file.metadata()?;
        if !about.is_file() || about.mode() & 0o077 != 0 {
            return Err(io::Error::other("expected a file that its owner alone may read and write"));
        }
        let mut text = String::new();
        file.take(MOST).read_to_string(&mut text)?;
        let token = text.trim_end();
        if token.len() != 2 * BYTES || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(io::Error::other(format!("expected {} hexadecimal digits", 2 * BYTES)));
        }
        Ok(Token(token.to_owned()))
    }

    /// As it is shown.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether this is it. How long that takes says nothing of it.
    #[must_use]
    pub fn is(&self, shown: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(self.0.as_bytes(), shown).is_ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_has_one_token_that_its_owner_alone_can_read() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Token::read(folder.path()).is_err());
        Token::keep(folder.path()).unwrap();
        let first = Token::read(folder.path()).unwrap();
        assert_eq!(std::fs::metadata(path(folder.path())).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(first.is(first.text().as_bytes()) && !first.is(b"") && !first.is(&[b'0'; 64]));
        Token::keep(folder.path()).unwrap();
        assert!(Token::read(folder.path()).unwrap().is(first.text().as_bytes()), "the next process has the same");
    }

    #[test]
    fn what_others_may_have_read_or_cut_short_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        Token::keep(folder.path()).unwrap();
        let first = Token::read(folder.path()).unwrap();
        let path = path(folder.path());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Token::read(folder.path()).is_err());
        Token::keep(folder.path()).unwrap();
        let second = Token::read(folder.path()).unwrap();
        assert!(!second.is(first.text().as_bytes()));
        std::fs::write(&path, &second.text()[..10]).unwrap();
        Token::keep(folder.path()).unwrap();
        assert!(!Token::read(folder.path()).unwrap().is(second.text().as_bytes()));
    }
}
