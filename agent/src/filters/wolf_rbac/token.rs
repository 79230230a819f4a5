//! Tokens of wolf as clients carry them: `V1#<appid>#<token of wolf>`. It proves nothing.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::exchange::Exchange;

/// A token, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) appid: String,
    pub(super) wolf: String,
}

/// The token of a request: argument `rbac_token`, field `Authorization`, field or cookie `x-rbac-token`, the first that is there.
pub(super) fn find(x: &Exchange) -> Option<Cow<'_, str>> {
    if let Some(raw) = x.request.query_arg("rbac_token") {
        return Some(percent_decode_str(raw).decode_utf8_lossy());
    }
    let fields = &x.request.fields;
    let found = fields.get_str("authorization").or_else(|| fields.get_str("x-rbac-token"));
    found.or_else(|| x.request.cookie("x-rbac-token")).map(Cow::Borrowed)
}

impl Token {
    /// Takes a token apart; `None` when it is none.
    pub(super) fn parse(text: &str) -> Option<Token> {
        let mut parts = text.splitn(3, '#');
        let (version, appid, wolf) = (parts.next()?, parts.next()?, parts.next()?);
        let sound = version == "V1" && !appid.is_empty() && wolf.bytes().all(|byte| byte.is_ascii_graphic());
        sound.then(|| Token { appid: appid.to_owned(), wolf: wolf.to_owned() })
    }

    /// The text that clients carry.
    pub(super) fn text(appid: &str, wolf: &str) -> String {
        format!("V1#{appid}#{wolf}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_first_version_is_known() {
        let token = Token::parse("V1#shop#a.b.c#d").unwrap();
        assert_eq!((token.appid.as_str(), token.wolf.as_str()), ("shop", "a.b.c#d"));
        for wrong in ["", "V1", "V1#shop", "V2#shop#t", "v1#shop#t", "V1##t", "V1#shop#a b"] {
            assert_eq!(Token::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(appid in "[^#]{1,20}", wolf in "[!-~]{0,40}") {
            prop_assert_eq!(Token::parse(&Token::text(&appid, &wolf)), Some(Token { appid, wolf }));
        }
    }
}
