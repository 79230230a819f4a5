//! What is signed, and how a signature is written: a pure parser and a pure writer. They know neither keys nor requests.

/// Most parameters of a signature, and most fields that it may cover.
const MAX_PARTS: usize = 64;

/// The part of a signed request that is method and target.
pub const REQUEST_TARGET: &str = "@request-target";

/// What `Authorization: Signature keyId="…",algorithm="…",headers="…",signature="…"` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Signature<'a> {
    /// What it names the consumer by.
    pub key_id: &'a str,
    /// Name of the algorithm.
    pub algorithm: &'a str,
    /// Names of what is signed, in order.
    pub headers: Vec<&'a str>,
    /// Base64.
    pub signature: &'a str,
}

/// Why it says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not `name="value"` with commas between.
    #[error("expected parameters such as keyId=\"…\" with commas between them")]
    Form,
    /// The same parameter twice: who is right?
    #[error("a parameter stands there twice")]
    Twice,
    /// Without these nobody can be found.
    #[error("keyId or signature missing")]
    Missing,
    /// An algorithm must be named.
    #[error("algorithm missing")]
    NoAlgorithm,
    /// More than 64 parameters or fields.
    #[error("too many parameters or headers")]
    TooMany,
}

/// Reads what stands behind `Signature `. Unknown parameters are passed over.
pub fn parse(text: &str) -> Result<Signature<'_>, Malformed> {
    let mut found = [None; 4];
    let mut rest = text.trim();
    for _ in 0..MAX_PARTS {
        let (name, behind) = rest.split_once("=\"").ok_or(Malformed::Form)?;
        let (value, behind) = behind.split_once('"').ok_or(Malformed::Form)?;
        let name = name.trim();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Malformed::Form);
        }
        if let Some(place) = ["keyId", "algorithm", "headers", "signature"].iter().position(|known| *known == name)
            && found[place].replace(value).is_some()
        {
            return Err(Malformed::Twice);
        }
        rest = behind.trim_start();
        if rest.is_empty() {
            return signature(found);
        }
        rest = rest.strip_prefix(',').ok_or(Malformed::Form)?.trim_start();
    }
    Err(Malformed::TooMany)
}

fn signature(found: [Option<&str>; 4]) -> Result<Signature<'_>, Malformed> {
    let [key_id, algorithm, headers, signature] = found.map(Option::unwrap_or_default);
    if key_id.is_empty() || signature.is_empty() {
        return Err(Malformed::Missing);
    }
    if algorithm.is_empty() {
        return Err(Malformed::NoAlgorithm);
    }
    let headers: Vec<_> = headers.split_ascii_whitespace().collect();
    if headers.len() > MAX_PARTS { Err(Malformed::TooMany) } else { Ok(Signature { key_id, algorithm, headers, signature }) }
}

/// The text that is signed: the key id, then a line for each name, each line with its end. What the request does not have has no line.
/// `lookup` tells the value of a field.
pub fn signed_text<V: AsRef<[u8]>>(
    signature: &Signature<'_>,
    method: &str,
    target: &str,
    lookup: impl Fn(&str) -> Option<V>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(signature.key_id.as_bytes());
    for name in &signature.headers {
        if *name == REQUEST_TARGET {
            out.push(b'\n');
            out.extend_from_slice(method.as_bytes());
            out.push(b' ');
            out.extend_from_slice(target.as_bytes());
        } else if let Some(value) = lookup(name) {
            out.push(b'\n');
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_ref());
        }
    }
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_signed_is_what_clients_of_apisix_sign() {
        let signature =
            parse("keyId=\"john\",algorithm=\"hmac-sha256\",headers=\"@request-target date x-none\",signature=\"c2ln\"").unwrap();
        let date = "Fri, 06 Sep 2024 06:41:29 GMT";
        let text = signed_text(&signature, "GET", "/get?a=1", |name| (name == "date").then_some(date.as_bytes()));
        assert_eq!(String::from_utf8(text).unwrap(), format!("john\nGET /get?a=1\ndate: {date}\n"));
    }

    #[test]
    fn malformed_signatures_are_told_apart() {
        for (text, error) in [
            ("", Malformed::Form),
            ("keyId", Malformed::Form),
            ("keyId=\"a", Malformed::Form),
            ("keyId=\"a\" signature=\"b\"", Malformed::Form),
            ("keyId=\"a\",", Malformed::Form),
            ("key id=\"a\"", Malformed::Form),
            ("keyId=\"a\",keyId=\"b\",signature=\"c\"", Malformed::Twice),
            ("keyId=\"a\",algorithm=\"b\"", Malformed::Missing),
            ("keyId=\"\",signature=\"b\"", Malformed::Missing),
            ("keyId=\"a\",signature=\"b\"", Malformed::NoAlgorithm),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
        assert_eq!(parse(&"a=\"b\",".repeat(100)), Err(Malformed::TooMany));
        let many = format!("keyId=\"a\",algorithm=\"b\",signature=\"c\",headers=\"{}\"", "d ".repeat(65));
        assert_eq!(parse(&many), Err(Malformed::TooMany));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            key_id in "[a-z0-9-]{1,10}", headers in prop::collection::vec("[@a-z-]{1,8}", 0..6), sig in "[A-Za-z0-9+/=]{1,20}",
            blank in "[ ]{0,2}", other in prop::option::of("[a-z0-9]{1,5}"),
        ) {
            let other = other.map(|value| format!("x=\"{value}\",{blank}")).unwrap_or_default();
            let names = headers.join(" ");
            let text = format!("{other}headers=\"{names}\",{blank}keyId=\"{key_id}\"{blank},algorithm=\"hmac-sha1\",{blank}signature=\"{sig}\"{blank}");
            let expected = Signature { key_id: &key_id, algorithm: "hmac-sha1", headers: headers.iter().map(String::as_str).collect(), signature: &sig };
            prop_assert_eq!(parse(&text), Ok(expected));
        }

        #[test]
        fn no_text_makes_the_parser_fall(text in "[a-zA-Z=\", ]{0,80}", any in ".{0,60}") {
            let _ = (parse(&text), parse(&any));
        }

        /// Two requests that differ in something signed never have the same text.
        #[test]
        fn each_part_counts(a in "[!-~]{1,10}", b in "[!-~]{1,10}", target in "/[!-~]{0,10}", other in "/[!-~]{0,10}") {
            let signature = Signature { key_id: "k", algorithm: "", headers: vec!["x", REQUEST_TARGET, "y"], signature: "" };
            let text = |x: &str, y: &str, target: &str| {
                signed_text(&signature, "GET", target, |name| Some(if name == "x" { x.to_owned() } else { y.to_owned() }).map(|value| &*value.into_bytes().leak()))
            };
            prop_assert_eq!(text(&a, &b, &target) == text(&b, &a, &other), a == b && target == other);
        }
    }
}
