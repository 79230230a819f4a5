//! What becomes of a request once the service has decided. It asks nobody.

use regex::bytes::Regex;

use super::super::asking::{Names, stays};
use super::super::fields::FieldValue;
use super::config::Config;
use super::cookies;
use crate::exchange::{Answer, Exchange, Reason, pattern};
use crate::http::{FieldName, Fields, Name, ResponseHead};
use crate::outbound::{Remote, Reply};

/// Key of the cookies for the client among the values of an exchange.
pub(super) const COOKIES: &str = "forward-auth";

/// What is done with an answer, compiled.
pub(super) struct Verdict {
    upstream: Vec<FieldName>,
    upstream_pattern: Option<Regex>,
    client: Names,
    pub(super) cookies: Vec<String>,
    keeps_location: bool,
    signin: Option<FieldValue>,
    base: String,
}

impl Verdict {
    /// Compiles it; `remote` is the service.
    pub(super) fn new(config: &Config, remote: &Remote) -> Result<Verdict, String> {
        let pattern = config.upstream_headers_regex.as_deref().map(|regex| pattern::compile_bytes(regex, "i")).transpose()?;
        let scheme = if config.uri.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("https:")) { "https" } else { "http" };
        Ok(Verdict {
            upstream: Names::new(&config.upstream_headers).listed,
            upstream_pattern: pattern,
            client: Names::new(&config.client_headers),
            cookies: config.add_auth_cookies_to_response.clone(),
            keeps_location: config.preserve_location_header,
            signin: config.signin_url.as_deref().map(FieldValue::new),
            base: format!("{scheme}://{}{}", remote.authority(), remote.target()),
        })
    }

    /// The service consents: its fields go upstream, its cookies to the client.
    pub(super) fn consent(&self, x: &mut Exchange, reply: &Reply) {
        let (from, to) = (&reply.head.fields, &mut x.request.fields);
        if let Some(pattern) = &self.upstream_pattern {
            to.retain(|field| stays(field.id) || !pattern.is_match(field.name));
            for field in from.iter().filter(|field| !stays(field.id) && pattern.is_match(field.name)) {
                to.push(field.id, field.name, field.value);
            }
        }
        for name in self.upstream.iter().filter(|name| !stays(name.id())) {
            to.remove_named(name);
            from.get_all_named(name).for_each(|value| to.append_named(name, value));
        }
        if !self.cookies.is_empty() {
            let mut lines = cookies::wanted(from, &self.cookies);
            match x.slot_mut::<Vec<Vec<u8>>>(COOKIES) {
                Some(before) => before.append(&mut lines),
                None => x.put(COOKIES, lines),
            }
        }
    }

    /// The service refuses: what the client gets.
    pub(super) fn refusal(&self, x: &Exchange, reply: &Reply) -> Answer {
        if let Some(signin) = self.signin.as_ref().filter(|_| reply.head.status == 401) {
            let mut answer = Answer::empty(302, Reason::Plugin);
            answer.head.fields.append_known(Name::Location, signin.get(x, &[]));
            return answer;
        }
        let mut head = ResponseHead::new(reply.head.status);
        let from = &reply.head.fields;
        if self.client.all {
            from.iter().filter(|field| !stays(field.id)).for_each(|field| head.fields.push(field.id, field.name, field.value));
        } else {
            for name in self.client.listed.iter().filter(|name| !stays(name.id())) {
                head.fields.remove_named(name);
                from.get_all_named(name).for_each(|value| head.fields.append_named(name, value));
            }
            if let Some(kind) = from.get_known(Name::ContentType).filter(|_| !head.fields.contains_known(Name::ContentType)) {
                head.fields.append_known(Name::ContentType, kind);
            }
            // Without it the client could not read what it gets.
            if let Some(coding) =
                from.get_known(Name::ContentEncoding).filter(|_| !head.fields.contains_known(Name::ContentEncoding))
            {
                head.fields.append_known(Name::ContentEncoding, coding);
            }
        }
        if !self.keeps_location {
            complete_location(&mut head.fields, &self.base);
        }
        Answer { head, body: reply.body.clone(), reason: Reason::Plugin }
    }
}

/// Makes a relative `Location` absolute, as seen from the URL of the service (RFC 3986 section 5.2, without dot segments, which clients resolve).
fn complete_location(fields: &mut Fields, base: &str) {
    let Some(location) = fields.get_known(Name::Location).and_then(|value| std::str::from_utf8(value).ok()) else { return };
    let (scheme, behind) = base.split_once("://").unwrap_or(("http", base));
    let host = behind.split(['/', '?']).next().unwrap_or_default();
    let is_absolute = location.find(':').is_some_and(|at| !location[..at].contains(['/', '?', '#']));
    let whole = if is_absolute {
        return;
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{host}{location}")
    } else {
        let path = behind[host.len()..].split('?').next().unwrap_or_default();
        let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
        format!("{scheme}://{host}{folder}{location}")
    };
    fields.set_known(Name::Location, whole);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_completed() {
        for (location, whole) in [
            ("https://x/y", "https://x/y"),
            ("//x/y", "http://a:1"),
            ("/login?a:b", "http://a:1/login?a:b"),
            ("login", "http://a:1/v1/login"),
            ("?q=a:b", "http://a:1/v1/?q=a:b"),
        ] {
            let mut fields = Fields::new();
            fields.append_known(Name::Location, location);
            complete_location(&mut fields, "http://a:1/v1/check?x=/y");
            let expected = if location.starts_with("//") { "http://x/y" } else { whole };
            assert_eq!(fields.get_str("location"), Some(expected));
        }
    }
}
