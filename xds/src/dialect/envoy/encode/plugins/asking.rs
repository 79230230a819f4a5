//! Services of others that filters ask, each behind a cluster of its own. It knows no filter.

use std::sync::Arc;
use std::time::Duration;

use super::super::route::Draft;
use super::paths::copies;
use crate::model::{KeepalivePool, Scheme, Upstream};
use crate::snapshot::version_of;

/// What names of clusters of such services begin with; no upstream is called so.
pub(in super::super) const ASKED: &str = "asked/";
/// Fetches of keys under way at once.
pub(super) const FEW: u64 = 4;

/// A cluster beside those of upstreams.
#[derive(Debug, Clone)]
pub(in super::super) struct Extra {
    /// An upstream that nobody wrote.
    pub(in super::super) upstream: Upstream,
    /// What is done with requests on the way to it, and with answers on the way back.
    pub(in super::super) script: Option<String>,
}

/// The cluster of a URL.
pub(super) fn cluster(url: &str, (verify, most): (bool, u64), draft: &mut Draft) -> Result<String, String> {
    let (scheme, host) = place(url)?;
    let name: Arc<str> = format!("{ASKED}{}/{most}", called(scheme, host, verify)).into();
    let upstream = copies(&name, scheme, host, (verify, most));
    draft.copies.insert(name.clone(), Extra { upstream, script: None });
    Ok(name.to_string())
}

/// The cluster of a URL that is asked by a script, over connections that rest for so long, or are not used again.
pub(super) fn scripted(
    url: &str,
    (verify, most): (bool, u64),
    (script, rest): (String, Option<Duration>),
    draft: &mut Draft,
) -> Result<String, String> {
    let (scheme, host) = place(url)?;
    let keepalive = match rest {
        Some(idle_timeout) => KeepalivePool { idle_timeout, ..KeepalivePool::default() },
        None => KeepalivePool { requests: 1, ..KeepalivePool::default() },
    };
    let told = version_of(format!("{script} {rest:?}").as_bytes());
    let name: Arc<str> = format!("{ASKED}{}/{most}/{told}", called(scheme, host, verify)).into();
    let upstream = Upstream { keepalive, ..copies(&name, scheme, host, (verify, most)) };
    draft.copies.insert(name.clone(), Extra { upstream, script: Some(script) });
    Ok(name.to_string())
}

/// The host of a URL with its port, as it is written, and the path with its query.
pub(super) fn parts(url: &str) -> (&str, String) {
    let (_, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split('#').next().unwrap_or_default();
    let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    (host, if path.starts_with('/') { path.to_owned() } else { format!("/{path}") })
}

fn called(scheme: Scheme, host: &str, verify: bool) -> String {
    let kind = if scheme == Scheme::Https { "https" } else { "http" };
    format!("{kind}://{host}{}", if verify { "" } else { "/unverified" })
}

fn place(url: &str) -> Result<(Scheme, &str), String> {
    let scheme = match url.split_once("://") {
        Some(("https", _)) => Scheme::Https,
        Some(("http", _)) => Scheme::Http,
        _ => return Err(format!("expected http or https, found `{url}`")),
    };
    match parts(url).0 {
        host if host.is_empty() || host.contains('@') => Err(format!("expected a host, found `{url}`")),
        host => Ok((scheme, host)),
    }
}
