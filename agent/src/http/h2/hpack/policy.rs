//! Which fields are worth a place in the dynamic table, and which must not have one (RFC 7541 section 7.1). It knows no table.

use super::class::Class;
use crate::http::Name;

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    /// A secret: its size on the wire must not tell a guesser that he is right, here and on every hop behind us.
    Never,
    /// Almost always another value.
    Once,
    /// Indexed when it comes again.
    Learn,
}

/// What becomes of a field with a valid, lower-case name.
pub(super) fn policy(class: Class, name: &[u8]) -> Policy {
    match class {
        Class::Field(Name::Other) => other(name),
        Class::Field(Name::Authorization | Name::ProxyAuthorization | Name::Cookie | Name::XForwardedClientCert) => Policy::Never,
        Class::Field(Name::ContentLength | Name::XRequestId | Name::Traceparent | Name::Tracestate | Name::Location) => {
            Policy::Once
        }
        _ => Policy::Learn,
    }
}

fn other(name: &[u8]) -> Policy {
    match name {
        b"set-cookie"
        | b"x-api-key"
        | b"api-key"
        | b"apikey"
        | b"x-auth-token"
        | b"x-access-token"
        | b"x-csrf-token"
        | b"x-xsrf-token"
        | b"x-amz-security-token" => Policy::Never,
        b"etag" | b"age" | b"expires" | b"last-modified" | b"content-range" | b"range" | b"if-none-match" | b"if-match"
        | b"if-modified-since" | b"x-b3-traceid" | b"x-b3-spanid" | b"x-correlation-id" | b"x-trace-id" => Policy::Once,
        _ => Policy::Learn,
    }
}
