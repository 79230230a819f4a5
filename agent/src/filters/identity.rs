//! What all authentication plugins share: writing down who it is, refusing with a challenge, going on as the anonymous consumer. It knows no way of
//! proving who one is.

use std::sync::Arc;

use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::json;

use super::Flow;
use super::check::Faults;
use crate::exchange::{Answer, ConsumerInfo, Exchange, Reason};
use crate::http::Name;

/// Key of the slot (of type [`serde_json::Value`]) under which plugins that ask somebody else who it is keep what they were told, for `acl`.
pub(crate) const EXTERNAL_USER: &str = "external_user";

/// Padding may lack: credentials are put together by hand.
pub(crate) const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// Writes down who it is, for later filters and for the upstream. What the client claimed in these fields is dropped.
pub(crate) fn attach(x: &mut Exchange, consumer: Arc<ConsumerInfo>) {
    consumer.introduce(&mut x.request.fields);
    x.consumer = Some(consumer);
}

/// What becomes of those who prove nothing.
#[derive(Debug, Default)]
pub(crate) struct Guests {
    anonymous: Option<Box<str>>,
}

impl Guests {
    /// They go on as this consumer, where there is one.
    pub(crate) fn new(anonymous: Option<String>) -> Guests {
        Guests { anonymous: anonymous.map(Into::into) }
    }

    /// Goes on as the anonymous consumer where there is one, else refuses.
    pub(crate) fn admit_or(&self, x: &mut Exchange, refusal: &Answer) -> Flow {
        match self.anonymous.as_deref().and_then(|name| x.directory.consumer(name)) {
            Some(consumer) => {
                attach(x, consumer);
                Flow::Continue
            }
            None => Flow::Answer(Box::new(refusal.clone())),
        }
    }
}

/// A refusal with a challenge (RFC 9110 section 11.6.1).
pub(crate) fn challenge(message: &str, challenge: &str) -> Answer {
    let mut answer = refusal(401, message);
    answer.head.fields.append("WWW-Authenticate", challenge);
    answer
}

/// A refusal without one.
pub(crate) fn refusal(status: u16, message: &str) -> Answer {
    Answer::json(status, &json!({ "message": message }), Reason::Plugin)
}

/// What follows the name of a scheme in `Authorization`, for example `Basic`; the case of the scheme does not matter (RFC 9110 section 11.1).
pub(crate) fn after_scheme<'a>(value: &'a str, scheme: &str) -> Option<&'a str> {
    let (name, rest) = value.split_at_checked(scheme.len())?;
    (name.eq_ignore_ascii_case(scheme) && rest.starts_with(' ')).then(|| rest.trim())
}

/// Takes a query argument out of the request.
pub(crate) fn hide_query_arg(x: &mut Exchange, name: &str) {
    let query = x.request.query.take().unwrap_or_default();
    let others = query.split('&').filter(|pair| pair.split('=').next() != Some(name));
    let rest = others.collect::<Vec<_>>().join("&");
    x.request.query = (!rest.is_empty()).then_some(rest);
}

/// Takes a cookie out of the request.
pub(crate) fn hide_cookie(x: &mut Exchange, name: &str) {
    let lines: Vec<String> =
        x.request.fields.get_all_known(Name::Cookie).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    x.request.fields.remove_known(Name::Cookie);
    for line in lines {
        let others = line.split(';').map(str::trim).filter(|pair| pair.split('=').next() != Some(name));
        let rest = others.collect::<Vec<_>>().join("; ");
        if !rest.is_empty() {
            x.request.fields.append_known(Name::Cookie, rest);
        }
    }
}

/// Drops what the client claims to be, for requests that go on without a consumer.
pub(crate) fn disown(x: &mut Exchange) {
    for name in ["X-Consumer-Username", "X-Credential-Identifier", "X-Consumer-Custom-ID"] {
        x.request.fields.remove(name);
    }
}

/// Faults of what most of these plugins are configured with.
pub(crate) fn check_common(realm: &str, anonymous: Option<&str>, faults: &mut Faults) {
    if realm.contains(|c: char| c.is_control() || c == '"' || c == '\\') {
        faults.add("realm", "expected text without quotes, backslashes and control characters");
    }
    if anonymous == Some("") {
        faults.add("anonymous_consumer", "string too short, expected at least 1, got 0");
    }
}

/// Adds a fault when a text that is needed is empty.
pub(crate) fn check_present(path: &str, text: &str, faults: &mut Faults) {
    if text.is_empty() {
        faults.add(path, "string too short, expected at least 1, got 0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::testing::request;

    #[test]
    fn schemes_are_told_whatever_their_case() {
        assert_eq!(after_scheme("Basic abc", "Basic"), Some("abc"));
        assert_eq!(after_scheme("bASIC  abc ", "Basic"), Some("abc"));
        assert_eq!((after_scheme("Basicabc", "Basic"), after_scheme("Bä", "Basic")), (None, None));
        assert_eq!((after_scheme("Basic", "Basic"), after_scheme("Bearer abc", "Basic")), (None, None));
    }

    #[test]
    fn one_argument_or_cookie_of_several_is_taken_out() {
        let mut x = request("GET", "h", "/?jwt=1&a=2&jwt", &[("Cookie", "a=1; jwt=t; b=2"), ("Cookie", "jwt=t")]);
        hide_cookie(&mut x, "jwt");
        assert_eq!(x.request.fields.get_all("cookie").collect::<Vec<_>>(), [b"a=1; b=2"]);
        hide_query_arg(&mut x, "jwt");
        assert_eq!(x.request.query.as_deref(), Some("a=2"));
        hide_query_arg(&mut x, "a");
        assert_eq!(x.request.query, None);
    }
}
