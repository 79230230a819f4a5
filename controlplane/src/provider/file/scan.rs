//! Looks at the files below a path and tells what is new. It reads, compares and forgets; it waits for nothing.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use heddle_node::clock;
use heddle_node::config::{Environment, Format, MAX_DOCUMENT_BYTES};

use super::resources::{FilePlaces, Source};
use crate::provider::Batch;
use crate::state::{Content, Places, Update};

/// Most files of one directory: more is a directory that was not meant.
const MAX_FILES: usize = 1_000;
/// All files together.
const MAX_TOTAL_BYTES: u64 = 256 << 20;
/// A file that was changed this recently is read even when its times look the same: clocks of file systems are coarse.
const RECENT: Duration = Duration::from_secs(2);

/// What was seen last.
pub(super) struct Scanner {
    root: PathBuf,
    provider: Arc<str>,
    environment: Arc<dyn Environment + Send + Sync>,
    seen: BTreeMap<PathBuf, Seen>,
    /// Why `root` itself could not be looked at, as it was reported.
    trouble: Option<String>,
}

struct Seen {
    stamp: Option<Stamp>,
    /// Hash of the content, or of the reason why there is none.
    content: u64,
}

/// What tells quickly that a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
    #[cfg(unix)]
    file: (u64, u64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt;
        Stamp {
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
            #[cfg(unix)]
            file: (metadata.dev(), metadata.ino()),
        }
    }

    /// Whether an equal stamp proves equal content.
    fn settled(&self, now: SystemTime) -> bool {
        let Some(age) = self.modified.and_then(|modified| now.duration_since(modified).ok()) else { return false };
        age > RECENT
    }
}

impl Scanner {
    pub(super) fn new(root: PathBuf, provider: Arc<str>, environment: Arc<dyn Environment + Send + Sync>) -> Scanner {
        Scanner { root, provider, environment, seen: BTreeMap::new(), trouble: None }
    }

    /// What has changed since the last look. Blocks on the disk.
    pub(super) fn look(&mut self) -> Batch {
        let files = match self.files() {
            Ok(files) => files,
            Err(error) => return self.root_trouble(error),
        };
        let mut batch = Batch::new();
        if self.trouble.take().is_some() && !files.contains(&self.root) {
            batch.push(self.update(&self.root, Content::Gone));
        }
        let gone: Vec<PathBuf> = self.seen.keys().filter(|path| !files.contains(path)).cloned().collect();
        for path in gone {
            self.seen.remove(&path);
            batch.push(self.update(&path, Content::Gone));
        }
        for path in files {
            batch.extend(self.file(path));
        }
        batch
    }

    /// The path itself, or the files with a known extension right below it.
    fn files(&self) -> Result<Vec<PathBuf>, String> {
        let metadata = fs::metadata(&self.root).map_err(|error| unreadable(&error))?;
        if !metadata.is_dir() {
            return match Format::of(&self.root) {
                Some(_) => Ok(vec![self.root.clone()]),
                None => Err("expected a directory, or a file whose name ends in .yaml, .yml or .json".into()),
            };
        }
        let mut files = Vec::new();
        let mut total = 0;
        for entry in fs::read_dir(&self.root).map_err(|error| unreadable(&error))? {
            let path = entry.map_err(|error| unreadable(&error))?.path();
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if hidden || Format::of(&path).is_none() {
                continue;
            }
            // A dangling link is a file that cannot be read, and is reported as such when it is looked at.
            let metadata = fs::metadata(&path).ok();
            if metadata.as_ref().is_some_and(Metadata::is_dir) {
                continue;
            }
            total += metadata.map_or(0, |metadata| metadata.len());
            files.push(path);
            if files.len() > MAX_FILES || total > MAX_TOTAL_BYTES {
                return Err(format!("expected at most {MAX_FILES} files of together {MAX_TOTAL_BYTES} bytes, found more"));
            }
        }
        files.sort();
        Ok(files)
    }

    /// The whole path cannot be looked at: everything stays as it was, and that is said once.
    fn root_trouble(&mut self, reason: String) -> Batch {
        if self.trouble.as_ref() == Some(&reason) {
            return Batch::new();
        }
        let message = format!("{}: {reason}", self.root.display());
        // Its content is looked at anew when it is back, even when it is the same: the report is then withdrawn.
        self.seen.remove(&self.root);
        self.trouble = Some(reason);
        vec![self.update(&self.root, Content::Broken(vec![message]))]
    }

    /// The update of one file, `None` when nothing has changed.
    fn file(&mut self, path: PathBuf) -> Option<Update> {
        let stamp = fs::metadata(&path).ok().map(|metadata| Stamp::of(&metadata));
        let before = self.seen.get(&path);
        let unchanged = |seen: &Seen| seen.stamp == stamp && stamp.is_some_and(|stamp| stamp.settled(clock::wall()));
        if before.is_some_and(unchanged) {
            return None;
        }
        let text = read_bounded(&path);
        let content = fingerprint(&text);
        let same = before.is_some_and(|seen| seen.content == content);
        self.seen.insert(path.clone(), Seen { stamp, content });
        if same {
            return None;
        }
        Some(match text {
            Ok(text) => self.parsed(&path, &text),
            Err(reason) => self.update(&path, Content::Broken(vec![format!("{}: {reason}", path.display())])),
        })
    }

    fn parsed(&self, path: &Path, text: &[u8]) -> Update {
        let source = Source {
            file: path.display().to_string(),
            text: text.to_vec(),
            format: Format::of(path).unwrap_or(Format::Yaml),
            environment: self.environment.clone(),
            provider: self.provider.clone(),
        };
        match source.parse() {
            Ok((_, found)) => {
                let places = Places::new(FilePlaces::new(source));
                Update { places, ..self.update(path, Content::Whole(found.resources)) }
            }
            Err(mistakes) => self.update(path, Content::Broken(mistakes.iter().map(ToString::to_string).collect())),
        }
    }

    fn update(&self, path: &Path, content: Content) -> Update {
        Update { provider: self.provider.clone(), source: path.display().to_string().into(), content, places: Places::default() }
    }
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "expected a file or a directory, found nothing".into(),
        io::ErrorKind::PermissionDenied => "expected to be allowed to read it; check its owner and mode".into(),
        _ => format!("expected to read it: {error}"),
    }
}

/// The content of a file. One without a byte is refused: it is most likely just being written.
fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    let limit = u64::try_from(MAX_DOCUMENT_BYTES).unwrap_or(u64::MAX);
    let mut text = Vec::new();
    file.take(limit + 1).read_to_end(&mut text).map_err(|error| unreadable(&error))?;
    if text.len() > MAX_DOCUMENT_BYTES {
        return Err(format!("expected at most {MAX_DOCUMENT_BYTES} bytes, found more; split it"));
    }
    if text.is_empty() {
        return Err("expected resources, found an empty file; write `{}` for none".into());
    }
    Ok(text)
}

fn fingerprint(text: &Result<Vec<u8>, String>) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
