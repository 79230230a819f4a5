//! A cookie that a plugin gives to clients (RFC 6265): its configuration, and the field that sets it. It knows not what the value means.

use schemars::JsonSchema;
use serde::Deserialize;
use xxhash_rust::xxh64::xxh64;

use super::check::Faults;
use crate::http::Fields;

/// How a cookie is set; the names are those of its attributes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cookie {
    /// Name; made from the place of the configuration when absent, so that two routes do not disturb each other.
    pub name: Option<String>,
    /// Sent back over TLS only.
    #[serde(default)]
    pub secure: bool,
    /// Not shown to scripts.
    #[serde(default)]
    pub http_only: bool,
    /// Whether it goes along with requests from other sites; the browser's default when absent.
    pub same_site: Option<SameSite>,
    /// Seconds that it lives; with 0 until the browser is closed.
    #[serde(default)]
    pub max_age: u32,
    /// The paths below which it is sent back.
    #[serde(default = "root")]
    pub path: String,
    /// The domain whose hosts get it back; only the host that set it when absent.
    pub domain: Option<String>,
}

/// Whether a cookie goes along with requests from other sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SameSite {
    /// Always; browsers then want `secure`.
    None,
    /// When the user follows a link.
    Lax,
    /// Never.
    Strict,
}

fn root() -> String {
    "/".to_owned()
}

impl Default for Cookie {
    fn default() -> Cookie {
        Cookie { name: None, secure: false, http_only: false, same_site: None, max_age: 0, path: root(), domain: None }
    }
}

/// A cookie, laid out as far as it is the same for all clients.
#[derive(Debug)]
pub(crate) struct SetCookie {
    name: String,
    /// What follows the value.
    attributes: String,
}

impl Cookie {
    /// Adds what is wrong with it, under `path`.
    pub(crate) fn validate(&self, path: &str, faults: &mut Faults) {
        if self.name.as_ref().is_some_and(|name| name.is_empty() || !name.bytes().all(is_token)) {
            faults.add(format!("{path}.name"), "expected letters, digits or any of !#$%&'*+-.^_`|~");
        }
        let attributes = [("path", Some(&self.path)), ("domain", self.domain.as_ref())];
        for (name, value) in attributes {
            if value.is_some_and(|value| value.bytes().any(|byte| byte == b';' || !(0x20..0x7f).contains(&byte))) {
                faults.add(format!("{path}.{name}"), "expected printable ASCII without ;");
            }
        }
        if self.same_site == Some(SameSite::None) && !self.secure {
            faults.add(format!("{path}.same_site"), "browsers drop a cookie with same_site none that is not secure: set secure");
        }
    }

    /// Lays it out; `place` is where its configuration stands (`route/r1`), for a name that is not given.
    pub(crate) fn compile(&self, place: &str) -> SetCookie {
        let mut attributes = format!("; Path={}", self.path);
        let mut add = |text: String| attributes.push_str(&text);
        if let Some(domain) = &self.domain {
            add(format!("; Domain={domain}"));
        }
        if self.max_age > 0 {
            add(format!("; Max-Age={}", self.max_age));
        }
        if self.secure {
            add("; Secure".to_owned());
        }
        if self.http_only {
            add("; HttpOnly".to_owned());
        }
        if let Some(same_site) = self.same_site {
            add(format!("; SameSite={same_site:?}"));
        }
        let name = self.name.clone().unwrap_or_else(|| format!("_{:08x}", xxh64(place.as_bytes(), 0) >> 32));
        SetCookie { name, attributes }
    }
}

impl SetCookie {
    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Sets it to a number, written in hexadecimal digits.
    pub(crate) fn set(&self, value: u64, fields: &mut Fields) {
        fields.append("set-cookie", format!("{}={value:016x}{}", self.name, self.attributes));
    }
}

/// Characters of a token (RFC 9110 section 5.6.2), which the name of a cookie is.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn laid_out(config: serde_json::Value) -> String {
        let cookie: Cookie = serde_json::from_value(config).unwrap();
        let mut fields = Fields::new();
        cookie.compile("route/r1").set(0xab, &mut fields);
        fields.get_str("set-cookie").unwrap().to_owned()
    }

    #[test]
    fn attributes_stand_as_configured() {
        assert_eq!(laid_out(json!({"name": "c"})), "c=00000000000000ab; Path=/");
        let all = json!({"name": "c", "secure": true, "http_only": true, "same_site": "none", "max_age": 60, "path": "/a", "domain": "x.example"});
        assert_eq!(laid_out(all), "c=00000000000000ab; Path=/a; Domain=x.example; Max-Age=60; Secure; HttpOnly; SameSite=None");
        let named = laid_out(json!({"same_site": "lax"}));
        assert!(named.starts_with('_') && named.find('=') == Some(9) && named.ends_with("SameSite=Lax"), "{named}");
        assert_ne!(Cookie::default().compile("route/r1").name, Cookie::default().compile("route/r2").name);
    }

    #[test]
    fn what_would_break_the_field_is_refused() {
        for (config, path) in [
            (json!({"name": "a b"}), "c.name"),
            (json!({"name": ""}), "c.name"),
            (json!({"path": "/;x"}), "c.path"),
            (json!({"domain": "a\nb"}), "c.domain"),
            (json!({"same_site": "none"}), "c.same_site"),
        ] {
            let cookie: Cookie = serde_json::from_value(config).unwrap();
            let mut faults = Faults::default();
            cookie.validate("c", &mut faults);
            let paths: Vec<_> = faults.into_result().unwrap_err().into_iter().map(|fault| fault.path).collect();
            assert_eq!(paths, [path]);
        }
    }
}
