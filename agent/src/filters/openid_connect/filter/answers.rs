//! The answers of the gateway itself: challenges, refusals, and the ways to the provider and back. None of them may be stored by anybody.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::exchange::{Answer, Reason};
use crate::http::Fields;

/// Answers that are the same for all requests of a configuration.
pub(crate) struct Answers {
    realm: Box<str>,
    /// No token where one is needed.
    pub(crate) no_token: Answer,
    /// Not logged in, and nobody is sent to the provider.
    pub(crate) denied: Answer,
    /// `Authorization` is malformed.
    pub(crate) malformed: Answer,
    /// The provider cannot be asked.
    pub(crate) unavailable: Answer,
}

impl Answers {
    /// Those of a realm.
    pub(crate) fn new(realm: &str) -> Answers {
        let challenged = |message: &str| {
            let mut answer = refusal(401, json!({ "message": message }));
            answer.head.fields.append("WWW-Authenticate", format!("Bearer realm=\"{realm}\""));
            answer
        };
        Answers {
            realm: realm.into(),
            no_token: challenged("No bearer token found in request."),
            denied: challenged("Not logged in."),
            malformed: refusal(400, json!({ "message": "Invalid Authorization header format." })),
            unavailable: refusal(503, json!({ "message": "The identity provider cannot be reached; try again later." })),
        }
    }

    /// A token that is not good, and why.
    pub(crate) fn invalid_token(&self, why: &str) -> Answer {
        let mut answer = refusal(401, json!({ "message": why }));
        // The description may hold neither quotes nor backslashes (RFC 6750 section 3).
        let why = why.replace(['"', '\\'], "'");
        let challenge = format!("Bearer realm=\"{}\", error=\"invalid_token\", error_description=\"{why}\"", self.realm);
        answer.head.fields.append("WWW-Authenticate", challenge);
        answer
    }
}

/// A refusal with this body.
pub(crate) fn refusal(status: u16, body: Value) -> Answer {
    let mut answer = Answer::json(status, &body, if status < 500 { Reason::Plugin } else { Reason::PluginFailed });
    answer.head.fields.append("Cache-Control", "no-store");
    answer
}

/// A refusal with this message.
pub(crate) fn told(status: u16, message: &str) -> Answer {
    refusal(status, json!({ "message": message }))
}

/// Sends the browser elsewhere, with some cookies.
pub(crate) fn redirect(location: &str, cookies: &[String]) -> Answer {
    let mut answer = Answer::empty(302, Reason::Answered);
    answer.head.fields.append("Location", location);
    answer.head.fields.append("Cache-Control", "no-store");
    put_cookies(&mut answer.head.fields, cookies);
    answer
}

/// Sends the browser elsewhere from a page of ours, so that it comes from here rather than from the provider: else it leaves strict cookies out.
pub(crate) fn bounce(target: &str, cookies: &[String]) -> Answer {
    let escaped =
        target.replace('&', "&amp;").replace('"', "&quot;").replace('\'', "&#39;").replace('<', "&lt;").replace('>', "&gt;");
    let page =
        format!("<!DOCTYPE html><meta http-equiv=\"refresh\" content=\"0;url='{escaped}'\"><a href=\"{escaped}\">Go on</a>\n");
    page_of(page, cookies)
}

/// Says that the session is over.
pub(crate) fn logged_out(cookies: &[String]) -> Answer {
    page_of("<!DOCTYPE html><html><body>Logged Out</body></html>\n".to_owned(), cookies)
}

fn page_of(page: String, cookies: &[String]) -> Answer {
    let mut answer = Answer::empty(200, Reason::Answered);
    answer.head.fields.append("Content-Type", "text/html; charset=utf-8");
    answer.head.fields.append("Cache-Control", "no-store");
    put_cookies(&mut answer.head.fields, cookies);
    answer.body = Bytes::from(page);
    answer
}

/// Adds lines of `Set-Cookie`.
pub(crate) fn put_cookies(fields: &mut Fields, cookies: &[String]) {
    cookies.iter().for_each(|cookie| fields.append("Set-Cookie", cookie));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_challenge_is_well_formed_whatever_the_reason() {
        let answer = Answers::new("r").invalid_token("the claim \"exp\" is missing");
        let challenge = "Bearer realm=\"r\", error=\"invalid_token\", error_description=\"the claim 'exp' is missing\"";
        assert_eq!(answer.head.fields.get_str("www-authenticate"), Some(challenge));
        assert_eq!(answer.head.fields.get_str("cache-control"), Some("no-store"));
    }

    #[test]
    fn a_page_that_leads_on_escapes_where_to() {
        let answer = bounce("/x?a=\"><script>'&", &["c=1".to_owned()]);
        let page = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(!page.contains("<script>") && page.contains("/x?a=&quot;&gt;&lt;script&gt;&#39;&amp;"), "{page}");
        assert_eq!(answer.head.fields.get_str("set-cookie"), Some("c=1"));
    }
}
