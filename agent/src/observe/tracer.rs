//! Spans of requests: whether there is one is decided before anything else, from the caller's context or by ratio; it is made and handed over at the end.

use std::time::Duration;

use heddle_node::clock;
use heddle_node::telemetry::{Attribute, FinishedSpan, RequestTrace, Sampler, SpanExport, SpanKind, TraceContext};

use crate::exchange::Exchange;
use crate::http::Name;

/// Traces requests of one worker.
#[derive(Debug, Clone)]
pub struct Tracer {
    sampler: Sampler,
    export: SpanExport,
}

impl Tracer {
    /// Traces this share of the requests that have no caller's context.
    pub fn new(ratio: f64, export: SpanExport) -> Tracer {
        Tracer { sampler: Sampler::new(ratio), export }
    }

    /// Decides, and puts our span in the place of the caller's in what goes upstream (W3C Trace Context).
    pub fn begin(&self, x: &mut Exchange) {
        let fields = &mut x.request.fields;
        let incoming = fields
            .get_known(Name::Traceparent)
            .and_then(|parent| TraceContext::parse(parent, fields.get_all_known(Name::Tracestate)));
        let trace = RequestTrace::begin(incoming, self.sampler, &mut x.dice);
        fields.set_known(Name::Traceparent, trace.traceparent());
        if trace.state.is_none() {
            fields.remove_known(Name::Tracestate);
        }
        x.trace = Some(Box::new(trace));
    }

    /// Hands the span of a finished request over, when it is sampled.
    pub fn end(&self, x: &Exchange, duration: Duration) {
        let Some(trace) = x.trace.as_deref().filter(|trace| trace.sampled) else { return };
        let end = clock::wall();
        let failed = x.answer.status >= 500;
        self.export.export(FinishedSpan {
            trace: trace.clone(),
            name: x.original.method.as_str().to_owned().into(),
            kind: SpanKind::Server,
            start: end - duration,
            end,
            attributes: attributes(x),
            error: failed.then(|| x.answer.reason.flag().into()),
        });
    }
}

/// Names of the OpenTelemetry HTTP conventions; ours begin with `heddle.`.
fn attributes(x: &Exchange) -> Vec<(&'static str, Attribute)> {
    let mut list = vec![
        ("http.request.method", Attribute::Text(x.original.method.as_str().to_owned().into())),
        ("url.scheme", Attribute::Text(x.scheme().into())),
        ("url.path", Attribute::Text(x.original.path.clone().into())),
        ("server.address", Attribute::Text(x.request.host().to_owned().into())),
        ("client.address", Attribute::Text(x.remote.ip().to_string().into())),
        ("http.response.status_code", Attribute::Number(i64::from(x.answer.status))),
        ("heddle.reason", Attribute::Text(x.answer.reason.flag().into())),
        ("heddle.attempts", Attribute::Number(x.attempts.len() as i64)),
    ];
    if let Some(route) = x.routed().map(|route| route.info()) {
        list.push(("http.route", Attribute::Text(route.uri.to_string().into())));
        list.push(("heddle.route", Attribute::Text(route.id.to_string().into())));
    }
    if let Some(attempt) = x.attempts.last() {
        list.push(("heddle.upstream.address", Attribute::Text(attempt.endpoint.address.to_string().into())));
    }
    if let Some(consumer) = &x.consumer {
        list.push(("enduser.id", Attribute::Text(consumer.username.to_string().into())));
    }
    list
}
