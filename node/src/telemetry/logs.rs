//! The program's own log on standard error, safe against what strangers can make it say. It does not know what is logged.

use std::io::{self, Write};

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use super::settings::{LogFormat, LogLevel, LogSettings};

/// The log is set up already.
#[derive(Debug, thiserror::Error)]
#[error("the log is set up already; it can be done once in a process")]
pub struct LogError;

/// Sends the log of this process to standard error. Once in a process.
///
/// # Errors
/// It was done already.
pub fn init(settings: &LogSettings) -> Result<(), LogError> {
    tracing::subscriber::set_global_default(subscriber(settings, io::stderr)).map_err(|_| LogError)
}

/// Heddle's own lines from the level on; those of libraries only when they are warnings, as their `info` says nothing to an operator.
fn subscriber<W>(settings: &LogSettings, writer: W) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (ours, theirs) = match settings.level {
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::WARN),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::WARN),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::INFO),
        LogLevel::Trace => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    let filter = Targets::new().with_default(theirs).with_target("heddle", ours);
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(Escaping(writer));
    let layer = match settings.format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter))
}

/// Writes each line whole, with control characters escaped: a header of a request can neither forge a line nor steer a terminal.
struct Escaping<W>(W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for Escaping<W> {
    type Writer = EscapingWriter<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        EscapingWriter(self.0.make_writer())
    }
}

struct EscapingWriter<W>(W);

impl<W: Write> Write for EscapingWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(escape(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// `line` with every control character but its last line feed escaped.
fn escape(line: &str) -> String {
    let (body, end) = match line.strip_suffix('\n') {
        Some(body) => (body, "\n"),
        None => (line, ""),
    };
    let mut out = String::with_capacity(line.len());
    for c in body.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out + end
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: LogLevel, format: LogFormat, say: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let settings = LogSettings { level, format };
        tracing::subscriber::with_default(subscriber(&settings, move || writer.clone()), say);
        let bytes = sink.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn strangers_cannot_forge_lines_or_steer_terminals() {
        let evil = "a\r\n2026 INFO forged \x1b[31mred\u{9b}x\u{2028}";
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged(LogLevel::Info, format, || tracing::info!(host = evil, other = %evil, "message {evil}"));
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(text.ends_with('\n') && !text.trim_end_matches('\n').contains(char::is_control), "{text:?}");
        }
    }

    #[test]
    fn json_is_json() {
        let text = logged(LogLevel::Info, LogFormat::Json, || tracing::warn!(count = 3, "hello\tthere"));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["level"], &value["count"], &value["message"]), (&"WARN".into(), &3.into(), &"hello\tthere".into()));
    }

    #[test]
    fn libraries_are_heard_from_warnings_on() {
        let say = || {
            tracing::info!("ours");
            tracing::debug!("ours in detail");
            tracing::info!(target: "h2::proto", "theirs");
            tracing::warn!(target: "h2::proto", "their trouble");
        };
        let text = logged(LogLevel::Info, LogFormat::Text, say);
        assert!(text.contains("ours") && text.contains("their trouble"), "{text}");
        assert!(!text.contains("detail") && !text.contains("theirs"), "{text}");
        assert!(logged(LogLevel::Debug, LogFormat::Text, say).contains("ours in detail"));
        assert_eq!(logged(LogLevel::Error, LogFormat::Text, say), "");
    }
}
