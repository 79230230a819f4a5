//! Finished spans to an OTLP collector. Spans are handed over whole, when they are over: nothing is registered while a request runs.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Uri;
use hyper_util::rt::TokioIo;
use opentelemetry::trace::{SpanContext, SpanId, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_otlp::WithTonicConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanExporter, SpanLinks, SpanProcessor,
};
use tonic::transport::{Channel, Endpoint};

use super::settings::TracingSettings;
use super::trace::RequestTrace;
use crate::sockets;

/// Spans that may wait for the collector; more are dropped, never waited for.
const QUEUE: usize = 8_192;
/// Spans of one export.
const BATCH: usize = 512;
/// Longest wait for a batch to fill.
const DELAY: Duration = Duration::from_secs(2);

/// Where collectors listen for OTLP over gRPC unless the URL says otherwise.
const OTLP_PORT: u16 = 4_317;

/// The exporter cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("tracing.otlp: {0}; expected the URL of an OTLP/gRPC collector such as http://127.0.0.1:4317")]
pub struct TracingError(String);

/// Which side of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// A request that came in.
    Server,
    /// A request that went out.
    Client,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// Text.
    Text(Cow<'static, str>),
    /// A whole number.
    Number(i64),
    /// True or false.
    Flag(bool),
}

/// A span that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct FinishedSpan {
    /// Its place in the trace.
    pub trace: RequestTrace,
    /// What it is; of low cardinality (`GET /users/:id`).
    pub name: Cow<'static, str>,
    /// Which side of a call.
    pub kind: SpanKind,
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// By the names of OpenTelemetry's semantic conventions (`http.request.method`).
    pub attributes: Vec<(&'static str, Attribute)>,
    /// What went wrong, when something did.
    pub error: Option<Cow<'static, str>>,
}

/// Which process the spans come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The node's id.
    pub id: String,
    /// Where it runs.
    pub zone: Option<String>,
    /// The program's version.
    pub version: &'static str,
}

/// The way to the collector. Clones share it.
#[derive(Debug, Clone)]
pub struct SpanExport {
    processor: Arc<BatchSpanProcessor>,
    scope: InstrumentationScope,
}

impl SpanExport {
    /// Sets up the exporter; needs a tokio runtime, and connects when there is something to send.
    ///
    /// # Errors
    /// The collector's URL cannot be used.
    pub fn start(settings: &TracingSettings, origin: Origin) -> Result<SpanExport, TracingError> {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_channel(channel(settings)?)
            .build()
            .map_err(|error| TracingError(error.to_string()))?;
        Ok(SpanExport::over(exporter, origin))
    }

    fn over(exporter: impl SpanExporter + 'static, origin: Origin) -> SpanExport {
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let mut processor = BatchSpanProcessor::new(exporter, config);
        let Origin { id, zone, version } = origin;
        let mut attributes = vec![KeyValue::new("service.version", version), KeyValue::new("service.instance.id", id)];
        attributes.extend(zone.map(|zone| KeyValue::new("cloud.availability_zone", zone)));
        processor.set_resource(&Resource::builder_empty().with_service_name("heddle").with_attributes(attributes).build());
        let scope = InstrumentationScope::builder("heddle").with_version(version).build();
        SpanExport { processor: Arc::new(processor), scope }
    }

    /// Hands a span over, when it is sampled. Never waits: with a full queue the span is dropped.
    pub fn export(&self, span: FinishedSpan) {
        if span.trace.sampled {
            self.processor.on_end(data(span, self.scope.clone()));
        }
    }

    /// Sends what waits, for at most `timeout`, and ends.
    pub async fn stop(self, timeout: Duration) {
        let stopped = tokio::task::spawn_blocking(move || self.processor.shutdown_with_timeout(timeout)).await;
        if let Ok(Err(error)) = stopped {
            tracing::warn!(%error, "some spans did not reach the collector");
        }
    }
}

/// The way to the collector, opened when there is something to send.
fn channel(settings: &TracingSettings) -> Result<Channel, TracingError> {
    let endpoint = Endpoint::from_shared(settings.otlp.clone()).map_err(|error| TracingError(error.to_string()))?;
    let (host, scheme) = (endpoint.uri().host().unwrap_or_default(), endpoint.uri().scheme_str());
    if host.is_empty() || scheme != Some("http") {
        return Err(TracingError(format!("{} is no http:// URL with a host", settings.otlp)));
    }
    let endpoint = endpoint.timeout(settings.timeout).connect_timeout(settings.timeout);
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(|uri: Uri| async move {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let stream = sockets::connect_to(&host, uri.port_u16().unwrap_or(OTLP_PORT)).await?;
        stream.set_nodelay(true)?;
        std::io::Result::Ok(TokioIo::new(stream))
    })))
}

fn data(span: FinishedSpan, scope: InstrumentationScope) -> SpanData {
    let RequestTrace { trace_id, span_id, parent_id, sampled, state } = span.trace;
    let flags = TraceFlags::default().with_sampled(sampled);
    let state = state.and_then(|text| text.parse::<TraceState>().ok()).unwrap_or_default();
    let value = |attribute| match attribute {
        Attribute::Text(text) => Value::from(text),
        Attribute::Number(number) => Value::from(number),
        Attribute::Flag(flag) => Value::from(flag),
    };
    SpanData {
        span_context: SpanContext::new(TraceId::from_bytes(trace_id), SpanId::from_bytes(span_id), flags, false, state),
        parent_span_id: parent_id.map_or(SpanId::INVALID, SpanId::from_bytes),
        parent_span_is_remote: parent_id.is_some() && span.kind == SpanKind::Server,
        span_kind: match span.kind {
            SpanKind::Server => opentelemetry::trace::SpanKind::Server,
            SpanKind::Client => opentelemetry::trace::SpanKind::Client,
        },
        name: span.name,
        start_time: span.start,
        end_time: span.end,
        attributes: span.attributes.into_iter().map(|(name, attribute)| KeyValue::new(name, value(attribute))).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: scope,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::UNIX_EPOCH;

    use parking_lot::Mutex;
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::telemetry::Sampler;

    #[derive(Debug, Clone, Default)]
    struct Kept(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> opentelemetry_sdk::error::OTelSdkResult {
            self.0.lock().extend(batch);
            Ok(())
        }
    }

    fn origin() -> Origin {
        Origin { id: "gw-1".into(), zone: Some("eu-1a".into()), version: "1.0" }
    }

    fn span(ratio: f64) -> FinishedSpan {
        FinishedSpan {
            trace: RequestTrace::begin(None, Sampler::new(ratio), &mut fastrand::Rng::with_seed(5)),
            name: "GET /users/:id".into(),
            kind: SpanKind::Server,
            start: UNIX_EPOCH + Duration::from_secs(10),
            end: UNIX_EPOCH + Duration::from_secs(11),
            attributes: vec![
                ("http.request.method", Attribute::Text("GET".into())),
                ("http.response.status_code", Attribute::Number(503)),
                ("heddle.retried", Attribute::Flag(true)),
            ],
            error: Some("no endpoint".into()),
        }
    }

    #[tokio::test]
    async fn sampled_spans_are_exported_as_given() {
        let kept = Kept::default();
        let export = SpanExport::over(kept.clone(), origin());
        let sampled = span(1.0);
        export.export(span(0.0));
        export.export(sampled.clone());
        export.stop(Duration::from_secs(30)).await;
        let spans = kept.0.lock().clone();
        assert_eq!(spans.len(), 1);
        assert_eq!(spans[0].span_context.trace_id().to_bytes(), sampled.trace.trace_id);
        assert_eq!(spans[0].span_context.span_id().to_bytes(), sampled.trace.span_id);
        assert_eq!(spans[0].parent_span_id, SpanId::INVALID);
        assert_eq!((spans[0].start_time, spans[0].end_time), (sampled.start, sampled.end));
        assert_eq!(spans[0].attributes[1], KeyValue::new("http.response.status_code", 503));
        assert_eq!(spans[0].status, Status::error("no endpoint"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn spans_travel_by_grpc() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let otlp = format!("http://{}", listener.local_addr().unwrap());
        let settings = TracingSettings { otlp, sample: 1.0, timeout: Duration::from_secs(1) };
        let export = SpanExport::start(&settings, origin()).unwrap();
        export.export(span(1.0));
        let stopping = tokio::spawn(export.stop(Duration::from_secs(30)));
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut preface = [0; 24];
        socket.read_exact(&mut preface).await.unwrap();
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        drop(socket);
        drop(listener);
        stopping.await.unwrap();
    }

    #[tokio::test]
    async fn a_useless_url_is_refused() {
        let settings = TracingSettings { otlp: "http://".into(), sample: 1.0, timeout: Duration::from_secs(1) };
        assert!(SpanExport::start(&settings, origin()).unwrap_err().to_string().contains("http://127.0.0.1:4317"));
    }
}
