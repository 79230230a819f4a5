//! The access log: one line per request, formatted on the worker, written by a thread of its own. When the disk is slow lines are dropped and counted; requests never wait.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;

use super::json_line;
use crate::exchange::{Exchange, Template};

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// Standard output.
    Stdout,
    /// A file, appended to; opened anew when it was moved away (log rotation).
    File(PathBuf),
}

/// How a line looks.
#[derive(Debug)]
enum Format {
    /// One JSON object per line with fixed keys.
    Json,
    /// A template with variables (`$remote_addr "$request_line" $status`).
    Template(Template),
}

/// Most bytes of one batch; a worker hands over its batch when it is this large or when its flush tick comes.
const BATCH: usize = 64 * 1024;
/// Batches that may wait for the writer (16 MiB in all) before lines are dropped.
const WAITING: usize = 256;
/// How long the writer rests between looks at a busy log: batches that come meanwhile wake nobody, which matters where workers and writer share a core.
const REST: Duration = Duration::from_millis(10);
/// How long the end of a worker waits for its last lines to be written.
const FAREWELL: Duration = Duration::from_secs(1);
/// Lines of a template are cut here, so that a huge URI cannot fill the log.
const LINE: usize = 8 * 1024;

/// What the writer gets.
#[derive(Debug)]
enum Message {
    Lines(Vec<u8>),
    /// Answered once all before it has been written.
    Mark(oneshot::Sender<()>),
}

/// The writing end, shared by all workers of a node.
#[derive(Debug)]
pub struct AccessLog {
    batches: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    format: Format,
    sent_fields: bool,
}

impl AccessLog {
    /// Opens the sink and starts the writer. Lines follow the template, or are JSON without one.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(sink: &Sink, template: Option<&str>) -> std::io::Result<AccessLog> {
        let (batches, receiver) = sync_channel(WAITING);
        let failed = Arc::new(AtomicU64::new(0));
        let mut target = Target::open(sink)?;
        let errors = failed.clone();
        std::thread::Builder::new().name("access-log".into()).spawn(move || write_batches(&receiver, &mut target, &errors))?;
        let sent_fields = template.is_some_and(|template| template.contains("sent_http_"));
        let format = template.map_or(Format::Json, |template| Format::Template(Template::new(template)));
        Ok(AccessLog { batches, dropped: Arc::default(), failed, format, sent_fields })
    }

    /// Lines dropped because the writer was behind.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Batches that could not be written.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// A worker's own batch.
    pub fn batch(self: &Arc<Self>) -> Batch {
        Batch { log: self.clone(), lines: Vec::with_capacity(BATCH + LINE), count: 0, text: String::with_capacity(1024) }
    }
}

/// Lines of one worker that wait to be handed over.
#[derive(Debug)]
pub struct Batch {
    log: Arc<AccessLog>,
    lines: Vec<u8>,
    count: u64,
    text: String,
}

impl Batch {
    /// Whether the template shows fields of responses.
    pub fn wants_sent_fields(&self) -> bool {
        self.log.sent_fields
    }

    /// Formats one finished exchange.
    pub fn push(&mut self, x: &Exchange, duration: Duration) {
        match &self.log.format {
            Format::Json => json_line::write(&mut self.lines, x, duration),
            Format::Template(template) => {
                self.text.clear();
                template.render_into(x, &mut self.text);
                let line = self.text.as_bytes().iter().take(LINE);
                // A client must not be able to begin a line of its own.
                self.lines.extend(line.map(|byte| if byte.is_ascii_control() { b'?' } else { *byte }));
            }
        }
        self.lines.push(b'\n');
        self.count += 1;
        if self.lines.len() >= BATCH {
            self.flush();
        }
    }

    /// Hands the lines over; a worker calls it on its flush tick.
    pub fn flush(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let lines = std::mem::replace(&mut self.lines, Vec::with_capacity(BATCH + LINE));
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.log.batches.try_send(Message::Lines(lines)) {
            self.log.dropped.fetch_add(self.count, Ordering::Relaxed);
        }
        self.count = 0;
    }

    /// Hands the last lines over and waits, not for ever, until they are written.
    pub async fn finish(mut self) {
        self.flush();
        let (mark, written) = oneshot::channel();
        if self.log.batches.try_send(Message::Mark(mark)).is_ok() {
            // Late or gone: the process ends all the same.
            let _ = tokio::time::timeout(FAREWELL, written).await;
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.flush();
    }
}

enum Target {
    Stdout,
    File { path: PathBuf, file: std::fs::File },
}

impl Target {
    fn open(sink: &Sink) -> std::io::Result<Target> {
        Ok(match sink {
            Sink::Stdout => Target::Stdout,
            Sink::File(path) => Target::File { file: append(path)?, path: path.clone() },
        })
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Target::Stdout => std::io::stdout().lock().write_all(bytes),
            Target::File { path, file } => {
                if !path.exists() {
                    *file = append(path)?;
                }
                file.write_all(bytes)
            }
        }
    }
}

fn append(path: &std::path::Path) -> std::io::Result<std::fs::File> {
    std::fs::OpenOptions::new().create(true).append(true).open(path)
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own, which nobody waits for")]
fn write_batches(batches: &Receiver<Message>, target: &mut Target, failed: &AtomicU64) {
    while let Ok(first) = batches.recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Lines(lines) if target.write(&lines).is_err() => drop(failed.fetch_add(1, Ordering::Relaxed)),
                Message::Lines(_) => {}
                // Whoever waited may have gone.
                Message::Mark(mark) => drop(mark.send(())),
            }
            next = batches.try_recv().ok();
        }
        std::thread::sleep(REST);
    }
}
