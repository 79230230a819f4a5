//! The filter of `openid-connect`: who a request comes from, by its token or by its cookies, and what becomes of those who are not known.

pub(crate) mod answers;
pub(crate) mod headers;
mod visits;

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use serde_json::{Map, Value};

use super::super::identity::{self, EXTERNAL_USER};
use super::super::{Filter, Flow, Phases, Resume};
use super::bearer::{Bearer, Verdict, Verified};
use super::config::UnauthAction;
use super::login::sign_in::{Failure, SignIn};
use super::provider::Trouble;
use super::rules::{Lacking, Rules};
use super::session::{Lifetimes, Sealer, Session, Shape, Standing, Stored, Unkept};
use crate::exchange::variable::JWT_CLAIMS;
use crate::exchange::{Answer, Exchange};
use crate::http::{Name, ResponseHead};

use answers::Answers;
use headers::Outputs;

/// Key of what the filter keeps in an exchange.
pub(crate) const NAME: &str = "openid-connect";
/// When to look whether another node keeps what it got for the same refresh token: it has its answer, and needs a round trip to the Redis.
const KEPT_SOON: [Duration; 3] = [Duration::from_millis(10), Duration::from_millis(50), Duration::from_millis(250)];

/// The filter; what it waits for holds on to the same site.
pub(crate) struct OpenIdConnect(pub(crate) Arc<Site>);

/// A compiled configuration.
pub(crate) struct Site {
    pub(crate) answers: Answers,
    pub(crate) rules: Rules,
    pub(crate) outputs: Outputs,
    /// Tokens in requests, where they count.
    pub(crate) bearer: Option<Arc<Bearer>>,
    /// Logins and sessions, unless only tokens count.
    pub(crate) browser: Option<Browser>,
}

/// Logins and sessions.
pub(crate) struct Browser {
    pub(crate) sign_in: Arc<SignIn>,
    /// Seals the session, or the ticket of one that is kept elsewhere.
    pub(crate) sealer: Sealer,
    /// Where sessions are kept, unless in cookies.
    pub(crate) stored: Option<Arc<Stored>>,
    pub(crate) login_sealer: Sealer,
    pub(crate) shape: Shape,
    pub(crate) lifetimes: Lifetimes,
    /// Whether people come back by a page of ours, since their cookies are strict.
    pub(crate) bounces: bool,
    pub(crate) action: UnauthAction,
    pub(crate) back: Return,
    pub(crate) logout_path: Box<str>,
    pub(crate) post_logout: Option<Box<str>>,
    pub(crate) revokes: bool,
    pub(crate) renews: bool,
    pub(crate) leeway: u64,
    pub(crate) ended: Arc<Ended>,
}

/// Where the provider sends people back to.
pub(crate) enum Return {
    /// Beside the path that they asked for.
    Beside,
    /// Always here.
    At {
        /// URL or path.
        uri: Box<str>,
        /// Its path.
        path: Box<str>,
        /// Whether it is a URL.
        absolute: bool,
    },
}

/// Ids of sessions that were ended by a logout, so that copies of their cookies end too, as far as this node remembers.
pub(crate) struct Ended(pub(crate) Cache<String, ()>);

/// Lines of `Set-Cookie` for the response.
pub(crate) struct Cookies(pub(crate) Vec<String>);

impl Filter for OpenIdConnect {
    fn phases(&self) -> Phases {
        if self.0.browser.is_some() { Phases::REWRITE.and(Phases::RESPONSE_HEAD) } else { Phases::REWRITE }
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        let site = &self.0;
        let now = x.started_ms / 1_000;
        let token = if site.bearer.is_some() { headers::bearer_token(&x.request.fields) } else { Ok(None) };
        headers::strip(&mut x.request.fields);
        match (&site.bearer, token) {
            (Some(_), Err(())) => answer(site.answers.malformed.clone()),
            (Some(bearer), Ok(Some(token))) => match bearer.remembered(&token, now) {
                Some(verified) => site.admit_bearer(x, &token, verified),
                None => site.ask_about(bearer, token, now),
            },
            _ => match &site.browser {
                Some(browser) => site.browse(x, browser, now),
                None => answer(site.answers.no_token.clone()),
            },
        }
    }

    fn response_head(&self, x: &mut Exchange, head: &mut ResponseHead) {
        if let Some(Cookies(lines)) = x.slot(NAME) {
            answers::put_cookies(&mut head.fields, lines);
        }
    }
}

impl Site {
    fn ask_about(self: &Arc<Self>, bearer: &Arc<Bearer>, token: String, now: u64) -> Flow {
        let site = self.clone();
        let verdict = bearer.verdict(token.clone(), now);
        Flow::Wait(Box::pin(async move {
            let verdict = verdict.await;
            let resume: Resume = Box::new(move |x| match verdict {
                Verdict::Good(verified) => site.admit_bearer(x, &token, verified),
                Verdict::Bad(why) => answer(site.answers.invalid_token(&why)),
                Verdict::Unknown(trouble) => answer(site.unavailable(&trouble)),
            });
            resume
        }))
    }

    /// Lets a request with a good token go on.
    fn admit_bearer(&self, x: &mut Exchange, token: &str, verified: Arc<Verified>) -> Flow {
        if let Err(lacking) = self.rules.check_bearer(&verified.claims) {
            return answer(self.lacking(&lacking));
        }
        if let Some(browser) = &self.browser {
            browser.shape.hide(&mut x.request.fields);
        }
        self.outputs.tell_bearer(&mut x.request.fields, token, verified.introspected.as_deref());
        introduce(x, verified.claims.clone(), None);
        Flow::Continue
    }

    fn browse(self: &Arc<Self>, x: &mut Exchange, browser: &Browser, now: u64) -> Flow {
        if browser.is_return(&x.request.path) {
            return self.come_back(x, browser, now);
        }
        let leaves = *x.request.path == *browser.logout_path;
        let Some(stored) = &browser.stored else {
            let session = browser.session(x, now);
            return if leaves { self.log_out(x, browser, session, now) } else { self.visit(x, browser, session, now) };
        };
        let (site, stored, ticket) = (self.clone(), stored.clone(), browser.ticket(x));
        Flow::Wait(Box::pin(async move {
            let found = match &ticket {
                Some(id) => stored.find(id).await,
                None => Ok(None),
            };
            let resume: Resume = Box::new(move |x| match (&site.browser, found) {
                (_, Err(unkept)) => answer(site.unkept(&unkept)),
                (Some(browser), Ok(session)) => {
                    let session = session.filter(|session| browser.is_good(session, now));
                    if leaves { site.log_out(x, browser, session, now) } else { site.visit(x, browser, session, now) }
                }
                // What was asked for a browser is for one.
                (None, _) => answer(site.answers.denied.clone()),
            });
            resume
        }))
    }

    /// Lets a session go on, with an access token that has not ended.
    fn visit(self: &Arc<Self>, x: &mut Exchange, browser: &Browser, session: Option<Session>, now: u64) -> Flow {
        let Some(session) = session else { return self.unknown(x, browser, now) };
        if !browser.renews || !session.is_expired(browser.leeway, now) {
            let stale = session.standing(&browser.lifetimes, now) == Standing::Stale;
            return self.admit_session(x, browser, session, stale, now);
        }
        if session.tokens.refresh.is_none() {
            return self.unknown(x, browser, now);
        }
        let renewal = browser.sign_in.renew(&session, now);
        let site = self.clone();
        Flow::Wait(Box::pin(async move {
            let renewed = renewal.await;
            let resume: Resume = Box::new(move |x| site.renewed(x, session, renewed, now));
            resume
        }))
    }

    fn renewed(
        self: &Arc<Self>,
        x: &mut Exchange,
        mut session: Session,
        renewed: Result<Arc<super::session::Tokens>, Failure>,
        now: u64,
    ) -> Flow {
        let Some(browser) = &self.browser else { return Flow::Continue };
        match renewed {
            Ok(tokens) => {
                session.renew((*tokens).clone());
                self.admit_session(x, browser, session, true, now)
            }
            Err(Failure::Trouble(trouble @ Trouble::Down(_))) => answer(self.unavailable(&trouble)),
            Err(failure) => match &browser.stored {
                Some(stored) => self.renewed_elsewhere(stored.clone(), session, failure, now),
                None => self.over(x, browser, &failure, now),
            },
        }
    }

    /// Another node may have been faster with the same refresh token, which is good once: then the session goes on as that one keeps it.
    fn renewed_elsewhere(self: &Arc<Self>, stored: Arc<Stored>, session: Session, failure: Failure, now: u64) -> Flow {
        let site = self.clone();
        Flow::Wait(Box::pin(async move {
            let mut kept = None;
            for pause in KEPT_SOON {
                tokio::time::sleep(pause).await;
                let found = stored.find(&session.id).await.ok().flatten();
                kept = found.filter(|found| found.tokens.refresh != session.tokens.refresh);
                if kept.is_some() {
                    break;
                }
            }
            let resume: Resume = Box::new(move |x| match (&site.browser, kept) {
                (Some(browser), Some(kept)) => site.admit_session(x, browser, kept, false, now),
                (Some(browser), None) => site.over(x, browser, &failure, now),
                (None, _) => answer(site.answers.denied.clone()),
            });
            resume
        }))
    }

    fn over(self: &Arc<Self>, x: &mut Exchange, browser: &Browser, failure: &Failure, now: u64) -> Flow {
        tracing::info!(%failure, "openid-connect: a session could not be renewed, so it is over");
        self.unknown(x, browser, now)
    }

    /// Lets a request with a good session go on.
    fn admit_session(self: &Arc<Self>, x: &mut Exchange, browser: &Browser, mut session: Session, write: bool, now: u64) -> Flow {
        let judged = self.rules.check_scopes(&session.tokens.scope).and_then(|()| self.rules.check_schema(|| session.learnt()));
        if let Err(lacking) = judged {
            return answer(self.lacking(&lacking));
        }
        if write {
            session.touch(&browser.lifetimes, now);
            if let Some(stored) = &browser.stored {
                return self.keep_and_pass(stored.clone(), session, now);
            }
            match browser.write(x, &session) {
                Some(lines) => x.put(NAME, Cookies(lines)),
                None => return answer(too_large()),
            }
        }
        self.pass(x, browser, &session)
    }

    /// The same where sessions are kept elsewhere. A session that could not be written is good all the same: it stays as it was.
    fn keep_and_pass(self: &Arc<Self>, stored: Arc<Stored>, session: Session, now: u64) -> Flow {
        let site = self.clone();
        Flow::Wait(Box::pin(async move {
            if let Err(unkept) = stored.update(&session, random, now).await {
                tracing::debug!(%unkept, "openid-connect: a session stays as it was");
            }
            let resume: Resume = Box::new(move |x| match &site.browser {
                Some(browser) => site.pass(x, browser, &session),
                None => answer(site.answers.denied.clone()),
            });
            resume
        }))
    }

    fn pass(&self, x: &mut Exchange, browser: &Browser, session: &Session) -> Flow {
        browser.shape.hide(&mut x.request.fields);
        self.outputs.tell_session(&mut x.request.fields, session);
        introduce(x, session.claims(), session.user());
        Flow::Continue
    }

    /// What becomes of those who have not logged in.
    fn unknown(self: &Arc<Self>, x: &mut Exchange, browser: &Browser, now: u64) -> Flow {
        match browser.action {
            UnauthAction::Deny => answer(self.answers.denied.clone()),
            UnauthAction::Pass => {
                browser.shape.hide(&mut x.request.fields);
                if x.consumer.is_none() {
                    identity::disown(x);
                }
                Flow::Continue
            }
            UnauthAction::Auth => self.begin(x, browser, now),
        }
    }

    fn lacking(&self, lacking: &Lacking) -> Answer {
        match lacking {
            Lacking::Schema => self.answers.invalid_token(&lacking.to_string()),
            _ => answers::refusal(403, serde_json::json!({ "error": lacking.to_string() })),
        }
    }

    /// Sessions cannot be looked up or kept.
    pub(crate) fn unkept(&self, unkept: &Unkept) -> Answer {
        match unkept {
            Unkept::TooLarge => {
                tracing::warn!("openid-connect: {unkept}; ask for fewer scopes, or switch set_userinfo_header off");
                answers::told(500, "The session is larger than is kept.")
            }
            Unkept::Away(_) => {
                tracing::debug!(%unkept, "openid-connect: nobody can be recognised");
                answers::told(503, "The store of the sessions cannot be reached.")
            }
        }
    }

    /// The provider gives nothing; the log says more than the client is told.
    pub(crate) fn unavailable(&self, trouble: &Trouble) -> Answer {
        tracing::warn!(%trouble, "openid-connect: the provider gives no answer that is of use");
        self.answers.unavailable.clone()
    }
}

impl Browser {
    /// The session that a request carries, if it is good.
    pub(crate) fn session(&self, x: &Exchange, now: u64) -> Option<Session> {
        let session = Session::open(&self.sealer, &self.shape.find(&x.request)?)?;
        self.is_good(&session, now).then_some(session)
    }

    fn is_good(&self, session: &Session, now: u64) -> bool {
        session.standing(&self.lifetimes, now) != Standing::Over && self.ended.0.get(&session.id).is_none()
    }

    /// The id of the session that a request has a ticket for.
    fn ticket(&self, x: &Exchange) -> Option<String> {
        String::from_utf8(self.sealer.open(&self.shape.find(&x.request)?)?).ok()
    }

    /// The lines that keep a session; `None` when it is too large, or there is no randomness.
    pub(crate) fn write(&self, x: &Exchange, session: &Session) -> Option<Vec<String>> {
        let value = match &self.stored {
            None => session.seal(&self.sealer, random()?)?,
            Some(_) => self.sealer.seal(random()?, session.id.as_bytes())?,
        };
        self.shape.keep(&value, self.shape.held(&x.request), is_https(x))
    }
}

/// Writes down who it is, for `acl` and the variables `jwt_claim_*`: nobody who is a consumer of ours.
fn introduce(x: &mut Exchange, claims: Map<String, Value>, user: Option<Value>) {
    identity::disown(x);
    x.put(EXTERNAL_USER, user.unwrap_or_else(|| Value::Object(claims.clone())));
    x.put(JWT_CLAIMS, claims);
}

/// Whether the client speaks TLS, to us or to a proxy that is believed: only from one does the client's address differ from the peer's.
pub(crate) fn is_https(x: &Exchange) -> bool {
    let forwarded =
        || x.request.fields.get_known(Name::XForwardedProto).is_some_and(|proto| proto.eq_ignore_ascii_case(b"https"));
    x.connection.tls.is_some() || (x.remote.ip() != x.connection.peer.ip() && forwarded())
}

/// Random bytes that nobody can guess; `None` when the system has none.
pub(crate) fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).ok().map(|()| bytes)
}

/// What is answered when the cookies of a session would be more than browsers take.
pub(crate) fn too_large() -> Answer {
    tracing::warn!(
        "openid-connect: a session is larger than cookies can hold; ask for fewer scopes, or switch set_userinfo_header off"
    );
    answers::told(500, "The session is larger than cookies can hold.")
}

pub(crate) fn answer(answer: Answer) -> Flow {
    Flow::Answer(Box::new(answer))
}
