//! A login by authorization code (OpenID Connect Core section 3.1, RFC 6749 section 4.1) with state, nonce and PKCE (RFC 7636): what is sent to the
//! provider and what is believed of what comes back. Functions of values; it knows no sockets and no cookies.

pub(crate) mod id_token;
pub(crate) mod sign_in;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::form::{Form, argument};
use super::session::{SealNonce, Sealer};

/// Seconds that a login may take.
pub(crate) const PATIENCE: u64 = 600;

/// Longest target that people are sent back to; from longer ones they come out at the root.
const MAX_TARGET: usize = 1_500;

/// Random bytes that a login needs.
#[derive(Clone, Copy)]
pub(crate) struct Dice {
    pub(crate) state: [u8; 24],
    pub(crate) nonce: [u8; 24],
    pub(crate) verifier: [u8; 32],
}

/// A login under way, as the browser keeps it, sealed.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pending {
    /// Ties the answer to this browser.
    #[serde(rename = "s")]
    pub state: String,
    /// Ties the ID token to this login.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// Ties the code to us.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub verifier: Option<String>,
    /// Where to afterwards: path and query of this host.
    #[serde(rename = "t")]
    pub target: String,
    /// Where the provider sends people back to.
    #[serde(rename = "u")]
    pub redirect_uri: String,
    /// When it began, in seconds since 1970.
    #[serde(rename = "a")]
    pub at: u64,
    /// The session that the browser had then, which ends with this login.
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// What every login of a configuration asks for.
pub(crate) struct Wishes {
    pub(crate) client_id: String,
    pub(crate) scope: String,
    pub(crate) nonce: bool,
    pub(crate) pkce: bool,
    /// More parameters, in order.
    pub(crate) params: Vec<(String, String)>,
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Callback {
    /// A code, and who says that it gave it (RFC 9207).
    Code {
        /// The code.
        code: String,
        /// The issuer, where it is named.
        issuer: Option<String>,
    },
    /// The provider refuses, in its own word.
    Refused(String),
}

/// Why what came back is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Distrust {
    /// No state, or no code and no error.
    #[error("this is no answer of a login: it needs the arguments state and code")]
    Incomplete,
    /// The browser has no login of this state.
    #[error("this browser has not asked for this login, or it has been answered already; start again")]
    Unknown,
    /// It took too long.
    #[error("the login took too long; start again")]
    Late,
}

impl Pending {
    /// One that begins now.
    pub(crate) fn begin(wishes: &Wishes, dice: &Dice, target: &str, redirect_uri: String, now: u64) -> Pending {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        Pending {
            state: text(&dice.state),
            nonce: wishes.nonce.then(|| text(&dice.nonce)),
            verifier: wishes.pkce.then(|| text(&dice.verifier)),
            target: own_target(target),
            redirect_uri,
            at: now,
            before: None,
        }
    }

    /// What the provider is asked.
    pub(crate) fn request(&self, wishes: &Wishes) -> Form {
        let mut form = Form::default().with([
            ("response_type", "code"),
            ("client_id", &wishes.client_id),
            ("redirect_uri", &self.redirect_uri),
            ("scope", &wishes.scope),
            ("state", &self.state),
        ]);
        if let Some(nonce) = &self.nonce {
            form.add("nonce", nonce);
        }
        if let Some(verifier) = &self.verifier {
            form.add("code_challenge", &challenge(verifier));
            form.add("code_challenge_method", "S256");
        }
        wishes.params.iter().for_each(|(name, value)| form.add(name, value));
        form
    }

    /// The value of the cookie.
    pub(crate) fn seal(&self, sealer: &Sealer, nonce: SealNonce) -> Option<String> {
        sealer.seal(nonce, &serde_json::to_vec(self).ok()?)
    }

    /// The login of the browser that an answer with this state belongs to.
    ///
    /// # Errors
    /// There is none, or it began too long ago.
    pub(crate) fn of(sealer: &Sealer, cookie: Option<&str>, state: &str, now: u64) -> Result<Pending, Distrust> {
        let open = |cookie| serde_json::from_slice::<Pending>(&sealer.open(cookie)?).ok();
        let pending = cookie.and_then(open).ok_or(Distrust::Unknown)?;
        if !bool::from(pending.state.as_bytes().ct_eq(state.as_bytes())) {
            return Err(Distrust::Unknown);
        }
        if now.saturating_sub(pending.at) > PATIENCE || pending.at > now + PATIENCE {
            return Err(Distrust::Late);
        }
        Ok(pending)
    }
}

impl Callback {
    /// Reads the query of what came back, and the state in it.
    ///
    /// # Errors
    /// Something is missing or given twice.
    pub(crate) fn parse(query: &str) -> Result<(String, Callback), Distrust> {
        let state = argument(query, "state").filter(|state| !state.is_empty()).ok_or(Distrust::Incomplete)?;
        if let Some(error) = argument(query, "error") {
            return Ok((state, Callback::Refused(word(&error))));
        }
        let code = argument(query, "code").filter(|code| !code.is_empty()).ok_or(Distrust::Incomplete)?;
        Ok((state, Callback::Code { code, issuer: argument(query, "iss") }))
    }
}

/// The challenge of a verifier (RFC 7636 section 4.2, S256).
fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()))
}

/// A target that leads nowhere but to this host: exactly one slash in front, and neither `\` nor control characters, which some browsers take for
/// slashes or leave out.
fn own_target(target: &str) -> String {
    let path = target.trim_start_matches(['/', '\\']);
    let safe = target.starts_with('/')
        && target.len() <= MAX_TARGET
        && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if safe { format!("/{path}") } else { "/".to_owned() }
}

/// An error code of a provider, as far as it may be shown and logged.
pub(crate) fn word(text: &str) -> String {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    let short: String = text.chars().take(64).collect();
    if !short.is_empty() && short.bytes().all(known) { short } else { "unknown".to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const DICE: Dice = Dice { state: [1; 24], nonce: [2; 24], verifier: [3; 32] };

    fn wishes(nonce: bool, pkce: bool) -> Wishes {
        let params = vec![("prompt".to_owned(), "login".to_owned())];
        Wishes { client_id: "app 1".to_owned(), scope: "openid email".to_owned(), nonce, pkce, params }
    }

    fn pending(target: &str) -> Pending {
        Pending::begin(&wishes(true, true), &DICE, target, "https://h/cb".to_owned(), 1_000)
    }

    #[test]
    fn the_challenge_is_that_of_the_rfc() {
        assert_eq!(challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn the_request_holds_what_is_wished() {
        let url = pending("/x").request(&wishes(true, true)).behind("https://p/auth?tenant=1");
        let query = url.strip_prefix("https://p/auth?").unwrap();
        let get = |name| argument(query, name);
        assert_eq!(get("response_type").unwrap(), "code");
        assert_eq!((get("client_id").unwrap(), get("scope").unwrap()), ("app 1".to_owned(), "openid email".to_owned()));
        assert_eq!((get("redirect_uri").unwrap(), get("tenant").unwrap()), ("https://h/cb".to_owned(), "1".to_owned()));
        assert_eq!((get("code_challenge_method").unwrap(), get("prompt").unwrap()), ("S256".to_owned(), "login".to_owned()));
        assert_eq!(get("state").unwrap().len(), 32);
        let plain = wishes(false, false);
        let bare = Pending::begin(&plain, &DICE, "/", String::new(), 0);
        let text = bare.request(&plain).into_text();
        assert!(!text.contains("nonce") && !text.contains("challenge"), "{text}");
        assert!(bare.verifier.is_none() && bare.nonce.is_none());
    }

    #[test]
    fn a_login_is_answered_in_its_browser_and_in_time() {
        let sealer = Sealer::new("0123456789abcdef", &["login"]).unwrap();
        let begun = pending("/x?y=1");
        let cookie = begun.seal(&sealer, [0; 12]).unwrap();
        assert!(Pending::of(&sealer, Some(&cookie), &begun.state, 1_600).is_ok_and(|found| found == begun));
        let wrong = |cookie, state: &str, now| Pending::of(&sealer, cookie, state, now).err();
        assert_eq!(wrong(None, &begun.state, 1_000), Some(Distrust::Unknown));
        assert_eq!(wrong(Some("AAAA"), &begun.state, 1_000), Some(Distrust::Unknown));
        assert_eq!(wrong(Some(&cookie), "other", 1_000), Some(Distrust::Unknown));
        assert_eq!(wrong(Some(&cookie), "", 1_000), Some(Distrust::Unknown));
        assert_eq!(wrong(Some(&cookie), &begun.state, 1_601), Some(Distrust::Late));
    }

    #[test]
    fn answers_are_codes_or_refusals() {
        let code = Callback::Code { code: "c".to_owned(), issuer: Some("https://p".to_owned()) };
        assert_eq!(Callback::parse("state=s&code=c&iss=https%3A%2F%2Fp").unwrap(), ("s".to_owned(), code));
        let refused = Callback::parse("state=s&error=access_denied&code=c").unwrap().1;
        assert_eq!(refused, Callback::Refused("access_denied".to_owned()));
        assert_eq!(Callback::parse("state=s&error=%3Cb%3E").unwrap().1, Callback::Refused("unknown".to_owned()));
        for query in
            ["", "code=c", "state=s", "state=&code=c", "state=s&code=", "state=s&state=t&code=c", "state=s&code=c&code=d"]
        {
            assert_eq!(Callback::parse(query), Err(Distrust::Incomplete), "{query}");
        }
    }

    #[test]
    fn people_come_back_to_this_host_only() {
        for (target, to) in [
            ("/a?b=//c", "/a?b=//c"),
            ("//evil.example/x", "/evil.example/x"),
            ("/\\evil.example", "/evil.example"),
            ("///\\/evil.example", "/evil.example"),
            ("https://evil.example", "/"),
            ("/a\\b", "/"),
            ("/a\tb", "/"),
            ("*", "/"),
            ("", "/"),
        ] {
            assert_eq!(own_target(target), to, "{target}");
        }
        assert_eq!(own_target(&format!("/{}", "x".repeat(2_000))), "/");
    }

    proptest! {
        #[test]
        fn no_target_leads_away(target in "[/\\\\a-z:?#@\u{0}-\u{20}é.]{0,20}") {
            let own = own_target(&target);
            prop_assert!(own.starts_with('/') && !own.starts_with("//"));
            prop_assert!(own.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'));
        }

        #[test]
        fn no_answer_panics(query in ".{0,80}") {
            let _ = Callback::parse(&query);
        }
    }
}
