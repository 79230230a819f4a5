//! The file provider: a file or a directory of user resources, watched. What is valid it leaves to others; the last good content of each file is theirs to keep.

mod resources;
mod scan;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use heddle_node::clock;
use heddle_node::config::Environment;
use heddle_node::drain::DrainWatch;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use self::scan::Scanner;
use super::{Batch, Provider, ProviderError};
use crate::settings::FileSettings;
use crate::state::Update;

/// The name of this provider.
const NAME: &str = "file";
/// How long a burst of events may go on before the files are read all the same.
const LONGEST_BURST: Duration = Duration::from_secs(1);

/// When the provider looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Quiet time after a change before the files are read: editors and deployments write in several steps.
    pub quiet: Duration,
    /// The files are also looked at this often, for file systems that tell of no changes.
    pub poll: Duration,
    /// Whether the operating system is asked to tell of changes.
    pub events: bool,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing { quiet: Duration::from_millis(50), poll: Duration::from_secs(2), events: true }
    }
}

/// A file or a directory of user resources.
pub struct FileProvider {
    settings: FileSettings,
    environment: Arc<dyn Environment + Send + Sync>,
    timing: Timing,
}

impl FileProvider {
    /// Reads what `settings` names; `${{NAME}}` in files is a variable of `environment`.
    pub fn new(settings: FileSettings, environment: Arc<dyn Environment + Send + Sync>) -> FileProvider {
        FileProvider { settings, environment, timing: Timing::default() }
    }

    fn scanner(&self) -> Scanner {
        Scanner::new(self.settings.path.clone(), NAME.into(), self.environment.clone())
    }
}

/// What the file provider would report for `path`, read once: for checks without starting anything.
pub fn check_files(path: &Path, environment: Arc<dyn Environment + Send + Sync>) -> Vec<Update> {
    Scanner::new(path.to_owned(), NAME.into(), environment).look()
}

#[async_trait]
impl Provider for FileProvider {
    fn name(&self) -> &str {
        NAME
    }

    async fn run(&mut self, updates: mpsc::Sender<Batch>, mut shutdown: DrainWatch) -> Result<(), ProviderError> {
        let (changed, mut changes) = mpsc::channel(1);
        // Held for its drop: it ends the watch. Made before the first look, so that nothing falls between.
        let _watcher = if self.settings.watch && self.timing.events { watch(&self.settings.path, changed) } else { None };
        let mut scanner = self.scanner();
        let mut first = true;
        loop {
            let (back, batch) = tokio::task::spawn_blocking(move || {
                let batch = scanner.look();
                (scanner, batch)
            })
            .await
            .map_err(|error| ProviderError(format!("reading {}: {error}", self.settings.path.display())))?;
            scanner = back;
            if (first || !batch.is_empty()) && updates.send(batch).await.is_err() {
                return Ok(());
            }
            first = false;
            if !self.settings.watch {
                shutdown.draining().await;
                return Ok(());
            }
            tokio::select! {
                () = shutdown.draining() => return Ok(()),
                () = settled(&mut changes, self.timing.quiet) => {}
                () = tokio::time::sleep(self.timing.poll) => {}
            }
        }
    }
}

/// Waits for a change, then until none has come for `quiet`. Never ends when nobody tells of changes.
async fn settled(changes: &mut mpsc::Receiver<()>, quiet: Duration) {
    if changes.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
    let latest = clock::now() + LONGEST_BURST;
    while clock::now() < latest && matches!(tokio::time::timeout(quiet, changes.recv()).await, Ok(Some(()))) {}
}

/// Asks the operating system to tell of changes at `path`. For a file its directory is watched, as files are replaced by renaming.
fn watch(path: &Path, changed: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let tell = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| event.kind.is_access()) {
            return;
        }
        // A full channel already holds the news.
        let _ = changed.try_send(());
    };
    let place = watched_directory(path);
    let watcher = notify::recommended_watcher(tell).and_then(|mut watcher| {
        watcher.watch(&place, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    match watcher {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(path = %place.display(), %error, "changes cannot be watched and are found by looking every now and then");
            None
        }
    }
}

fn watched_directory(path: &Path) -> PathBuf {
    match path.parent() {
        _ if path.is_dir() => path.to_owned(),
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => path.to_owned(),
    }
}
