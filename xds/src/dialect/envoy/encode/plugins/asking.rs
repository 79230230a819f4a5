//! Services of others that filters ask, each behind a cluster of its own. It knows no filter.

use std::sync::Arc;

use super::super::route::Draft;
use super::paths::copies;
use crate::model::Scheme;

/// What names of clusters of such services begin with; no upstream is called so.
pub(in super::super) const ASKED: &str = "asked/";
/// Fetches of keys under way at once.
pub(super) const FEW: u64 = 4;

/// The cluster of a URL.
pub(super) fn cluster(url: &str, (verify, most): (bool, u64), draft: &mut Draft) -> Result<String, String> {
    let (scheme, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (Scheme::Https, rest),
        (_, Some(rest)) => (Scheme::Http, rest),
        _ => return Err(format!("expected http or https, found `{url}`")),
    };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    if host.is_empty() || host.contains('@') {
        return Err(format!("expected a host, found `{url}`"));
    }
    let kind = if scheme == Scheme::Https { "https" } else { "http" };
    let name: Arc<str> = format!("{ASKED}{kind}://{host}{}/{most}", if verify { "" } else { "/unverified" }).into();
    draft.copies.insert(name.clone(), copies(&name, scheme, host, (verify, most)));
    Ok(name.to_string())
}
