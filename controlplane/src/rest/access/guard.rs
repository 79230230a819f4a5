//! Requests that a browser was tricked into: foreign origins, rebound names, forms. Functions of headers.

use std::net::IpAddr;

use http::{HeaderMap, Uri, header};

use super::Source;

/// Why a body of this content type is not read, if so. Forms and plain text are what a foreign page can send unasked;
/// they are read only with a key in a header, which it cannot send.
pub(in super::super) fn content_type(headers: &HeaderMap, source: Option<Source>) -> Result<(), String> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let text = value.to_str().unwrap_or("?");
    let kind = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "application/json" | "application/yaml" | "application/x-yaml" | "text/yaml" => Ok(()),
        "application/x-www-form-urlencoded" if source == Some(Source::Header) => Ok(()),
        "application/x-www-form-urlencoded" => {
            Err("a body sent as a form is read only with the key in the X-API-KEY header; send Content-Type: application/json"
                .to_owned())
        }
        _ => Err(format!("content type {kind} is not read here; send application/json or application/yaml")),
    }
}

/// Why a request that a browser could have been tricked into is refused, if so. With the key in a header it cannot.
pub(in super::super) fn origin(uri: &Uri, headers: &HeaderMap, source: Option<Source>, allowed: &[String]) -> Result<(), String> {
    if source == Some(Source::Header) {
        return Ok(());
    }
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let host = uri.authority().map(|authority| authority.as_str()).or_else(|| text(header::HOST)).unwrap_or_default();
    if !is_our_name(host, allowed) {
        return Err(format!("the host {host} is not known: use an IP address, localhost, or the X-API-KEY header"));
    }
    let foreign = match text(header::ORIGIN) {
        Some(origin) => origin.split_once("://").is_none_or(|(_, authority)| !authority.eq_ignore_ascii_case(host)),
        None => text(header::HeaderName::from_static("sec-fetch-site")) == Some("cross-site"),
    };
    if foreign { Err("a request from another origin needs the key in the X-API-KEY header".to_owned()) } else { Ok(()) }
}

/// A name that no stranger can let point to us: an address, localhost, one label, or one that the operator listed.
fn is_our_name(host: &str, allowed: &[String]) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok()
        || !name.contains('.')
        || name.ends_with(".localhost")
        || allowed.iter().any(|known| known.eq_ignore_ascii_case(&name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn forms_need_a_header_key() {
        let form = headers(&[("content-type", "application/x-www-form-urlencoded")]);
        assert!(content_type(&form, Some(Source::Header)).is_ok());
        assert!(content_type(&form, Some(Source::Cookie)).is_err());
        assert!(content_type(&form, None).is_err());
        let plain = headers(&[("content-type", "text/plain;charset=UTF-8")]);
        assert!(content_type(&plain, Some(Source::Header)).is_err());
        assert!(content_type(&headers(&[("content-type", "application/json; charset=utf-8")]), None).is_ok());
        assert!(content_type(&HeaderMap::new(), None).is_ok());
    }

    #[test]
    fn rebound_names_and_foreign_origins_are_refused() {
        let uri: Uri = "/admin/routes".parse().unwrap();
        let check =
            |pairs: &[(&'static str, &str)], source| origin(&uri, &headers(pairs), source, &["admin.example.com".to_owned()]);
        let cookie = Some(Source::Cookie);
        for good in ["127.0.0.1:9180", "[::1]:9180", "localhost:9180", "apisix-admin:9180", "admin.example.com", "x.localhost"] {
            assert_eq!(check(&[("host", good)], cookie), Ok(()), "{good}");
            let own = format!("http://{good}");
            assert_eq!(check(&[("host", good), ("origin", &own)], cookie), Ok(()), "{good}");
        }
        assert!(check(&[("host", "evil.example:9180")], cookie).is_err());
        assert!(check(&[("host", "localhost"), ("origin", "http://evil.example")], cookie).is_err());
        assert!(check(&[("host", "localhost"), ("origin", "null")], Some(Source::Query)).is_err());
        assert!(check(&[("host", "localhost"), ("sec-fetch-site", "cross-site")], None).is_err());
        assert_eq!(check(&[("host", "evil.example"), ("origin", "http://a")], Some(Source::Header)), Ok(()));
    }
}
