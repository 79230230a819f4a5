//! The filter of `redirect`.

use std::sync::Arc;

use serde_json::Value;

use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::{Config, Metadata};
use crate::exchange::pattern::Pattern;
use crate::exchange::{Answer, Exchange, Reason, Template};
use crate::http::{Method, Name};

struct Redirect {
    way: Way,
    status: u16,
    encode: bool,
    append_query: bool,
}

enum Way {
    Uri(Template),
    Regex(Pattern, Template),
    /// With the port behind the host, empty for the usual one.
    Https(Box<str>),
}

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let metadata: Metadata = context.metadata.map(check::read).transpose()?.unwrap_or_default();
    let way = match (config.uri, config.regex_uri.as_deref()) {
        (Some(uri), _) => Way::Uri(Template::new(&uri)),
        (None, Some([regex, replacement])) => match Pattern::new(regex) {
            Ok(regex) => Way::Regex(regex, Template::replacement(replacement)),
            Err(error) => return Err(vec![check::fault_at("regex_uri[0]", error)]),
        },
        (None, _) => Way::Https(match metadata.https_port {
            None | Some(443) => "".into(),
            Some(port) => format!(":{port}").into(),
        }),
    };
    Ok(Arc::new(Redirect { way, status: config.ret_code, encode: config.encode_uri, append_query: config.append_query_string }))
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
            Way::Https(port) => {
                // A proxy in front may have taken the TLS off.
                let forwarded = x.request.fields.get_known(Name::XForwardedProto);
                if forwarded.unwrap_or(x.scheme().as_bytes()) != b"http" {
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
