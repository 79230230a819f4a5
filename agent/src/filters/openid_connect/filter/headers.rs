//! What the upstream is told of a login, and what it must never be told by clients. It knows not how it was learnt.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::super::config::Config;
use super::super::session::Session;
use crate::http::{FieldName, Fields};

const ACCESS_TOKEN: FieldName = FieldName::of("X-Access-Token");
const ID_TOKEN: FieldName = FieldName::of("X-ID-Token");
const RAW_ID_TOKEN: FieldName = FieldName::of("X-Raw-ID-Token");
const USERINFO: FieldName = FieldName::of("X-Userinfo");
const REFRESH_TOKEN: FieldName = FieldName::of("X-Refresh-Token");

/// Which fields upstreams get.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outputs {
    access: bool,
    in_authorization: bool,
    id: bool,
    raw_id: bool,
    pub(crate) user: bool,
    refresh: bool,
}

impl From<&Config> for Outputs {
    fn from(config: &Config) -> Outputs {
        Outputs {
            access: config.set_access_token_header,
            in_authorization: config.access_token_in_authorization_header,
            id: config.set_id_token_header,
            raw_id: config.set_raw_id_token_header,
            user: config.set_userinfo_header,
            refresh: config.set_refresh_token_header,
        }
    }
}

/// Takes off what only we may say.
pub(crate) fn strip(fields: &mut Fields) {
    for name in [&ACCESS_TOKEN, &ID_TOKEN, &RAW_ID_TOKEN, &USERINFO, &REFRESH_TOKEN] {
        fields.remove_named(name);
    }
}

/// The bearer token of a request.
///
/// # Errors
/// `Authorization` is malformed.
pub(crate) fn bearer_token(fields: &Fields) -> Result<Option<String>, ()> {
    let Some(authorization) = fields.get("authorization") else {
        return Ok(fields.get_named(&ACCESS_TOKEN).map(|token| String::from_utf8_lossy(token).into_owned()));
    };
    let text = std::str::from_utf8(authorization).map_err(|_| ())?;
    let (scheme, token) = text.split_once(' ').ok_or(())?;
    Ok(scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned()))
}

impl Outputs {
    /// Tells what a session knows.
    pub(crate) fn tell_session(&self, fields: &mut Fields, session: &Session) {
        let tokens = &session.tokens;
        if let Some(access) = &tokens.access {
            self.tell_access_token(fields, access);
        }
        if let Some(id) = &tokens.id {
            let payload = id.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
            if let Some(payload) = payload.filter(|_| self.id) {
                fields.append_named(&ID_TOKEN, STANDARD.encode(payload));
            }
            if self.raw_id {
                fields.append_named(&RAW_ID_TOKEN, id);
            }
        }
        if let Some(user) = session.user.as_ref().filter(|_| self.user) {
            fields.append_named(&USERINFO, STANDARD.encode(user));
        }
        if let Some(refresh) = tokens.refresh.as_ref().filter(|_| self.refresh) {
            fields.append_named(&REFRESH_TOKEN, refresh);
        }
    }

    /// Tells what a bearer token is, and what its introspection said, JSON.
    pub(crate) fn tell_bearer(&self, fields: &mut Fields, token: &str, introspected: Option<&str>) {
        self.tell_access_token(fields, token);
        if let Some(user) = introspected.filter(|_| self.user) {
            fields.append_named(&USERINFO, STANDARD.encode(user));
        }
    }

    fn tell_access_token(&self, fields: &mut Fields, token: &str) {
        if !self.access {
            return;
        }
        if self.in_authorization {
            fields.set("Authorization", format!("Bearer {token}"));
        } else {
            fields.append_named(&ACCESS_TOKEN, token);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::super::session::Tokens;
    use super::*;

    fn outputs(options: serde_json::Value) -> Outputs {
        let mut config = json!({"client_id": "app", "discovery": "https://p"});
        config.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        Outputs::from(&serde_json::from_value::<Config>(config).unwrap())
    }

    fn told(options: serde_json::Value) -> Vec<(String, String)> {
        let tokens = Tokens {
            access: Some("at".to_owned()),
            refresh: Some("rt".to_owned()),
            id: Some(format!("h.{}.s", URL_SAFE_NO_PAD.encode(r#"{"sub":"u"}"#))),
            ..Tokens::default()
        };
        let session = Session::begin("i".to_owned(), tokens, Some(r#"{"name":"U"}"#.to_owned()), 0);
        let mut fields = Fields::new();
        outputs(options).tell_session(&mut fields, &session);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        fields.iter().map(|field| (text(field.name), text(field.value))).collect()
    }

    #[test]
    fn upstreams_are_told_what_is_wished() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let (id, user) = (STANDARD.encode(r#"{"sub":"u"}"#), STANDARD.encode(r#"{"name":"U"}"#));
        let usual = [pair("X-Access-Token", "at"), pair("X-ID-Token", &id), pair("X-Userinfo", &user)];
        assert_eq!(told(json!({})), usual);
        let none = json!({"set_access_token_header": false, "set_id_token_header": false, "set_userinfo_header": false});
        assert_eq!(told(none), []);
        let others = json!({"access_token_in_authorization_header": true, "set_id_token_header": false, "set_userinfo_header": false,
            "set_raw_id_token_header": true, "set_refresh_token_header": true});
        let raw = format!("h.{}.s", URL_SAFE_NO_PAD.encode(r#"{"sub":"u"}"#));
        assert_eq!(
            told(others),
            [pair("Authorization", "Bearer at"), pair("X-Raw-ID-Token", &raw), pair("X-Refresh-Token", "rt")]
        );
    }

    #[test]
    fn what_clients_claim_goes() {
        let mut fields = Fields::new();
        for name in ["x-access-token", "X-ID-TOKEN", "x-userinfo", "X-Refresh-Token", "x-raw-id-token", "X-Other"] {
            fields.append(name, "forged");
        }
        strip(&mut fields);
        assert_eq!(fields.len(), 1);
    }

    #[test]
    fn a_token_stands_in_one_of_two_fields() {
        let find = |list: &[(&str, &str)]| {
            let mut fields = Fields::new();
            list.iter().for_each(|(name, value)| fields.append(name, value));
            bearer_token(&fields)
        };
        assert_eq!(find(&[]), Ok(None));
        assert_eq!(find(&[("Authorization", "bearer  t ")]), Ok(Some("t".to_owned())));
        assert_eq!(find(&[("X-Access-Token", "t")]), Ok(Some("t".to_owned())));
        assert_eq!(find(&[("Authorization", "Basic x"), ("X-Access-Token", "t")]), Ok(None));
        assert_eq!(find(&[("Authorization", "Bearer")]), Err(()));
    }
}
