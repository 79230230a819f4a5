//! A store as a whole: read out with its history, written down with a hash, put into another one. It knows no store in particular, and what is sealed
//! stays sealed.

use std::io::{BufRead, Write};

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::etcd::Kept;
use super::{Entry, Records, Revision, Ring, Store, StoreError, Version};

/// The form of backups that this code reads and writes.
const FORMAT: u32 = 1;
/// Versions that are read together.
const PAGE: usize = 1_000;
/// Bytes of one line of a backup.
const MOST_LINE: u64 = 64 << 20;

/// Everything that a store holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Archive {
    /// The oldest revision that is complete.
    pub floor: Revision,
    /// The newest revision.
    pub newest: Revision,
    /// All versions, by revision and key: those from the floor on, and older ones that existed there.
    pub versions: Vec<Version>,
    /// All records, by key.
    pub records: Vec<(String, Vec<u8>)>,
    /// The journal of what was done, oldest first.
    pub done: Vec<Entry>,
    /// The journal of what was refused, oldest first.
    pub refused: Vec<Entry>,
    /// The journal of what others said that they have refused, oldest first.
    pub reported: Vec<Entry>,
}

/// One line of a backup.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Store { format: u32, floor: Revision, newest: Revision },
    Version(Kept),
    Record(String, String),
    Done(u64, String),
    Refused(u64, String),
    Reported(u64, String),
    Sha256(String),
}

/// A store that a whole archive can be put into.
#[async_trait::async_trait]
pub trait Restore: Store + Records {
    /// Reads everything as it was at one moment.
    ///
    /// # Errors
    /// It cannot be read.
    async fn archive(&self) -> Result<Archive, StoreError>;
    /// Puts an archive into a store that is empty; everything or nothing.
    ///
    /// # Errors
    /// [`StoreError::Unusable`] when it is not empty.
    async fn restore(&self, archive: Archive) -> Result<(), StoreError>;
}

impl Archive {
    /// Reads a store that nobody writes meanwhile.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) async fn at_rest<S: Restore>(store: &S) -> Result<Archive, StoreError> {
        let (newest, _) = store.load().await?;
        let floor = match store.at(0).await {
            Err(StoreError::UnknownRevision(_, floor)) => floor,
            found => found.map(|_| 0)?,
        };
        let (mut versions, mut before) = (Vec::new(), None);
        loop {
            let page = store.history(None, before, PAGE).await?;
            let Some(last) = page.last() else { break };
            before = Some(last.revision);
            versions.extend(page);
        }
        versions.sort_by(|a, b| (a.revision, &a.key).cmp(&(b.revision, &b.key)));
        let mut records = store.records().await?;
        records.sort();
        let mut archive = Archive { floor, newest, versions, records, ..Archive::default() };
        for ring in Ring::ALL {
            let mut entries = store.journal(ring, None, usize::MAX >> 1).await?;
            entries.reverse();
            *archive.journal(ring) = entries;
        }
        Ok(archive)
    }

    /// The entries of one journal.
    pub(super) fn journal(&mut self, ring: Ring) -> &mut Vec<Entry> {
        match ring {
            Ring::Done => &mut self.done,
            Ring::Refused => &mut self.refused,
            Ring::Reported => &mut self.reported,
        }
    }

    /// All entries of all journals.
    pub fn entries(&self) -> impl Iterator<Item = (Ring, &Entry)> {
        let of = |(ring, entries)| std::iter::repeat(ring).zip(entries);
        [(Ring::Done, &self.done), (Ring::Refused, &self.refused), (Ring::Reported, &self.reported)].into_iter().flat_map(of)
    }

    /// Whether nothing was ever stored.
    pub fn is_empty(&self) -> bool {
        self.newest == 0 && self.versions.is_empty() && self.records.is_empty() && self.entries().next().is_none()
    }

    /// Writes lines of JSON, the last of which holds the SHA-256 of all before it; gives that hash, hex.
    ///
    /// # Errors
    /// Of the writer.
    pub fn write(&self, out: &mut dyn Write) -> std::io::Result<String> {
        let mut hash = Context::new(&SHA256);
        let mut put = |line: &Line, hash: Option<&mut Context>| {
            let mut text = serde_json::to_vec(line).map_err(std::io::Error::other)?;
            text.push(b'\n');
            if let Some(hash) = hash {
                hash.update(&text);
            }
            out.write_all(&text)
        };
        put(&Line::Store { format: FORMAT, floor: self.floor, newest: self.newest }, Some(&mut hash))?;
        for version in &self.versions {
            put(&Line::Version(Kept::of(version)), Some(&mut hash))?;
        }
        for (key, value) in &self.records {
            put(&Line::Record(key.clone(), STANDARD.encode(value)), Some(&mut hash))?;
        }
        for (ring, Entry { number, body }) in self.entries() {
            let body = STANDARD.encode(body);
            let line = match ring {
                Ring::Done => Line::Done(*number, body),
                Ring::Refused => Line::Refused(*number, body),
                Ring::Reported => Line::Reported(*number, body),
            };
            put(&line, Some(&mut hash))?;
        }
        let digest = heddle_node::hex::encode(hash.finish().as_ref());
        put(&Line::Sha256(digest.clone()), None)?;
        Ok(digest)
    }

    /// The hash that a backup of this has.
    ///
    /// # Errors
    /// A value has no form in JSON.
    pub fn digest(&self) -> std::io::Result<String> {
        self.write(&mut std::io::sink())
    }

    /// Reads what [`Archive::write`] wrote.
    ///
    /// # Errors
    /// In words: it is cut off, changed, or no backup.
    pub fn read(input: &mut dyn BufRead) -> Result<Archive, String> {
        let (mut archive, mut hash, mut number) = (None, Context::new(&SHA256), 0_u64);
        loop {
            let mut text = Vec::new();
            number += 1;
            let read = std::io::Read::take(&mut *input, MOST_LINE).read_until(b'\n', &mut text);
            read.map_err(|error| error.to_string())?;
            if !text.ends_with(b"\n") {
                return Err(format!("line {number}: it ends before its hash; the backup is not whole"));
            }
            let line: Line =
                serde_json::from_slice(&text).map_err(|error| format!("line {number} is no line of a backup: {error}"))?;
            if let Line::Sha256(expected) = &line {
                let found = heddle_node::hex::encode(hash.finish().as_ref());
                return match archive {
                    Some(archive) if found == *expected => Ok(archive),
                    Some(_) => Err(format!("its hash is {found}, not {expected}: the backup was changed or damaged")),
                    None => Err("it holds no store".to_owned()),
                };
            }
            hash.update(&text);
            take(&mut archive, line).map_err(|why| format!("line {number}: {why}"))?;
        }
    }
}

fn take(archive: &mut Option<Archive>, line: Line) -> Result<(), String> {
    let bytes = |text: String| STANDARD.decode(text).map_err(|error| error.to_string());
    match (archive.as_mut(), line) {
        (None, Line::Store { format: FORMAT, floor, newest }) => *archive = Some(Archive { floor, newest, ..Archive::default() }),
        (_, Line::Store { format, .. }) => {
            return Err(format!("format {format} was not expected here; this heddle knows format {FORMAT}"));
        }
        (None, _) => return Err("a backup begins with its store".into()),
        (Some(archive), Line::Version(kept)) => {
            let unknown = |kept: Box<Kept>| {
                format!("`{}` is of no kind that this version of heddle knows; use the one that wrote it", kept.name())
            };
            archive.versions.push(kept.into_version().map_err(unknown)?);
        }
        (Some(archive), Line::Record(key, value)) => archive.records.push((key, bytes(value)?)),
        (Some(archive), Line::Done(number, body)) => archive.done.push(Entry { number, body: bytes(body)? }),
        (Some(archive), Line::Refused(number, body)) => archive.refused.push(Entry { number, body: bytes(body)? }),
        (Some(archive), Line::Reported(number, body)) => archive.reported.push(Entry { number, body: bytes(body)? }),
        (_, Line::Sha256(_)) => {}
    }
    Ok(())
}

/// What is said of a store that is not empty.
pub(super) fn not_empty(what: &str) -> StoreError {
    StoreError::Unusable(format!("{what} is not empty; nothing was changed. Choose an empty one, or say --force to replace it"))
}
