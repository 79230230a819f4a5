//! Opening the file: a new one appears whole or not at all, a strange one is left as it is. It knows nothing of revisions.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{Builder, Database, ReadableDatabase, StorageBackend};

use super::overlay::Overlay;
use super::reserve::Reserved;
use super::tables;
use super::trouble::Trouble;
use crate::store::StoreError;

/// Memory for pages of the file: every page that is written is kept until there is no more room. The state is kept in memory by its keeper and only the
/// history is read again, so there is room for the way to the newest pages of each table, and the kernel keeps the rest.
const CACHE_BYTES: usize = 512 << 10;

/// Opens the store in `path`, or creates it when there is none.
pub(super) fn open(path: &Path) -> Result<Database, StoreError> {
    match path.try_exists() {
        Ok(false) => create(path).map_err(|trouble| refuse(path, trouble))?,
        Ok(true) => {}
        Err(error) => return Err(refuse(path, Trouble::Io(error.to_string()))),
    }
    existing(path)
}

/// Opens the store in `path` after looking through it without touching it.
pub(super) fn existing(path: &Path) -> Result<Database, StoreError> {
    look(path)?.close().map_err(|error| refuse(path, error.into()))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|error| refuse(path, error.into()))?;
    let opened = file(path).and_then(|backend| database(Reserved(backend), false));
    opened.map_err(|trouble| refuse(path, trouble))
}

/// The store in `path` as it is (or as a repair would leave it); nothing that is written to it reaches the disk.
pub(super) fn look(path: &Path) -> Result<Database, StoreError> {
    let opened = file(path).and_then(|backend| {
        if backend.len()? == 0 {
            return Err(Trouble::Damaged("it is empty".into()));
        }
        database(Overlay::new(backend)?, true)
    });
    let format = |database: &Database| tables::format(&database.begin_read()?);
    match opened.and_then(|database| Ok((format(&database)?, database))) {
        Ok((tables::FORMAT, database)) => Ok(database),
        Ok((format, _)) => Err(StoreError::Unusable(format!(
            "the store {} has format {format}, this version of heddle knows formats up to {}; the file was left as it is. \
             Start the newer heddle that wrote it, or move the file aside to start with an empty store",
            path.display(),
            tables::FORMAT
        ))),
        Err(trouble) => Err(refuse(path, trouble)),
    }
}

fn file(path: &Path) -> Result<FileBackend, Trouble> {
    Ok(FileBackend::new(OpenOptions::new().read(true).write(true).open(path)?)?)
}

/// Redb promises an error for a damaged file when it checks it; a panic of its own would mean the same.
fn database(backend: impl StorageBackend, check: bool) -> Result<Database, Trouble> {
    let open = || Builder::new().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(check).create_with_backend(backend);
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(opened) => Ok(opened?),
        Err(_) => Err(Trouble::Damaged("its pages contradict each other".into())),
    }
}

/// Lays out an empty store beside `path` and moves it there when it is whole.
fn create(path: &Path) -> Result<(), Trouble> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let draft = path.with_extension("redb.new");
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&draft)?;
    let database = database(Reserved(FileBackend::new(file)?), false)?;
    let txn = database.begin_write()?;
    tables::create(&txn)?;
    txn.commit()?;
    database.close()?;
    std::fs::rename(&draft, path)?;
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// What an operator reads when the file cannot be used.
fn refuse(path: &Path, trouble: Trouble) -> StoreError {
    let path = path.display();
    match trouble {
        Trouble::Full(what) => StoreError::Full(format!("{path}: {what}")),
        Trouble::InUse => StoreError::Unusable(format!(
            "the store {path} is in use by another process: stop that one, or give this one another node.data_dir"
        )),
        Trouble::Damaged(what) => StoreError::Unusable(format!(
            "the store {path} is damaged ({what}); the file was left as it is. Restore it from a backup, \
             or move it aside to start with an empty store"
        )),
        Trouble::Io(what) => StoreError::Unusable(format!(
            "the store {path} cannot be opened ({what}); check the path and the permissions of node.data_dir"
        )),
    }
}
