//! `heddle store`: a store as a whole into a file, out of a file, into another store; what arrives is read again and compared by its hash. It knows no
//! resource.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use heddle_controlplane::store::{Archive, Clock, Embedded, Etcd, EtcdSettings, Restore, StoreError};
use heddle_node::clock;

use crate::args::{Over, StoreCommand};
use crate::configuration;

/// Names that are tried for a draft.
const TRIES: usize = 8;

/// Where a store is.
enum Place {
    Embedded(PathBuf),
    Etcd(Box<EtcdSettings>),
}

/// Does it; gives what to print.
///
/// # Errors
/// In words; nothing is half done.
pub async fn run(command: StoreCommand) -> Result<String, String> {
    match command {
        StoreCommand::Backup { file, from } => backup(&file, &Place::of(&from)?).await,
        StoreCommand::Restore { file, to, over } => {
            let input = File::open(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            let archive = Archive::read(&mut BufReader::new(input));
            let archive = archive.map_err(|why| format!("{}: {why}; nothing was changed", file.display()))?;
            restore(archive, &Place::of(&to)?, over).await
        }
        StoreCommand::Migrate { from, to, over } => {
            let archive = read(&*Place::of(&from)?.open(false).await?).await?;
            let mut text = restore(archive, &Place::of(&to)?, over).await?;
            text.push_str("copy secrets.key from the old data directory to that of each control plane of the new store\n");
            Ok(text)
        }
    }
}

impl Place {
    fn of(path: &Path) -> Result<Place, String> {
        if path.is_dir() {
            return Ok(Place::Embedded(path.to_owned()));
        }
        let configuration = configuration::read(Some(path)).map_err(|error| error.to_string())?;
        Ok(match configuration.control_plane.store.etcd {
            Some(etcd) => Place::Etcd(Box::new(etcd)),
            None => Place::Embedded(configuration.node.node.data_dir),
        })
    }

    fn shown(&self) -> String {
        match self {
            Place::Embedded(folder) => Embedded::file(folder).display().to_string(),
            Place::Etcd(settings) => format!("{} on {}", settings.prefix, settings.endpoints.join(", ")),
        }
    }

    /// Opens it; a file is made only when it may be `new`.
    async fn open(&self, new: bool) -> Result<Arc<dyn Restore>, String> {
        match self {
            Place::Embedded(folder) => {
                let clock: Clock = Arc::new(clock::unix_ms);
                let file = Embedded::file(folder);
                if !new && !file.exists() {
                    return Err(format!("{}: there is no store", file.display()));
                }
                Ok(Arc::new(Embedded::open(folder, clock).map_err(|error| error.to_string())?))
            }
            Place::Etcd(settings) => Ok(look(settings)?),
        }
    }

    /// Puts an archive there; what is there already is kept beside it, or on etcd replaced once the new one was found whole.
    async fn put(&self, archive: Archive, Over { force, running }: Over) -> Result<(), String> {
        let told = |error: StoreError| format!("{}: {error}", self.shown());
        match self {
            Place::Embedded(folder) => {
                let file = Embedded::file(folder);
                if force && file.exists() {
                    // Opening it shows that nobody uses it.
                    drop(self.open(false).await?);
                    let beside = file.with_extension(format!("redb.{}", clock::unix_ms()));
                    std::fs::rename(&file, &beside).map_err(|error| format!("{}: {error}", file.display()))?;
                }
                self.open(true).await?.restore(archive).await.map_err(told)
            }
            Place::Etcd(settings) => {
                let store = look(settings)?;
                if !running {
                    store.nobody_runs().await.map_err(told)?;
                }
                if force { store.replace(archive).await.map_err(told) } else { store.restore(archive).await.map_err(told) }
            }
        }
    }
}

fn look(settings: &EtcdSettings) -> Result<Arc<Etcd>, String> {
    Etcd::look(settings, Arc::new(clock::unix_ms), 0).map_err(|error| error.to_string())
}

async fn read(store: &dyn Restore) -> Result<Archive, String> {
    store.archive().await.map_err(|error| error.to_string())
}

async fn backup(file: &Path, from: &Place) -> Result<String, String> {
    let fault = |error: std::io::Error| format!("{}: {error}; nothing was written", file.display());
    if file.exists() {
        return Err(format!("{} is there already; nothing was written", file.display()));
    }
    let archive = read(&*from.open(false).await?).await?;
    let (draft, out) = drafted(file).map_err(fault)?;
    let written = write(&archive, out).and_then(|digest| keep(&draft, file).map(|()| digest));
    if written.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    let digest = written.map_err(fault)?;
    Ok(told("backed up", &archive, &digest, &file.display().to_string()))
}

/// A file beside `file` that nobody else has, and its name.
fn drafted(file: &Path) -> std::io::Result<(PathBuf, File)> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    for number in 0..TRIES {
        let draft = file.with_file_name(format!(".{name}.{}.{number}.part", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return made.map(|made| (draft, made)),
        }
    }
    Err(std::io::Error::other("there is no free name for a file beside it"))
}

fn write(archive: &Archive, out: File) -> std::io::Result<String> {
    let mut out = BufWriter::new(out);
    let digest = archive.write(&mut out)?;
    out.flush()?;
    out.get_ref().sync_all()?;
    Ok(digest)
}

/// Gives a draft its name. A link, unlike a rename, replaces nothing that was put there meanwhile; some file systems have none.
fn keep(draft: &Path, file: &Path) -> std::io::Result<()> {
    match std::fs::hard_link(draft, file) {
        Ok(()) => std::fs::remove_file(draft),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(error),
        Err(_) => std::fs::rename(draft, file),
    }
}

async fn restore(archive: Archive, to: &Place, over: Over) -> Result<String, String> {
    let digest = archive.digest().map_err(|error| error.to_string())?;
    to.put(archive.clone(), over).await?;
    let store = to.open(false).await?;
    let found = read(&*store).await?.digest().map_err(|error| error.to_string())?;
    if found != digest {
        return Err(format!("{} holds something else than was written ({found}, not {digest}); do not use it", to.shown()));
    }
    Ok(told("restored", &archive, &digest, &to.shown()))
}

fn told(what: &str, archive: &Archive, digest: &str, place: &str) -> String {
    format!(
        "{what}: revisions {} to {}, {} versions, {} records, {} entries of the journal\nsha256 {digest}\n{place}\n",
        archive.floor,
        archive.newest,
        archive.versions.len(),
        archive.records.len(),
        archive.entries().count()
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_backup_comes_back_and_nothing_is_replaced_by_accident() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = two.path().join("backup.json");
        let records = vec![("x".to_owned(), vec![1])];
        let archive = Archive { newest: 0, records, ..Archive::default() };
        restore(archive, &Place::of(one.path()).unwrap(), Over::default()).await.unwrap();
        let from = || one.path().to_owned();
        let neighbour = two.path().join("backup.part");
        std::fs::write(&neighbour, "not ours").unwrap();
        let told = run(StoreCommand::Backup { file: file.clone(), from: from() }).await.unwrap();
        assert_eq!(std::fs::read_to_string(&neighbour).unwrap(), "not ours");
        assert_eq!(std::fs::read_dir(two.path()).unwrap().count(), 2, "no draft is left");
        assert!(told.contains("1 records") && told.contains("sha256 "), "{told}");
        assert!(run(StoreCommand::Backup { file: file.clone(), from: from() }).await.unwrap_err().contains("is there already"));
        let again = |force| StoreCommand::Restore { file: file.clone(), to: from(), over: Over { force, running: false } };
        assert!(run(again(false)).await.unwrap_err().contains("is not empty; nothing was changed"));
        assert!(run(again(true)).await.unwrap().contains("restored"));
        assert_eq!(std::fs::read_dir(one.path()).unwrap().count(), 2, "what was replaced is kept");
        let migrate = StoreCommand::Migrate { from: from(), to: two.path().to_owned(), over: Over::default() };
        assert!(run(migrate).await.unwrap().contains("secrets.key"));
        std::fs::write(&file, std::fs::read_to_string(&file).unwrap().replace("AQ==", "Ag==")).unwrap();
        assert!(run(again(true)).await.unwrap_err().contains("changed or damaged"));
    }
}
