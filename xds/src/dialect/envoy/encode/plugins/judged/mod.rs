//! Others who decide whether a request may pass: how Envoy asks them, each by a filter of its own. It knows no route.

pub(super) mod forward;
pub(super) mod grpc;

use heddle_proto::envoy::config::rbac::v3::Principal;
use heddle_proto::envoy::config::rbac::v3::principal::Identifier;
use heddle_proto::envoy::r#type::matcher::v3 as matcher;
use heddle_proto::envoy::r#type::v3 as kinds;

use super::super::wire::exact;
use super::Config;
use super::edits::MOST_FIELD;

/// The usual status where nobody answers.
pub(super) const FORBIDDEN: i32 = 403;
/// Fields between neighbours, which are never copied.
const STAYING: [&str; 12] = [
    "connection",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The status where there is no answer. One that Envoy has no name for would cost it the whole listener.
fn status(config: &Config) -> Result<i32, String> {
    let Some(status) = config.get("status_on_error") else { return Ok(FORBIDDEN) };
    let code = status.as_i64().and_then(|status| i32::try_from(status).ok());
    code.filter(|code| *code >= 200 && kinds::StatusCode::try_from(*code).is_ok())
        .ok_or_else(|| format!("status_on_error: Envoy answers with no status {status}"))
}

/// What this filter has noted under this key.
fn said(filter: &str, key: &str, value: &str) -> Principal {
    let segment = matcher::metadata_matcher::path_segment::Segment::Key(key.to_owned());
    let value = matcher::value_matcher::MatchPattern::StringMatch(exact(value));
    Principal {
        identifier: Some(Identifier::Metadata(matcher::MetadataMatcher {
            filter: filter.to_owned(),
            path: vec![matcher::metadata_matcher::PathSegment { segment: Some(segment) }],
            value: Some(matcher::ValueMatcher { match_pattern: Some(value) }),
            ..Default::default()
        })),
    }
}
