//! The filter of `headers`.

use std::sync::Arc;

use serde_json::Value;

use super::super::check::Faults;
use super::super::fields::HeaderEdits;
use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::{Config, edits};
use super::security;
use crate::exchange::{Answer, Exchange, Reason};
use crate::http::{FieldName, Fields, ResponseHead};

struct Headers {
    hosts: Vec<Box<str>>,
    /// Where the host that was asked for stands instead.
    host_fields: Vec<FieldName>,
    request: Option<HeaderEdits>,
    response: Option<HeaderEdits>,
    for_all: Fields,
    for_tls: Fields,
    /// Fields and values that stand for TLS.
    tls_signs: Vec<(FieldName, Box<str>)>,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let mut faults = Faults::default();
    let mut compile = |map: &serde_json::Map<String, Value>, path: &str| (!map.is_empty()).then(|| edits(map, path, &mut faults));
    let request = compile(&config.custom_request_headers, "custom_request_headers");
    let response = compile(&config.custom_response_headers, "custom_response_headers");
    faults.into_result()?;
    let hosts = if config.is_development { &[][..] } else { &config.allowed_hosts };
    let signs = config
        .ssl_proxy_headers
        .iter()
        .map(|(name, value)| (FieldName::new(name.clone()), value.as_str().unwrap_or_default().into()));
    Ok(Arc::new(Headers {
        hosts: hosts.iter().map(|host| host.to_ascii_lowercase().into()).collect(),
        for_all: security::for_all(&config),
        for_tls: security::for_tls(&config),
        tls_signs: signs.collect(),
        host_fields: config.hosts_proxy_headers.into_iter().map(FieldName::new).collect(),
        request,
        response,
    }))
}

impl Filter for Headers {
    fn phases(&self) -> Phases {
        let edits_request = self.request.is_some() || !self.hosts.is_empty();
        let edits_response = self.response.is_some() || !self.for_all.is_empty() || !self.for_tls.is_empty();
        match (edits_request, edits_response) {
            (true, true) => Phases::REWRITE.and(Phases::RESPONSE_HEAD),
            (true, false) => Phases::REWRITE,
            (false, _) => Phases::RESPONSE_HEAD,
        }
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        if !self.hosts.is_empty() && !self.allows(x) {
            return Flow::Answer(Box::new(Answer::empty(500, Reason::Plugin)));
        }
        if let Some(host) = self.request.as_ref().and_then(|edits| edits.apply_to_request(x, &[])).filter(|host| !host.is_empty())
        {
            x.host_override = Some(host);
        }
        Flow::Continue
    }

    fn response_head(&self, x: &mut Exchange, head: &mut ResponseHead) {
        head.fields.set_all(&self.for_all);
        if !self.for_tls.is_empty() && self.came_by_tls(x) {
            head.fields.set_all(&self.for_tls);
        }
        if let Some(edits) = &self.response {
            edits.apply_to_response(x, &mut head.fields);
        }
    }
}

impl Headers {
    fn allows(&self, x: &Exchange) -> bool {
        let named = self.host_fields.iter().find_map(|name| x.request.fields.get_named(name).filter(|host| !host.is_empty()));
        let host = named.unwrap_or(x.request.authority.as_bytes());
        let bare = match host.iter().rposition(|byte| *byte == b':') {
            Some(colon) if host[colon + 1..].iter().all(u8::is_ascii_digit) => &host[..colon],
            _ => host,
        };
        let is = |allowed: &str, host: &[u8]| allowed.as_bytes().eq_ignore_ascii_case(host);
        self.hosts.iter().any(|allowed| is(allowed, host) || is(allowed, bare))
    }

    fn came_by_tls(&self, x: &Exchange) -> bool {
        let says = |(name, value): &(FieldName, Box<str>)| {
            x.request.fields.get_named(name).is_some_and(|told| told.eq_ignore_ascii_case(value.as_bytes()))
        };
        x.connection.tls.is_some() || self.tls_signs.iter().any(says)
    }
}
