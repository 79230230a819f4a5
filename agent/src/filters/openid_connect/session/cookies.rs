//! Cookies: a long value cut into several and put together again, their attributes, and taking them out of a request. It knows nothing of what they hold.

use std::fmt::Write;

use super::super::config::{CookiePriority, SameSite, SessionConfig};
use crate::http::{Fields, Name, RequestHead};

/// Bytes of value in one cookie: browsers take 4096 for name, value and attributes together (RFC 6265 section 6.1).
const CHUNK: usize = 3_500;

/// Most cookies of one value. With their names they must fit into one field of a request, which listeners bound at 32 KiB.
const MAX_CHUNKS: usize = 6;

/// Most bytes of a value.
const MAX_VALUE: usize = CHUNK * MAX_CHUNKS;

/// Logins of one browser that may be under way at the same time; each has a cookie of its own.
const LOGINS: u8 = 4;

/// How a cookie looks.
pub(crate) struct Shape {
    name: Box<str>,
    /// Everything from the path to the end, without `Secure`.
    attributes: Box<str>,
    login_attributes: Box<str>,
    secure: Option<bool>,
}

impl Shape {
    /// Compiles the attributes.
    pub(crate) fn new(config: &SessionConfig) -> Shape {
        let mut common = format!("; Path={}", config.cookie_path);
        if let Some(domain) = &config.cookie_domain {
            let _ = write!(common, "; Domain={domain}");
        }
        let same_site = match config.cookie_same_site {
            SameSite::Strict => "Strict",
            SameSite::Lax => "Lax",
            SameSite::None => "None",
        };
        let mut attributes = format!("{common}; SameSite={same_site}");
        if config.cookie_http_only {
            attributes.push_str("; HttpOnly");
        }
        if let Some(priority) = config.cookie_priority {
            let priority = match priority {
                CookiePriority::Low => "Low",
                CookiePriority::Medium => "Medium",
                CookiePriority::High => "High",
            };
            let _ = write!(attributes, "; Priority={priority}");
        }
        // The provider sends people back from another site, so a strict cookie would not come along.
        let login_site = if config.cookie_same_site == SameSite::None { "None" } else { "Lax" };
        let mut login_attributes = format!("{common}; SameSite={login_site}; HttpOnly");
        if config.cookie_partitioned {
            attributes.push_str("; Partitioned");
            login_attributes.push_str("; Partitioned");
        }
        Shape {
            name: config.cookie_name.as_str().into(),
            attributes: attributes.into(),
            login_attributes: login_attributes.into(),
            secure: config.cookie_secure,
        }
    }

    /// The lines of `Set-Cookie` that keep a value, and that take back those cookies of the value before (`had` of them) that are not used
    /// any more. `None` when the value is too long.
    pub(crate) fn keep(&self, value: &str, had: usize, https: bool) -> Option<Vec<String>> {
        if value.len() > MAX_VALUE {
            return None;
        }
        let count = value.len().div_ceil(CHUNK).max(1);
        let secure = self.secure(https);
        let mut lines = Vec::with_capacity(count.max(had));
        for number in 1..=count {
            let start = (number - 1) * CHUNK;
            let piece = value.get(start..value.len().min(start + CHUNK))?;
            let count = if number == 1 { count.to_string() } else { String::new() };
            lines.push(format!("{}={count}{piece}{}{secure}", self.chunk_name(number), self.attributes));
        }
        lines.extend((count + 1..=had).map(|number| self.gone(&self.chunk_name(number), &self.attributes, https)));
        Some(lines)
    }

    /// The number of the last cookie of a value that a request carries, 0 without one.
    pub(crate) fn held(&self, head: &RequestHead) -> usize {
        (1..=MAX_CHUNKS).rev().find(|number| head.cookie(&self.chunk_name(*number)).is_some()).unwrap_or(0)
    }

    /// The value that a request carries.
    pub(crate) fn find(&self, head: &RequestHead) -> Option<String> {
        let first = head.cookie(&self.name)?;
        let count = usize::from(first.bytes().next()?.checked_sub(b'0')?);
        if !(1..=MAX_CHUNKS).contains(&count) {
            return None;
        }
        let mut value = first.get(1..)?.to_owned();
        for number in 2..=count {
            value.push_str(head.cookie(&self.chunk_name(number))?);
            if value.len() > MAX_VALUE {
                return None;
            }
        }
        Some(value)
    }

    /// The lines that take the session back from a request's sender.
    pub(crate) fn forget(&self, head: &RequestHead, https: bool) -> Vec<String> {
        let names = (1..=MAX_CHUNKS).map(|number| self.chunk_name(number));
        let held = names.filter(|name| head.cookie(name).is_some());
        held.map(|name| self.gone(&name, &self.attributes, https)).collect()
    }

    /// The line that keeps a login under way.
    pub(crate) fn keep_login(&self, state: &str, value: &str, seconds: u64, https: bool) -> String {
        format!("{}={value}{}; Max-Age={seconds}{}", self.login_name(state), self.login_attributes, self.secure(https))
    }

    /// The login of this state that a request carries, still sealed.
    pub(crate) fn find_login<'a>(&self, head: &'a RequestHead, state: &str) -> Option<&'a str> {
        head.cookie(&self.login_name(state)).filter(|value| value.len() <= CHUNK)
    }

    /// The line that takes a login back.
    pub(crate) fn forget_login(&self, state: &str, https: bool) -> String {
        self.gone(&self.login_name(state), &self.login_attributes, https)
    }

    /// Takes the cookies of this shape out of a request, so that upstreams never see them.
    pub(crate) fn hide(&self, fields: &mut Fields) {
        let ours = |pair: &[u8]| {
            let name = pair.trim_ascii_start().split(|byte| *byte == b'=').next().unwrap_or_default();
            name.strip_prefix(self.name.as_bytes()).is_some_and(is_suffix)
        };
        if !fields.get_all_known(Name::Cookie).any(|line| line.split(|byte| *byte == b';').any(ours)) {
            return;
        }
        let mut rest: Vec<u8> = Vec::new();
        for pair in fields.get_all_known(Name::Cookie).flat_map(|line| line.split(|byte| *byte == b';')) {
            let pair = pair.trim_ascii();
            if pair.is_empty() || ours(pair) {
                continue;
            }
            if !rest.is_empty() {
                rest.extend_from_slice(b"; ");
            }
            rest.extend_from_slice(pair);
        }
        fields.remove_known(Name::Cookie);
        if !rest.is_empty() {
            fields.append_known(Name::Cookie, rest);
        }
    }

    fn chunk_name(&self, number: usize) -> String {
        if number == 1 { self.name.to_string() } else { format!("{}_{number}", self.name) }
    }

    fn login_name(&self, state: &str) -> String {
        format!("{}_login_{}", self.name, state.bytes().next().unwrap_or_default() % LOGINS)
    }

    fn secure(&self, https: bool) -> &'static str {
        if self.secure.unwrap_or(https) { "; Secure" } else { "" }
    }

    fn gone(&self, name: &str, attributes: &str, https: bool) -> String {
        format!("{name}={attributes}; Max-Age=0{}", self.secure(https))
    }
}

/// Whether this, behind the name, makes it one of our cookies.
fn is_suffix(rest: &[u8]) -> bool {
    match rest {
        [] => true,
        [b'_', number] => (b'2'..=b'0' + MAX_CHUNKS as u8).contains(number),
        _ => rest.strip_prefix(b"_login_").is_some_and(|slot| matches!(slot, [digit] if (b'0'..b'0' + LOGINS).contains(digit))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn shape(change: impl FnOnce(&mut SessionConfig)) -> Shape {
        let mut config = SessionConfig::default();
        change(&mut config);
        Shape::new(&config)
    }

    /// A request with the cookies that a browser holds after these lines.
    fn browser(lines: &[String]) -> RequestHead {
        let mut head = RequestHead::default();
        let pairs: Vec<_> =
            lines.iter().filter(|line| !line.contains("Max-Age=0")).map(|line| line.split(';').next().unwrap()).collect();
        head.fields.append("Cookie", format!("a=1; {}; b=2", pairs.join("; ")));
        head
    }

    #[test]
    fn attributes_follow_the_options_and_the_scheme() {
        let usual = shape(|_| {}).keep("v", 0, false).unwrap();
        assert_eq!(usual, ["session=1v; Path=/; SameSite=Lax; HttpOnly"]);
        assert_eq!(shape(|_| {}).keep("v", 0, true).unwrap(), ["session=1v; Path=/; SameSite=Lax; HttpOnly; Secure"]);
        let all = shape(|config| {
            config.cookie_name = "__Host-x".to_owned();
            config.cookie_path = "/app".to_owned();
            config.cookie_domain = Some("a.example".to_owned());
            config.cookie_secure = Some(true);
            config.cookie_http_only = false;
            config.cookie_same_site = SameSite::Strict;
            config.cookie_priority = Some(CookiePriority::High);
            config.cookie_partitioned = true;
        });
        let text = "; Path=/app; Domain=a.example; SameSite=Strict; Priority=High; Partitioned; Secure";
        assert_eq!(all.keep("v", 0, false).unwrap(), [format!("__Host-x=1v{text}")]);
        let login = "__Host-x_login_1=w; Path=/app; Domain=a.example; SameSite=Lax; HttpOnly; Partitioned; Max-Age=600; Secure";
        assert_eq!(all.keep_login("a", "w", 600, false), login);
        assert!(shape(|config| config.cookie_secure = Some(false)).keep("v", 0, true).unwrap()[0].ends_with("HttpOnly"));
    }

    #[test]
    fn what_shrinks_takes_its_other_cookies_back() {
        let shape = shape(|_| {});
        let lines = shape.keep("v", 3, false).unwrap();
        assert!(lines[1].starts_with("session_2=; ") && lines[1].contains("Max-Age=0"), "{lines:?}");
        assert_eq!(lines.len(), 3);
        let held = browser(&shape.keep(&"x".repeat(CHUNK + 1), 0, false).unwrap());
        assert_eq!(shape.forget(&held, false).len(), 2);
        assert!(shape.keep(&"x".repeat(MAX_VALUE + 1), 0, false).is_none());
    }

    #[test]
    fn only_our_own_cookies_are_hidden() {
        let shape = shape(|_| {});
        let mut fields = Fields::new();
        fields
            .append("Cookie", "session=1x; session_2=y; sessions=keep; session_x=keep; session_login_3=z; session_login_9=keep");
        fields.append("Cookie", "other=1");
        shape.hide(&mut fields);
        assert_eq!(fields.get_str("cookie"), Some("sessions=keep; session_x=keep; session_login_9=keep; other=1"));
        let mut fields = Fields::new();
        fields.append("Cookie", "session=1x");
        shape.hide(&mut fields);
        assert_eq!(fields.len(), 0);
    }

    #[test]
    fn pieces_that_are_missing_or_too_many_are_no_session() {
        let shape = shape(|_| {});
        for cookie in ["session=", "session=0x", "session=7x", "session=2x", "session=é", "x=1"] {
            let mut head = RequestHead::default();
            head.fields.append("Cookie", cookie);
            assert!(shape.find(&head).is_none(), "{cookie}");
        }
        let mut head = RequestHead::default();
        head.fields.append("Cookie", format!("session=3x; session_2={0}; session_3={0}", "y".repeat(MAX_VALUE)));
        assert!(shape.find(&head).is_none());
    }

    proptest! {
        #[test]
        fn what_is_cut_is_put_together_again(length in 0usize..MAX_VALUE) {
            let shape = shape(|_| {});
            let value: String = (0..length).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
            let lines = shape.keep(&value, 0, true).unwrap();
            prop_assert!(lines.iter().all(|line| line.len() <= 4096));
            let held = browser(&lines);
            prop_assert_eq!(shape.held(&held), lines.len());
            prop_assert_eq!(shape.find(&held).unwrap(), value);
        }
    }
}
