//! A session: what was learnt at a login, and how long it lasts. A function of values and `now`; it knows no request and no provider.

mod cookies;
mod seal;
mod stored;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config::SessionConfig;
use super::login::id_token::claims_of_verified;

pub(crate) use cookies::Shape;
pub(crate) use seal::{SealNonce, Sealer};
pub(crate) use stored::{Stored, Unkept};

/// A session is marked as used at most this often, in seconds, so that not every answer carries cookies.
const TOUCH_EVERY: u64 = 60;

/// What was learnt at a login, as the browser keeps it, sealed.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// Tells sessions apart, at random.
    #[serde(rename = "i")]
    pub id: String,
    /// When it began, in seconds since 1970.
    #[serde(rename = "c")]
    pub created: u64,
    /// When its rolling time began.
    #[serde(rename = "r")]
    pub rolled: u64,
    /// When it was last marked as used.
    #[serde(rename = "t")]
    pub touched: u64,
    /// What the provider issued.
    #[serde(rename = "k")]
    pub tokens: Tokens,
    /// What the provider said of the user, JSON.
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// As it was found where it is kept, sealed; `None` of one that was not found there.
    #[serde(skip)]
    pub kept: Option<String>,
}

/// What a token endpoint issued.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Tokens {
    /// Access token.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub access: Option<String>,
    /// When the access token ends, in seconds since 1970, where the provider says so.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Refresh token.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<String>,
    /// ID token as it was issued. It was verified then.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Scopes that were granted.
    #[serde(rename = "s", default, skip_serializing_if = "String::is_empty")]
    pub scope: String,
}

/// How long a session lasts, in seconds; 0 is for ever.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lifetimes {
    idling: u64,
    rolling: u64,
    absolute: u64,
}

/// How a session stands at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Good, and the cookie says so.
    Fresh,
    /// Good, but the cookie should be written anew.
    Stale,
    /// Over.
    Over,
}

impl From<&SessionConfig> for Lifetimes {
    fn from(config: &SessionConfig) -> Lifetimes {
        Lifetimes { idling: config.idling_timeout, rolling: config.rolling_timeout, absolute: config.absolute_timeout }
    }
}

impl Session {
    /// One that begins now.
    pub(crate) fn begin(id: String, tokens: Tokens, user: Option<String>, now: u64) -> Session {
        Session { id, created: now, rolled: now, touched: now, tokens, user, kept: None }
    }

    /// How it stands at `now`.
    pub(crate) fn standing(&self, lifetimes: &Lifetimes, now: u64) -> Standing {
        let over = |since: u64, limit: u64| limit > 0 && now.saturating_sub(since) >= limit;
        if over(self.touched, lifetimes.idling) || over(self.rolled, lifetimes.rolling) || over(self.created, lifetimes.absolute)
        {
            return Standing::Over;
        }
        let touch = TOUCH_EVERY.min(lifetimes.idling / 4).max(1);
        let stale = lifetimes.idling > 0 && over(self.touched, touch);
        if stale || self.should_roll(lifetimes, now) { Standing::Stale } else { Standing::Fresh }
    }

    /// When it ends unless it is used, in seconds since 1970; `None`: never.
    pub(crate) fn ends(&self, lifetimes: &Lifetimes) -> Option<u64> {
        let limits = [(self.touched, lifetimes.idling), (self.rolled, lifetimes.rolling), (self.created, lifetimes.absolute)];
        limits.iter().filter(|(_, limit)| *limit > 0).map(|(since, limit)| since.saturating_add(*limit)).min()
    }

    /// Marks it as used now, and lets its rolling time begin anew in the last quarter.
    pub(crate) fn touch(&mut self, lifetimes: &Lifetimes, now: u64) {
        if self.should_roll(lifetimes, now) {
            self.rolled = now;
        }
        self.touched = now;
    }

    /// Whether the access token has to be renewed before `now` counts.
    pub(crate) fn is_expired(&self, leeway: u64, now: u64) -> bool {
        self.tokens.expires.is_some_and(|expires| expires <= now.saturating_add(leeway))
    }

    /// Takes what a renewal brought. What it did not bring stays (RFC 6749 section 6, OpenID Connect Core section 12.2).
    pub(crate) fn renew(&mut self, tokens: Tokens) {
        let old = std::mem::take(&mut self.tokens);
        self.tokens = Tokens {
            refresh: tokens.refresh.or(old.refresh),
            id: tokens.id.or(old.id),
            scope: if tokens.scope.is_empty() { old.scope } else { tokens.scope },
            ..tokens
        };
    }

    /// The claims of its ID token.
    pub(crate) fn claims(&self) -> Map<String, Value> {
        self.tokens.id.as_deref().and_then(claims_of_verified).unwrap_or_default()
    }

    /// What the provider said of the user.
    pub(crate) fn user(&self) -> Option<Value> {
        self.user.as_deref().and_then(|user| serde_json::from_str(user).ok())
    }

    /// What was learnt, as `claim_schema` sees it.
    pub(crate) fn learnt(&self) -> Value {
        let mut learnt = Map::new();
        let id = self.tokens.id.is_some().then(|| Value::Object(self.claims()));
        let access = self.tokens.access.clone().map(Value::String);
        for (name, value) in [("user", self.user()), ("access_token", access), ("id_token", id)] {
            if let Some(value) = value {
                learnt.insert(name.to_owned(), value);
            }
        }
        Value::Object(learnt)
    }

    fn should_roll(&self, lifetimes: &Lifetimes, now: u64) -> bool {
        lifetimes.rolling > 0 && now.saturating_sub(self.rolled) >= lifetimes.rolling - lifetimes.rolling / 4
    }

    /// The value of the cookie.
    pub(crate) fn seal(&self, sealer: &Sealer, nonce: SealNonce) -> Option<String> {
        sealer.seal(nonce, &serde_json::to_vec(self).ok()?)
    }

    /// Reads the value of a cookie; `None` when it is not ours.
    pub(crate) fn open(sealer: &Sealer, value: &str) -> Option<Session> {
        serde_json::from_slice(&sealer.open(value)?).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LIFETIMES: Lifetimes = Lifetimes { idling: 900, rolling: 3_600, absolute: 86_400 };

    fn session() -> Session {
        let tokens = Tokens {
            access: Some("at".to_owned()),
            expires: Some(1_300),
            refresh: Some("rt".to_owned()),
            id: Some("it".to_owned()),
            scope: "openid".to_owned(),
        };
        Session::begin("x".to_owned(), tokens, None, 1_000)
    }

    #[test]
    fn a_session_ends_idle_unrolled_or_old() {
        let session = session();
        let at = |now| session.standing(&LIFETIMES, now);
        assert_eq!([at(1_000), at(1_059), at(1_060), at(1_899), at(1_900)], {
            use Standing::*;
            [Fresh, Fresh, Stale, Stale, Over]
        });
        assert_eq!(session.ends(&LIFETIMES), Some(1_900));
        let used = |touched, rolled| Session { touched, rolled, ..session.clone() };
        assert_eq!(used(4_000, 1_000).standing(&LIFETIMES, 4_010), Standing::Stale);
        assert_eq!(used(4_599, 1_000).standing(&LIFETIMES, 4_600), Standing::Over);
        assert_eq!(used(87_399, 87_399).standing(&LIFETIMES, 87_400), Standing::Over);
        let endless = Lifetimes { idling: 0, rolling: 0, absolute: 0 };
        assert_eq!((session.standing(&endless, u64::MAX), session.ends(&endless)), (Standing::Fresh, None));
    }

    #[test]
    fn use_keeps_it_alive_until_the_absolute_end() {
        let mut session = session();
        let mut now = 1_000;
        while session.standing(&LIFETIMES, now) != Standing::Over {
            session.touch(&LIFETIMES, now);
            now += 300;
        }
        assert_eq!(now - session.created, 86_400);
    }

    #[test]
    fn a_renewal_keeps_what_it_does_not_bring() {
        let mut session = session();
        assert!(!session.is_expired(0, 1_299) && session.is_expired(0, 1_300) && session.is_expired(30, 1_270));
        session.renew(Tokens { access: Some("at2".to_owned()), ..Tokens::default() });
        let tokens = &session.tokens;
        assert_eq!(
            (tokens.access.as_deref(), tokens.refresh.as_deref(), tokens.id.as_deref()),
            (Some("at2"), Some("rt"), Some("it"))
        );
        assert_eq!((tokens.expires, tokens.scope.as_str()), (None, "openid"));
        assert!(!session.is_expired(0, u64::MAX));
    }

    #[test]
    fn it_travels_sealed() {
        let sealer = Sealer::new("0123456789abcdef", &["s"]).unwrap();
        let sealed = session().seal(&sealer, [0; 12]).unwrap();
        assert!(Session::open(&sealer, &sealed) == Some(session()));
        assert!(Session::open(&sealer, &sealer.seal([0; 12], b"{}").unwrap()).is_none());
    }
}
