//! What token and introspection endpoints answer (RFC 6749 section 5, RFC 7662 section 2.2). Functions of values; it opens no connections.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::super::login::word;
use super::super::session::Tokens;
use crate::outbound::Reply;

/// Why a provider gives nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// It cannot be asked, or what it answers makes no sense; in words.
    #[error("{0}")]
    Down(Arc<str>),
    /// It refuses what we show; its error code.
    #[error("the provider refuses: {0}")]
    Refused(Arc<str>),
}

/// What a token endpoint issued.
pub(crate) struct Issued(pub(crate) Tokens);

impl Trouble {
    /// It cannot be asked.
    pub(crate) fn down(error: String) -> Trouble {
        Trouble::Down(error.into())
    }

    /// What an answer means that brings nothing.
    fn of(reply: &Reply) -> Trouble {
        let error = serde_json::from_slice::<Value>(&reply.body).ok().and_then(|body| Some(word(body.get("error")?.as_str()?)));
        match (reply.head.status, error) {
            (400 | 401 | 403, Some(error)) => Trouble::Refused(error.into()),
            (status, _) => Trouble::down(format!("the provider answers {status}")),
        }
    }
}

impl Issued {
    /// Reads what a token endpoint answered at `now`.
    ///
    /// # Errors
    /// It refuses, or its answer makes no sense. The text holds no token.
    pub(crate) fn read(reply: &Reply, now: u64) -> Result<Issued, Trouble> {
        if reply.head.status != 200 {
            return Err(Trouble::of(reply));
        }
        let wrong = |what: &str| Trouble::down(format!("the token endpoint answers {what}"));
        let body: Map<String, Value> = serde_json::from_slice(&reply.body).map_err(|_| wrong("no JSON object"))?;
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        let token = |name: &str| match text(name) {
            Some(token) if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err(wrong("a token with odd characters"))
            }
            token => Ok(token.map(str::to_owned)),
        };
        if text("token_type").is_none_or(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err(wrong("tokens of another type than Bearer"));
        }
        let lifetime = body.get("expires_in").and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
        let tokens = Tokens {
            access: Some(token("access_token")?.ok_or_else(|| wrong("no access_token"))?),
            expires: lifetime.map(|seconds| now.saturating_add(seconds)),
            refresh: token("refresh_token")?,
            id: token("id_token")?,
            scope: text("scope").unwrap_or_default().to_owned(),
        };
        Ok(Issued(tokens))
    }
}

/// Reads what an introspection endpoint answered: the claims of a good token, `None` for all others.
///
/// # Errors
/// It refuses to tell, or its answer makes no sense.
pub(crate) fn introspected(reply: &Reply) -> Result<Option<Map<String, Value>>, Trouble> {
    if reply.head.status != 200 {
        return Err(Trouble::of(reply));
    }
    let body: Map<String, Value> = serde_json::from_slice(&reply.body)
        .map_err(|_| Trouble::down("the introspection endpoint answers no JSON object".to_owned()))?;
    Ok(if body.get("active") == Some(&Value::Bool(true)) { Some(body) } else { None })
}

/// Reads where the pushed parameters of a login can be referred to (RFC 9126 section 2.2).
///
/// # Errors
/// It refuses them, or its answer makes no sense.
pub(crate) fn pushed(reply: &Reply) -> Result<String, Trouble> {
    if !matches!(reply.head.status, 200 | 201) {
        return Err(Trouble::of(reply));
    }
    let body = serde_json::from_slice::<Value>(&reply.body).ok();
    let uri = body.and_then(|body| Some(body.get("request_uri")?.as_str()?.to_owned()));
    uri.ok_or_else(|| Trouble::down("the endpoint for pushed requests answers no request_uri".to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;

    use super::*;
    use crate::http::ResponseHead;

    fn reply(status: u16, body: &str) -> Reply {
        Reply { head: ResponseHead::new(status), body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    #[test]
    fn tokens_are_read() {
        let body =
            r#"{"access_token":"at","token_type":"bearer","expires_in":60,"refresh_token":"rt","id_token":"it","scope":"a b"}"#;
        let tokens = Issued::read(&reply(200, body), 1_000).ok().unwrap().0;
        assert_eq!((tokens.access.as_deref(), tokens.expires, tokens.refresh.as_deref()), (Some("at"), Some(1_060), Some("rt")));
        assert_eq!((tokens.id.as_deref(), tokens.scope.as_str()), (Some("it"), "a b"));
        let bare =
            Issued::read(&reply(200, r#"{"access_token":"at","token_type":"Bearer","expires_in":"60"}"#), 1_000).ok().unwrap().0;
        assert_eq!((bare.expires, bare.refresh, bare.id), (Some(1_060), None, None));
    }

    #[test]
    fn refusals_and_nonsense_are_told_apart_and_give_nothing_away() {
        let trouble = |status, body: &str| Issued::read(&reply(status, body), 0).err().unwrap();
        assert_eq!(
            trouble(400, r#"{"error":"invalid_grant","error_description":"secret"}"#),
            Trouble::Refused("invalid_grant".into())
        );
        assert_eq!(trouble(401, r#"{"error":"<script>"}"#), Trouble::Refused("unknown".into()));
        for (status, body) in [
            (500, r#"{"error":"server_error"}"#),
            (302, ""),
            (400, "oops"),
            (200, "[]"),
            (200, r#"{"token_type":"Bearer"}"#),
            (200, r#"{"access_token":"at"}"#),
            (200, r#"{"access_token":"at","token_type":"DPoP"}"#),
            (200, r#"{"access_token":"a\nX-Y: z","token_type":"Bearer"}"#),
            (200, r#"{"access_token":"","token_type":"Bearer"}"#),
            (200, r#"{"access_token":"at","token_type":"Bearer","refresh_token":"é"}"#),
        ] {
            assert!(matches!(trouble(status, body), Trouble::Down(_)), "{status} {body}");
        }
    }

    #[test]
    fn only_an_active_token_has_claims() {
        assert_eq!(introspected(&reply(200, r#"{"active":true,"sub":"u"}"#)).unwrap().unwrap()["sub"], "u");
        for body in [r#"{"active":false}"#, r#"{"active":"true"}"#, "{}"] {
            assert_eq!(introspected(&reply(200, body)).unwrap(), None, "{body}");
        }
        assert!(introspected(&reply(200, "x")).is_err() && introspected(&reply(503, "")).is_err());
        assert_eq!(introspected(&reply(401, r#"{"error":"invalid_client"}"#)), Err(Trouble::Refused("invalid_client".into())));
    }

    #[test]
    fn pushed_parameters_have_a_name() {
        assert_eq!(pushed(&reply(201, r#"{"request_uri":"urn:x","expires_in":60}"#)).unwrap(), "urn:x");
        assert!(pushed(&reply(201, "{}")).is_err() && pushed(&reply(400, r#"{"error":"invalid_request"}"#)).is_err());
    }
}
