//! What redb's many errors mean to the store. It knows no tables.

use std::io;

use crate::store::StoreError;

/// Why the file could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// No space, a quota, a size limit or a read-only file system; nothing was written.
    Full(String),
    /// Another process holds the file.
    InUse,
    /// What the file holds makes no sense.
    Damaged(String),
    /// Anything else of the disk.
    Io(String),
}

impl Trouble {
    /// What the store says to its callers, when the trouble came after the file was opened.
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Trouble::Full(what) => StoreError::Full(what),
            Trouble::InUse => StoreError::Io("another process holds the file".into()),
            Trouble::Damaged(what) => StoreError::Io(format!("the file is damaged: {what}")),
            Trouble::Io(what) => StoreError::Io(what),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        use io::ErrorKind::{
            FileTooLarge, InvalidData, QuotaExceeded, ReadOnlyFilesystem, StorageFull, UnexpectedEof, WriteZero,
        };
        match error.kind() {
            StorageFull | QuotaExceeded | FileTooLarge | ReadOnlyFilesystem | WriteZero => Trouble::Full(error.to_string()),
            InvalidData | UnexpectedEof => Trouble::Damaged(error.to_string()),
            _ => Trouble::Io(error.to_string()),
        }
    }
}

impl From<redb::Error> for Trouble {
    fn from(error: redb::Error) -> Trouble {
        match error {
            redb::Error::Io(error) => error.into(),
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Trouble::InUse,
            redb::Error::UpgradeRequired(version) => Trouble::Damaged(format!("its file format {version} is too old")),
            redb::Error::Corrupted(what) => Trouble::Damaged(what),
            error @ (redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableDoesNotExist(_)
            | redb::Error::TypeDefinitionChanged { .. }
            | redb::Error::TableIsMultimap(_)) => Trouble::Damaged(error.to_string()),
            error => Trouble::Io(error.to_string()),
        }
    }
}

/// Lets `?` turn each of redb's error types into a [`Trouble`].
macro_rules! through_redb {
    ($($error:ty),*) => { $(
        impl From<$error> for Trouble {
            fn from(error: $error) -> Trouble {
                redb::Error::from(error).into()
            }
        }
    )* };
}
through_redb!(redb::StorageError, redb::TableError, redb::TransactionError, redb::CommitError, redb::DatabaseError);
