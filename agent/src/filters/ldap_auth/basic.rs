//! Name and password as `Authorization: Basic` carries them (RFC 7617). It proves nothing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Most bytes of a field that is looked at.
const MAX_LEN: usize = 4096;

/// Name and password of a field's value. Neither is empty: a directory takes an empty password for somebody who wants to stay unknown (RFC 4513 section
/// 5.1.2), and says yes.
pub(super) fn parse(value: &[u8]) -> Option<(String, String)> {
    if value.len() > MAX_LEN || !value.get(..6)?.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(value[6..].trim_ascii()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    let sound = !name.is_empty() && !password.is_empty() && !text.contains('\0');
    sound.then(|| (name.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<(String, String)> {
        parse(format!("Basic {}", STANDARD.encode(text)).as_bytes())
    }

    #[test]
    fn an_empty_password_is_none() {
        assert_eq!(read("ann:a:b"), Some(("ann".into(), "a:b".into())));
        for wrong in ["ann:", ":x", ":", "ann", "", "ann:\0", "a\0n:x"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
        assert_eq!(parse(b"basic  YTpi "), Some(("a".into(), "b".into())));
        for wrong in [&b"Bearer YTpi"[..], b"Basic", b"Basic %", b""] {
            assert_eq!(parse(wrong), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_sent_is_read(name in "[^:\0]{1,20}", password in "[^\0]{1,20}") {
            prop_assert_eq!(read(&format!("{name}:{password}")), Some((name, password)));
        }
    }
}
