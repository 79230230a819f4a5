//! What a client answers to a challenge (RFC 7616 section 3.4): a parser, and the digest that it must have. They know neither consumers nor nonces.

use aws_lc_rs::digest;
use md5::{Digest, Md5};
use schemars::JsonSchema;
use serde::Deserialize;

/// Most parameters of an answer.
const MAX_PARTS: usize = 32;

/// How it is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(super) enum Hash {
    /// MD5, for clients that know no other.
    #[serde(rename = "MD5")]
    Md5,
    /// SHA-256.
    #[serde(rename = "SHA-256")]
    Sha256,
}

impl Hash {
    /// As challenges write it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Hash::Md5 => "MD5",
            Hash::Sha256 => "SHA-256",
        }
    }

    /// Hex digits of a hash.
    pub(super) fn hex_len(self) -> usize {
        match self {
            Hash::Md5 => 32,
            Hash::Sha256 => 64,
        }
    }

    /// The hash of parts with colons between them, in hex.
    pub(super) fn hex(self, parts: &[&str]) -> String {
        let text = parts.join(":");
        match self {
            Hash::Md5 => hex(&Md5::digest(text.as_bytes())),
            Hash::Sha256 => hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// An answer, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub username: String,
    pub realm: String,
    pub nonce: String,
    pub uri: String,
    pub response: String,
    pub hash: Hash,
    /// Whether the password is hashed with nonces (`-sess`).
    pub session: bool,
    /// As it was written, eight hex digits.
    pub count: String,
    pub cnonce: String,
}

impl Response {
    /// Reads what stands behind `Digest `. Only `qop=auth` is understood, which all clients of the last decades send.
    pub(super) fn parse(text: &str) -> Option<Response> {
        let parts = parts(text)?;
        let take = |name: &str| parts.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone());
        let (hash, session) = match take("algorithm").as_deref() {
            None => (Hash::Md5, false),
            Some(name) if name.eq_ignore_ascii_case("MD5") => (Hash::Md5, false),
            Some(name) if name.eq_ignore_ascii_case("MD5-sess") => (Hash::Md5, true),
            Some(name) if name.eq_ignore_ascii_case("SHA-256") => (Hash::Sha256, false),
            Some(name) if name.eq_ignore_ascii_case("SHA-256-sess") => (Hash::Sha256, true),
            Some(_) => return None,
        };
        let count = take("nc").filter(|count| count.len() == 8 && count.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        let response = Response {
            username: take("username")?,
            realm: take("realm")?,
            nonce: take("nonce")?,
            uri: take("uri")?,
            response: take("response").filter(|response| response.len() == hash.hex_len())?.to_ascii_lowercase(),
            hash,
            session,
            count,
            cnonce: take("cnonce")?,
        };
        (take("qop").as_deref() == Some("auth")).then_some(response)
    }

    /// How often the nonce was used, as the client counts.
    pub(super) fn number(&self) -> u32 {
        u32::from_str_radix(&self.count, 16).unwrap_or(0)
    }

    /// The digest that a request must have, by the hash of name, realm and password.
    pub(super) fn expected(&self, ha1: &str, method: &str) -> String {
        let ha1 = if self.session { self.hash.hex(&[ha1, &self.nonce, &self.cnonce]) } else { ha1.to_owned() };
        let ha2 = self.hash.hex(&[method, &self.uri]);
        self.hash.hex(&[&ha1, &self.nonce, &self.count, &self.cnonce, "auth", &ha2])
    }
}

/// `name=value` and `name="value"` with commas between; a name twice is none.
fn parts(text: &str) -> Option<Vec<(&str, String)>> {
    let mut out: Vec<(&str, String)> = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, behind) = rest.split_once('=')?;
        let name = name.trim();
        let behind = behind.trim_start();
        let (value, behind) = match behind.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let end = behind.find(',').unwrap_or(behind.len());
                let value = behind[..end].trim();
                if value.contains(['"', '\\', ' ']) {
                    return None;
                }
                (value.to_owned(), &behind[end..])
            }
        };
        if out.len() == MAX_PARTS || out.iter().any(|(known, _)| known.eq_ignore_ascii_case(name)) {
            return None;
        }
        out.push((name, value));
        let behind = behind.trim_start();
        rest = if behind.is_empty() { behind } else { behind.strip_prefix(',')?.trim_start() };
    }
    Some(out)
}

/// What stands before the closing quote, and what stands behind it (RFC 9110 section 5.6.4).
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(letters.next()?.1),
            _ => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// The example of RFC 7616 section 3.9.1.
    fn example(algorithm: &str, response: &str) -> String {
        format!(
            "username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\", algorithm={algorithm}, \
             nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", \
             qop=auth, response=\"{response}\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
        )
    }

    #[test]
    fn the_examples_of_the_rfc_hold() {
        for (name, hash, response) in [
            ("MD5", Hash::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
            ("SHA-256", Hash::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let parsed = Response::parse(&example(name, response)).unwrap();
            let ha1 = hash.hex(&["Mufasa", "http-auth@example.org", "Circle of Life"]);
            assert_eq!((parsed.hash, parsed.number(), parsed.expected(&ha1, "GET")), (hash, 1, response.to_owned()));
            assert_ne!(parsed.expected(&ha1, "POST"), response);
        }
        let session = Response::parse(&example("MD5-sess", "8ca523f5e9506fed4657c9700eebdbec")).unwrap();
        assert!(session.session);
    }

    #[test]
    fn what_is_no_answer_is_none() {
        let right = example("MD5", "8ca523f5e9506fed4657c9700eebdbec");
        for (from, to) in [
            ("qop=auth,", ""),
            ("qop=auth", "qop=auth-int"),
            ("nc=00000001", "nc=1"),
            ("nc=00000001", "nc=0000000g"),
            ("algorithm=MD5", "algorithm=SHA-512"),
            ("cnonce=", "nonce="),
            ("response=\"8", "response=\""),
            ("realm=\"", "realm="),
            ("tdS\"", "tdS"),
            (", uri", " uri"),
        ] {
            assert_eq!(Response::parse(&right.replacen(from, to, 1)), None, "{from}");
        }
        let escaped = right.replace("Mufasa", "Mu\\\"fa\\\\sa");
        assert_eq!(Response::parse(&escaped).unwrap().username, "Mu\"fa\\sa");
        assert_eq!(Response::parse(&(0..40).map(|n| format!("a{n}=b,")).collect::<String>()), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_fall(text in "[a-z=\",\\\\ ]{0,60}", any in ".{0,60}") {
            let _ = (Response::parse(&text), Response::parse(&any), parts(&text), parts(&any));
        }
    }
}
