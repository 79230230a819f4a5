//! A set of hosts, and the host of a URL. It knows no requests.

/// A set of hosts, in lower case.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    /// Sorted.
    exact: Vec<Box<[u8]>>,
    /// What the hosts end with that `*…` stands for.
    endings: Vec<Box<[u8]>>,
}

impl Hosts {
    pub(super) fn new(list: &[String]) -> Hosts {
        let mut hosts = Hosts::default();
        for host in list {
            let host = host.to_ascii_lowercase();
            match host.strip_prefix('*') {
                Some(ending) => hosts.endings.push(ending.as_bytes().into()),
                None => hosts.exact.push(host.trim_matches(['[', ']']).as_bytes().into()),
            }
        }
        hosts.exact.sort_unstable();
        hosts
    }

    /// Whether the host, in any case, is in the set.
    pub(super) fn contains(&self, host: &[u8]) -> bool {
        let lower = || host.iter().map(u8::to_ascii_lowercase);
        let ends = |ending: &[u8]| host.len().checked_sub(ending.len()).is_some_and(|at| host[at..].eq_ignore_ascii_case(ending));
        self.exact.binary_search_by(|known| known.iter().copied().cmp(lower())).is_ok()
            || self.endings.iter().any(|ending| ends(ending))
    }
}

/// The host of an absolute http(s) URL, without port; IPv6 without brackets. A URL with user information has none: no browser sends one
/// (RFC 9110 section 10.1.3), and it would hide the host from a careless reader.
pub(super) fn host(url: &[u8]) -> Option<&[u8]> {
    let at = url.iter().position(|byte| *byte == b':')?;
    let scheme = &url[..at];
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return None;
    }
    let rest = url[at + 1..].strip_prefix(b"//")?;
    let end = rest.iter().position(|byte| b"/?#\\".contains(byte)).unwrap_or(rest.len());
    let authority = &rest[..end];
    if authority.contains(&b'@') {
        return None;
    }
    let host = match authority.strip_prefix(b"[") {
        Some(literal) => &literal[..literal.iter().position(|byte| *byte == b']')?],
        None => authority.split(|byte| *byte == b':').next().unwrap_or_default(),
    };
    let host = host.strip_suffix(b".").unwrap_or(host);
    (!host.is_empty()).then_some(host)
}
