//! Where a request carries its admin key. Whose key it is it does not know.

use http::{HeaderMap, Uri, header};
use percent_encoding::percent_decode_str;

/// Where a request carried its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Source {
    /// `?api_key=`.
    Query,
    /// `X-API-KEY`, which no foreign web page can send unasked.
    Header,
    /// `x_api_key`, which a browser sends by itself.
    Cookie,
}

/// The key of a request.
pub(in super::super) struct Given {
    pub(in super::super) key: String,
    pub(in super::super) source: Source,
}

/// Finds the key of a request: query before header before cookie.
pub(in super::super) fn given(uri: &Uri, headers: &HeaderMap) -> Option<Given> {
    let in_query = uri.query().and_then(|query| {
        let raw = query.split('&').find_map(|pair| pair.strip_prefix("api_key="))?;
        Some(percent_decode_str(raw).decode_utf8_lossy().into_owned())
    });
    if let Some(key) = in_query {
        return Some(Given { key, source: Source::Query });
    }
    if let Some(key) = headers.get("x-api-key").and_then(|value| value.to_str().ok()) {
        return Some(Given { key: key.to_owned(), source: Source::Header });
    }
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let key = cookies.flat_map(|line| line.split(';')).find_map(|pair| pair.trim().strip_prefix("x_api_key="))?;
    Some(Given { key: key.to_owned(), source: Source::Cookie })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_key_is_found_in_query_header_and_cookie_in_this_order() {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_static("a=b; x_api_key=from-cookie"));
        let plain: Uri = "/admin/routes".parse().unwrap();
        assert_eq!(given(&plain, &headers).map(|g| (g.key, g.source)), Some(("from-cookie".into(), Source::Cookie)));
        headers.insert("x-api-key", HeaderValue::from_static("from-header"));
        assert_eq!(given(&plain, &headers).map(|g| (g.key, g.source)), Some(("from-header".into(), Source::Header)));
        let query: Uri = "/admin/routes?x=1&api_key=from%2Dquery".parse().unwrap();
        assert_eq!(given(&query, &headers).map(|g| (g.key, g.source)), Some(("from-query".into(), Source::Query)));
        assert!(given(&plain, &HeaderMap::new()).is_none());
    }
}
