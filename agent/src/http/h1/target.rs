//! Where a request goes: the forms of its target (RFC 9112 section 3.2) and `host[:port]` (RFC 9110 section 4.2). It knows no names that exist.

use std::net::Ipv6Addr;

use super::Fault;
use crate::http::chars::{is_host_name, is_target};
use crate::http::{Method, RequestHead};

/// Longest name (RFC 1035 section 2.3.4) with brackets, colon and port.
const MAX: usize = 253 + 8;

/// Whether `text` is a host with an optional port: a name of letters, digits, `-`, `.`, `_`, `~`, an IPv4 address or an IPv6 address in brackets;
/// no user information, nothing empty.
pub fn is_authority(text: &[u8]) -> bool {
    if text.is_empty() || text.len() > MAX {
        return false;
    }
    let (host_ok, rest) = if text[0] == b'[' {
        let Some(end) = memchr::memchr(b']', text) else { return false };
        let literal = std::str::from_utf8(&text[1..end]).ok();
        (literal.is_some_and(|literal| literal.parse::<Ipv6Addr>().is_ok()), &text[end + 1..])
    } else {
        let end = memchr::memchr(b':', text).unwrap_or(text.len());
        let host = &text[..end];
        (is_host_name(host) && !host.is_empty() && host[0] != b'.' && !host.windows(2).any(|two| two == b".."), &text[end..])
    };
    host_ok && (rest.is_empty() || is_port(rest))
}

fn is_port(rest: &[u8]) -> bool {
    let [b':', digits @ ..] = rest else { return false };
    let small = (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    small && digits.iter().fold(0u32, |sum, digit| sum * 10 + u32::from(digit - b'0')) <= u32::from(u16::MAX)
}

/// Takes the target into the head, whose method is already set. In absolute form the authority is set too, of CONNECT it alone.
pub(super) fn take_target(target: &[u8], lets_connect: bool, head: &mut RequestHead) -> Result<(), Fault> {
    if head.method == Method::Connect {
        return if lets_connect { take_authority(target, head) } else { Err(Fault::Method("CONNECT")) };
    }
    if !is_target(target) {
        return Err(Fault::Malformed("bad byte in the request target"));
    }
    // Visible ASCII, as just checked, so this cannot fail.
    let target = std::str::from_utf8(target).map_err(|_| Fault::Malformed("request target"))?;
    match target.as_bytes() {
        [b'/', ..] => take_path(target, head),
        b"*" if head.method == Method::Options => head.path.push('*'),
        _ => take_absolute(target, head)?,
    }
    Ok(())
}

/// Authority form (RFC 9112 section 3.2.3): a host with its port, which has no default.
fn take_authority(target: &[u8], head: &mut RequestHead) -> Result<(), Fault> {
    let has_port = target
        .iter()
        .rposition(|byte| *byte == b':')
        .is_some_and(|at| target[at..].len() > 1 && target[at + 1..].iter().all(u8::is_ascii_digit));
    match std::str::from_utf8(target) {
        Ok(authority) if has_port && is_authority(target) => {
            head.authority.push_str(authority);
            head.authority.make_ascii_lowercase();
            Ok(())
        }
        _ => Err(Fault::Malformed("CONNECT wants a host with a port")),
    }
}

fn take_path(target: &str, head: &mut RequestHead) {
    match memchr::memchr(b'?', target.as_bytes()) {
        Some(mark) => {
            head.path.push_str(&target[..mark]);
            head.query = Some(target[mark + 1..].to_owned());
        }
        None => head.path.push_str(target),
    }
}

fn take_absolute(target: &str, head: &mut RequestHead) -> Result<(), Fault> {
    let Some((scheme, rest)) = target.split_once("://") else { return Err(Fault::Malformed("request target")) };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Fault::Malformed("scheme of the request target"));
    }
    head.asks_tls = scheme.len() == "https".len();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !is_authority(authority.as_bytes()) {
        return Err(Fault::Malformed("authority of the request target"));
    }
    head.authority.push_str(authority);
    head.authority.make_ascii_lowercase();
    match (path.as_bytes().first(), &head.method) {
        (None, Method::Options) => head.path.push('*'),
        (None, _) => head.path.push('/'),
        (Some(b'?'), _) => {
            head.path.push('/');
            head.query = Some(path[1..].to_owned());
        }
        _ => take_path(path, head),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_and_without_port_pass() {
        for good in ["a", "a.example", "A.Example:80", "127.0.0.1:8080", "[::1]", "[2001:db8::1]:443", "my_svc", "a.example."] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
    }

    #[test]
    fn connect_names_a_host_with_its_port_where_it_is_let_in() {
        let take = |target: &str, lets_connect| {
            let mut head = RequestHead { method: Method::Connect, ..RequestHead::default() };
            take_target(target.as_bytes(), lets_connect, &mut head).map(|()| (head.authority, head.path))
        };
        for good in ["a.Example:80", "127.0.0.1:1", "[::1]:443"] {
            assert_eq!(take(good, true), Ok((good.to_ascii_lowercase(), String::new())));
            assert_eq!(take(good, false), Err(Fault::Method("CONNECT")));
        }
        for bad in ["a", "a:", "[::1]", "u@a:1", "http://a:1/", "/a:1", "a:99999", ""] {
            assert!(matches!(take(bad, true), Err(Fault::Malformed(_))), "{bad}");
        }
    }

    #[test]
    fn what_others_could_read_differently_does_not() {
        let bad = "|:80|a:|a:80:80|a:x|a:65536|a:+80|u@a|u:p@a|a,b|a b|a/b|a#b|a?b|a\\b|[::1|::1|[::1]x|[a]|.a|a..b|a%41|a\u{0}|é|[fe80::1%25eth0]";
        for bad in bad.split('|') {
            assert!(!is_authority(bad.as_bytes()), "{bad:?}");
        }
        assert!(!is_authority(&[b'a'; 300]));
    }
}
