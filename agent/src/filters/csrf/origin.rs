//! Judging by where a request comes from, as Envoy does: it knows no tokens.

use std::sync::Arc;

use bytes::Bytes;
use regex::Regex;

use super::super::{Built, Filter, Flow, Phases, check};
use super::config::ByOrigin;
use crate::exchange::{Answer, Exchange, Reason, pattern};
use crate::http::{Fields, Method, ResponseHead};

struct Origins {
    additional: Vec<Regex>,
    refusal: Answer,
}

pub(super) fn build(config: &ByOrigin) -> Built {
    let one = |text: &String| pattern::compile(text, "").map_err(|error| vec![check::fault_at("by_origin.additional", error)]);
    let additional = config.additional.iter().map(one).collect::<Result<_, _>>()?;
    let mut head = ResponseHead::new(403);
    head.fields.append("content-type", "text/plain");
    let refusal = Answer { head, body: Bytes::from_static(b"Invalid origin"), reason: Reason::Plugin };
    Ok(Arc::new(Origins { additional, refusal }))
}

impl Filter for Origins {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        let changes = matches!(x.request.method, Method::Post | Method::Put | Method::Delete | Method::Patch);
        if !changes || self.lets(&x.request.fields, &x.request.authority) {
            return Flow::Continue;
        }
        Flow::Answer(Box::new(self.refusal.clone()))
    }
}

impl Origins {
    fn lets(&self, fields: &Fields, asked: &str) -> bool {
        let said = |name| fields.get_str(name).map(place).filter(|from| !from.is_empty());
        let Some(from) = said("origin").or_else(|| said("referer")) else { return false };
        from.eq_ignore_ascii_case(asked) || self.additional.iter().any(|pattern| pattern.is_match(from))
    }
}

/// Host and port of an absolute URL; whatever else is taken as it is, so that `null` is an origin, too.
fn place(url: &str) -> &str {
    let Some((scheme, rest)) = url.trim().split_once("://") else { return url.trim() };
    if scheme.is_empty() {
        return url.trim();
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    rest[..end].rsplit_once('@').map_or(&rest[..end], |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_an_origin_is_its_host_and_port() {
        for (url, expected) in [
            ("https://a.example", "a.example"),
            ("http://a.example:8080/x?y", "a.example:8080"),
            ("https://a.example?x", "a.example"),
            ("https://user@a.example/", "a.example"),
            ("null", "null"),
            ("", ""),
        ] {
            assert_eq!(place(url), expected);
        }
    }
}
