//! The filter of `redirect`.

use std::sync::Arc;

use regex::Regex;
use serde_json::Value;

use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::{Config, Metadata, Scheme};
use crate::exchange::pattern::{self, Pattern};
use crate::exchange::{Answer, Exchange, Reason, Template};
use crate::http::{Method, Name};

struct Redirect {
    way: Way,
    status: u16,
    encode: bool,
    append_query: bool,
    permanent: bool,
}

enum Way {
    Uri(Template),
    Regex(Pattern, Template),
    /// Over the whole URL.
    Url(Regex, Template),
    /// With the port behind the host, empty for the usual one.
    Scheme(Scheme, Box<str>),
    /// With the port behind the host, empty for the usual one.
    Https(Box<str>),
}

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let metadata: Metadata = context.metadata.map(check::read).transpose()?.unwrap_or_default();
    let bad = |path: &str, error: String| vec![check::fault_at(path, error)];
    let way = if let Some(uri) = &config.uri {
        Way::Uri(Template::new(uri))
    } else if let Some([regex, replacement]) = config.regex_uri.as_deref() {
        let regex = Pattern::new(regex).map_err(|error| bad("regex_uri[0]", error))?;
        Way::Regex(regex, Template::replacement(replacement))
    } else if let Some([regex, replacement]) = config.regex_url.as_deref() {
        let regex = pattern::compile(regex, "").map_err(|error| bad("regex_url[0]", error))?;
        Way::Url(regex, Template::replacement(replacement))
    } else if let Some(scheme) = config.scheme {
        Way::Scheme(scheme, port_text(config.port, scheme.usual_port()))
    } else {
        Way::Https(port_text(metadata.https_port, Scheme::Https.usual_port()))
    };
    Ok(Arc::new(Redirect {
        way,
        status: config.ret_code,
        encode: config.encode_uri,
        append_query: config.append_query_string,
        permanent: config.permanent,
    }))
}

/// The port as it stands behind a host.
fn port_text(port: Option<u16>, usual: u16) -> Box<str> {
    port.filter(|port| *port != usual).map(|port| format!(":{port}").into()).unwrap_or_default()
}

impl Filter for Redirect {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        match self.location(x) {
            Some((status, location)) => {
                let mut answer = Answer::empty(status, Reason::Answered);
                answer.head.fields.append_known(Name::Location, self.safe(&location));
                Flow::Answer(Box::new(answer))
            }
            None => Flow::Continue,
        }
    }
}

impl Redirect {
    fn location(&self, x: &Exchange) -> Option<(u16, String)> {
        let mut location = String::new();
        match &self.way {
            Way::Uri(template) => _ = template.render_into(x, &mut location),
            Way::Regex(regex, template) => {
                let path = x.request.path.as_str();
                let found = regex.captures(path)?;
                let whole = found.get(0)?;
                let captures: Vec<&str> =
                    (0..found.len()).map(|index| found.get(index).map_or("", |text| text.as_str())).collect();
                location.push_str(&path[..whole.start()]);
                template.render_with(x, &captures, &mut location);
                location.push_str(&path[whole.end()..]);
            }
            Way::Url(regex, template) => {
                let url = [came_by(x), "://", &x.request.authority, &x.request.target()].concat();
                let new = replaced(regex, template, &url, x)?;
                return (new != url).then(|| (self.status_by_method(x), new));
            }
            Way::Scheme(scheme, port) => {
                let same_host = x.request.authority.strip_prefix(x.request.host()) == Some(port);
                if came_by(x) == scheme.text() && same_host {
                    return None;
                }
                let new = [scheme.text(), "://", x.request.host(), port, &x.request.target()].concat();
                return Some((self.status_by_method(x), new));
            }
            Way::Https(port) => {
                if came_by(x) != "http" {
                    return None;
                }
                let status = if matches!(x.request.method, Method::Get | Method::Head) { 301 } else { 308 };
                return Some((status, ["https://", x.request.host(), port, &x.request.target()].concat()));
            }
        }
        if let Some(query) = x.request.query.as_deref().filter(|query| self.append_query && !query.is_empty()) {
            location.push(if location.contains('?') { '&' } else { '?' });
            location.push_str(query);
        }
        Some((self.status, location))
    }

    /// 301 and 302 for GET; for other methods those that keep the method.
    fn status_by_method(&self, x: &Exchange) -> u16 {
        match (x.request.method == Method::Get, self.permanent) {
            (true, true) => 301,
            (true, false) => 302,
            (false, true) => 308,
            (false, false) => 307,
        }
    }

    /// What may never stand in a field is always encoded; what may not stand in a URI, on demand.
    fn safe(&self, location: &str) -> String {
        let mut out = String::with_capacity(location.len());
        for byte in location.bytes() {
            match byte {
                b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' if self.encode => {
                    out.push_str(&format!("%{byte:02X}"))
                }
                0x21..0x7f => out.push(char::from(byte)),
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
        out
    }
}

/// The scheme that the client used, a proxy in front that may have taken the TLS off heeded.
fn came_by(x: &Exchange) -> &str {
    match x.request.fields.get_known(Name::XForwardedProto) {
        Some(b"https" | b"wss") => "https",
        Some(b"http" | b"ws") => "http",
        Some(other) => std::str::from_utf8(other).unwrap_or_default(),
        None => x.scheme(),
    }
}

/// The text with all matches replaced, `None` when there is none.
fn replaced(regex: &Regex, template: &Template, text: &str, x: &Exchange) -> Option<String> {
    let (mut out, mut end) = (String::new(), 0);
    for found in regex.captures_iter(text) {
        let whole = found.get(0)?;
        let captures: Vec<&str> = (0..found.len()).map(|index| found.get(index).map_or("", |text| text.as_str())).collect();
        out.push_str(&text[end..whole.start()]);
        template.render_with(x, &captures, &mut out);
        end = whole.end();
    }
    if out.is_empty() && end == 0 {
        return None;
    }
    out.push_str(&text[end..]);
    Some(out)
}
