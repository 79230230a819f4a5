//! URLs of servers to ask: `http` or `https`, a host, and the target of calls. Everything else is refused in words.

/// The URL of a server to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Whether it is asked over TLS.
    pub https: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// Port, the scheme's own when none is named.
    pub port: u16,
    /// Host and port as `Host` says them: lower-case, the port only when it is not the scheme's own.
    pub authority: String,
    /// Path and query, at least `/`.
    pub target: String,
}

/// Longest URL.
const MAX_LEN: usize = 8 * 1024;

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// In words, with what was expected.
    pub fn parse(text: &str) -> Result<Url, String> {
        let wrong = |why: &str| format!("`{}` is no URL to ask: {why}", shown(text));
        if text.len() > MAX_LEN {
            return Err(wrong("longer than 8 KiB"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("blanks, control and non-ASCII characters must be percent-encoded"));
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("expected http://host/path or https://host/path"))?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(wrong("the scheme is neither http nor https")),
        };
        if rest.contains('#') {
            return Err(wrong("a fragment (#…) is never sent; take it out"));
        }
        let split = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(split);
        if authority.contains('@') {
            return Err(wrong("user and password do not belong into a URL; send them as a header"));
        }
        let (host, port) = host_and_port(authority).map_err(wrong)?;
        let usual = if https { 443 } else { 80 };
        let port = port.unwrap_or(usual);
        let named = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        Ok(Url {
            https,
            authority: if port == usual { named } else { format!("{named}:{port}") },
            host,
            port,
            target: if target.starts_with('/') { target.to_owned() } else { format!("/{target}") },
        })
    }
}

/// Host without brackets, and the port that is named.
fn host_and_port(authority: &str) -> Result<(String, Option<u16>), &'static str> {
    const PORT: &str = "the port is no number from 1 to 65535";
    const HOST: &str = "the host is neither a name nor an address";
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, behind) = rest.split_once(']').ok_or("the bracket of an IPv6 address is not closed")?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| HOST)?;
            (host, if behind.is_empty() { None } else { Some(behind.strip_prefix(':').ok_or(HOST)?) })
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() {
        return Err("the host is missing");
    }
    if !authority.starts_with('[') && !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
        return Err(HOST);
    }
    let port = match port {
        None | Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse::<u16>().ok().filter(|port| *port > 0).ok_or(PORT)?)
        }
        Some(_) => return Err(PORT),
    };
    Ok((host.to_ascii_lowercase(), port))
}

/// The URL for a message, without what may be a password, and not at any length.
fn shown(text: &str) -> String {
    let text = match text.split_once('@') {
        Some((_, behind)) => format!("…@{behind}"),
        None => text.to_owned(),
    };
    match text.char_indices().nth(100) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let parts = |text| {
            let url = Url::parse(text).unwrap();
            (url.https, url.host, url.port, url.authority, url.target)
        };
        let is = |https, host: &str, port, authority: &str, target: &str| {
            (https, host.to_owned(), port, authority.to_owned(), target.to_owned())
        };
        assert_eq!(parts("http://Auth.Example"), is(false, "auth.example", 80, "auth.example", "/"));
        assert_eq!(parts("HTTPS://a:8443/x?y=1"), is(true, "a", 8443, "a:8443", "/x?y=1"));
        assert_eq!(parts("https://a:443?y"), is(true, "a", 443, "a", "/?y"));
        assert_eq!(parts("http://[::1]:81/"), is(false, "::1", 81, "[::1]:81", "/"));
        assert_eq!(parts("http://[::1]"), is(false, "::1", 80, "[::1]", "/"));
        assert_eq!(parts("http://127.0.0.1:/v1"), is(false, "127.0.0.1", 80, "127.0.0.1", "/v1"));
    }

    #[test]
    fn what_is_wrong_is_said_and_passwords_are_not() {
        let wrong = |text: &str| Url::parse(text).unwrap_err();
        for (text, why) in [
            ("auth.example/x", "expected http://host/path"),
            ("ftp://a/", "neither http nor https"),
            ("http://", "host is missing"),
            ("http://:80/", "host is missing"),
            ("http://a:0/", "port"),
            ("http://a:65536/", "port"),
            ("http://a:x/", "port"),
            ("http://[::1/", "not closed"),
            ("http://[a]/", "neither a name"),
            ("http://[::1]x/", "neither a name"),
            ("http://a,b/", "neither a name"),
            ("http://a/b c", "percent-encoded"),
            ("http://a/\u{e9}", "percent-encoded"),
            ("http://a/#x", "fragment"),
        ] {
            assert!(wrong(text).contains(why), "{text}: {}", wrong(text));
        }
        let told = wrong("http://me:hunter2@a/");
        assert!(told.contains("as a header") && !told.contains("hunter2"), "{told}");
        assert!(wrong(&format!("http://a/{}", "x".repeat(9000))).len() < 250);
    }

    proptest! {
        #[test]
        fn whatever_is_taken_is_safe_in_a_request(text in "(https?://)?[a-z0-9.:\\[\\]@/?#% \u{e9}-]{0,40}") {
            if let Ok(url) = Url::parse(&text) {
                prop_assert!(url.target.starts_with('/'));
                prop_assert!(url.target.bytes().chain(url.authority.bytes()).all(|byte| byte.is_ascii_graphic()));
                let again = Url::parse(&format!("{}://{}{}", if url.https { "https" } else { "http" }, url.authority, url.target));
                prop_assert_eq!(again.unwrap(), url);
            }
        }
    }
}
