//! The access log: one line per request, formatted on the worker, written by a thread of its own. When the disk is slow lines are dropped and counted; requests never wait.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

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
const BATCH: usize = 32 * 1024;
/// Batches that may wait for the writer (8 MiB in all) before lines are dropped.
const WAITING: usize = 256;
/// A line is cut here, so that a huge URI cannot fill the log.
const LINE: usize = 8 * 1024;

/// The writing end, shared by all workers of a node.
#[derive(Debug)]
pub struct AccessLog {
    batches: SyncSender<Vec<u8>>,
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
        self.text.clear();
        match &self.log.format {
            Format::Json => write_json(&mut self.text, x, duration),
            Format::Template(template) => {
                template.render_into(x, &mut self.text);
            }
        }
        let mut cut = self.text.len().min(LINE);
        while !self.text.is_char_boundary(cut) {
            cut -= 1;
        }
        self.lines
            .extend(self.text.as_bytes()[..cut].iter().map(|byte| if *byte < 0x20 || *byte == 0x7f { b'?' } else { *byte }));
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
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.log.batches.try_send(lines) {
            self.log.dropped.fetch_add(self.count, Ordering::Relaxed);
        }
        self.count = 0;
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

fn write_batches(batches: &Receiver<Vec<u8>>, target: &mut Target, failed: &AtomicU64) {
    while let Ok(batch) = batches.recv() {
        if target.write(&batch).is_err() {
            failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes `{"time":…}`; keys are stable, absent values are left out.
fn write_json(out: &mut String, x: &Exchange, duration: Duration) {
    let _ = write!(out, "{{\"time_ms\":{},\"client\":\"{}\"", x.started_ms, x.remote);
    text(out, "listener", &x.connection.listener);
    text(out, "method", x.original.method.as_str());
    text(out, "scheme", x.scheme());
    text(out, "host", &x.request.authority);
    text(out, "path", &x.original.path);
    if let Some(query) = &x.original.query {
        text(out, "query", query);
    }
    text(out, "protocol", x.request.version.as_str());
    let _ = write!(
        out,
        ",\"status\":{},\"reason\":\"{}\",\"bytes_in\":{},\"bytes_out\":{},\"duration_us\":{}",
        x.answer.status,
        x.answer.reason.flag(),
        x.answer.bytes_received,
        x.answer.bytes_sent,
        duration.as_micros()
    );
    if let Some(route) = &x.route {
        text(out, "route", &route.id);
        if !route.service_id.is_empty() {
            text(out, "service", &route.service_id);
        }
    }
    if let Some(consumer) = &x.consumer {
        text(out, "consumer", &consumer.username);
    }
    write_attempts(out, x);
    if let Some(agent) = x.request.fields.get_str("user-agent") {
        text(out, "user_agent", agent);
    }
    if let Some(trace) = &x.trace {
        text(out, "trace_id", &trace.trace_id_hex());
        text(out, "span_id", &trace.span_id_hex());
    }
    out.push('}');
}

fn write_attempts(out: &mut String, x: &Exchange) {
    let Some(last) = x.attempts.last() else { return };
    let _ = write!(out, ",\"upstream\":\"{}\",\"attempts\":{}", last.address, x.attempts.len());
    if let Some(status) = last.status {
        let _ = write!(out, ",\"upstream_status\":{status}");
    }
    if let Some(header) = last.header {
        let _ = write!(out, ",\"upstream_us\":{}", header.as_micros());
    }
}

/// Writes `,"key":"value"` with the value escaped (RFC 8259 section 7).
fn text(out: &mut String, key: &str, value: &str) {
    let _ = write!(out, ",\"{key}\":\"");
    for character in value.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control < ' ' || control == '\u{7f}' => {
                let _ = write!(out, "\\u{:04x}", control as u32);
            }
            other => out.push(other),
        }
    }
    out.push('"');
}
