//! How a node logs and traces, as `heddle.yaml` says it. It starts neither.

use std::time::Duration;

use crate::config::Section;

/// One request in a hundred: enough to see trends, too few to be felt.
pub const DEFAULT_SAMPLE: f64 = 0.01;
/// An exporter that takes longer than this loses the batch rather than piling up memory.
const DEFAULT_EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The program's own log, on standard error. (The access log is the agent's.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Least important level that is written.
    pub level: LogLevel,
    /// How a line looks.
    pub format: LogFormat,
}

/// A level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Something failed and somebody should look.
    Error,
    /// Something is odd, and Heddle carried on.
    Warn,
    /// What an operator wants to know afterwards.
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where spans go.
#[derive(Debug, Clone, PartialEq)]
pub struct TracingSettings {
    /// An OTLP/gRPC collector, `http://127.0.0.1:4317`.
    pub otlp: String,
    /// Share of the requests without a parent that are traced, 0 to 1. A request with a parent follows it.
    pub sample: f64,
    /// How long one export may take.
    pub timeout: Duration,
}

impl LogSettings {
    /// Reads `log:`.
    pub(crate) fn read(section: &mut Section<'_>) -> LogSettings {
        let levels = [
            ("error", LogLevel::Error),
            ("warn", LogLevel::Warn),
            ("info", LogLevel::Info),
            ("debug", LogLevel::Debug),
            ("trace", LogLevel::Trace),
        ];
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        LogSettings {
            level: section.choice("level", &levels).unwrap_or(LogLevel::Info),
            format: section.choice("format", &formats).unwrap_or(LogFormat::Text),
        }
    }
}

impl TracingSettings {
    /// Reads `tracing:`.
    pub(crate) fn read(section: &mut Section<'_>) -> Option<TracingSettings> {
        let otlp = section.require("otlp").name("otlp");
        if otlp.as_deref().is_some_and(|url| !url.starts_with("http://")) {
            section.mistake("otlp", "expected the URL of an OTLP/gRPC collector, http://host:4317 (put a local collector in front of one that wants TLS)");
        }
        let sample = section.float("sample", 0.0..=1.0).unwrap_or(DEFAULT_SAMPLE);
        let timeout = section.duration("timeout").unwrap_or(DEFAULT_EXPORT_TIMEOUT);
        Some(TracingSettings { otlp: otlp?, sample, timeout })
    }
}
