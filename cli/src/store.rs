//! `heddle store`: a store as a whole into a file, out of a file, into another store; what arrives is read again and compared by its hash. It knows no
//! resource.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use heddle_controlplane::store::{Archive, Clock, Embedded, Etcd, EtcdSettings, Restore};
use heddle_node::clock;

use crate::args::StoreCommand;
use crate::configuration;

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
        StoreCommand::Restore { file, to, force } => {
            let input = File::open(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            let archive = Archive::read(&mut BufReader::new(input));
            let archive = archive.map_err(|why| format!("{}: {why}; nothing was changed", file.display()))?;
            restore(archive, &Place::of(&to)?, force).await
        }
        StoreCommand::Migrate { from, to, force } => {
            let archive = read(&*Place::of(&from)?.open(false).await?).await?;
            let mut text = restore(archive, &Place::of(&to)?, force).await?;
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
        let clock: Clock = Arc::new(clock::unix_ms);
        match self {
            Place::Embedded(folder) => {
                let file = Embedded::file(folder);
                if !new && !file.exists() {
                    return Err(format!("{}: there is no store", file.display()));
                }
                Ok(Arc::new(Embedded::open(folder, clock).map_err(|error| error.to_string())?))
            }
            Place::Etcd(settings) => {
                let opened = Etcd::look(settings, clock).await;
                Ok(opened.map_err(|error| error.to_string())?)
            }
        }
    }

    /// Takes what is there out of the way.
    async fn clear(&self) -> Result<(), String> {
        match self {
            Place::Embedded(folder) => {
                let file = Embedded::file(folder);
                if !file.exists() {
                    return Ok(());
                }
                // Opening it shows that nobody uses it.
                drop(self.open(false).await?);
                let beside = file.with_extension(format!("redb.{}", clock::unix_ms()));
                std::fs::rename(&file, &beside).map_err(|error| format!("{}: {error}", file.display()))
            }
            Place::Etcd(settings) => {
                let clock: Clock = Arc::new(clock::unix_ms);
                let store = Etcd::look(settings, clock).await.map_err(|error| error.to_string())?;
                store.clear().await.map_err(|error| error.to_string())
            }
        }
    }
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
    let draft = file.with_extension("part");
    let out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft).map_err(fault)?;
    let mut out = BufWriter::new(out);
    let digest = archive.write(&mut out).map_err(fault)?;
    out.flush().map_err(fault)?;
    out.get_ref().sync_all().map_err(fault)?;
    std::fs::rename(&draft, file).map_err(fault)?;
    Ok(told("backed up", &archive, &digest, &file.display().to_string()))
}

async fn restore(archive: Archive, to: &Place, force: bool) -> Result<String, String> {
    let digest = archive.digest().map_err(|error| error.to_string())?;
    if force {
        to.clear().await?;
    }
    let store = to.open(true).await?;
    store.restore(archive.clone()).await.map_err(|error| format!("{}: {error}", to.shown()))?;
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
        restore(archive, &Place::of(one.path()).unwrap(), false).await.unwrap();
        let from = || one.path().to_owned();
        let told = run(StoreCommand::Backup { file: file.clone(), from: from() }).await.unwrap();
        assert!(told.contains("1 records") && told.contains("sha256 "), "{told}");
        assert!(run(StoreCommand::Backup { file: file.clone(), from: from() }).await.unwrap_err().contains("is there already"));
        let again = |force| StoreCommand::Restore { file: file.clone(), to: from(), force };
        assert!(run(again(false)).await.unwrap_err().contains("is not empty; nothing was changed"));
        assert!(run(again(true)).await.unwrap().contains("restored"));
        assert_eq!(std::fs::read_dir(one.path()).unwrap().count(), 2, "what was replaced is kept");
        let migrate = StoreCommand::Migrate { from: from(), to: two.path().to_owned(), force: false };
        assert!(run(migrate).await.unwrap().contains("secrets.key"));
        std::fs::write(&file, std::fs::read_to_string(&file).unwrap().replace("AQ==", "Ag==")).unwrap();
        assert!(run(again(true)).await.unwrap_err().contains("changed or damaged"));
    }
}
