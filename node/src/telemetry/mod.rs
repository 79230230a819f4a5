//! Seeing a node: its log, its metrics, its traces. It knows no request and no configuration.

mod labels;
mod logs;
mod metrics;
mod settings;
mod spans;
mod trace;

pub use labels::{LabelGuard, OTHER};
pub use logs::{LogError, init as init_logs};
pub use metrics::{TEXT_FORMAT, expose};
pub use settings::{DEFAULT_SAMPLE, LogFormat, LogLevel, LogSettings, TracingSettings};
pub use spans::{Attribute, FinishedSpan, Origin, SpanExport, SpanKind, TracingError};
pub use trace::{RequestTrace, Sampler, TraceContext};
