//! The requests of a browser that the plugin answers itself: off to the provider, back from it, and out.

use std::sync::Arc;

use super::super::super::{Flow, Resume};
use super::super::form::Form;
use super::super::login::sign_in::{Failure, name_of};
use super::super::login::{Callback, Dice, PATIENCE, Pending};
use super::super::provider::{Metadata, Trouble};
use super::super::session::{Session, Unkept};
use super::answers;
use super::{Browser, Return, Site, answer, is_https, random, too_large};
use crate::exchange::{Answer, Exchange};
use crate::http::Method;

/// What is put behind a path to make the path that people come back to.
const SUFFIX: &str = "/.apisix/redirect";

/// Longest URL that people come back to; it stands in a cookie.
const MAX_RETURN: usize = 1_024;

impl Site {
    /// Sends the browser to the provider.
    pub(crate) fn begin(self: &Arc<Self>, x: &mut Exchange, browser: &Browser, now: u64) -> Flow {
        let dice = || Some((Dice { state: random()?, nonce: random()?, verifier: random()? }, random()?));
        let Some((dice, nonce)) = dice() else { return answer(answers::told(500, "There is no randomness.")) };
        let back = browser.return_uri(x);
        if x.request.authority.is_empty() || back.len() > MAX_RETURN {
            return answer(answers::told(
                400,
                "Nobody can log in from here: the request names no host, or its path is too long.",
            ));
        }
        let target = match &x.original.query {
            Some(query) => format!("{}?{query}", x.original.path),
            None => x.original.path.clone(),
        };
        let mut pending = Pending::begin(&browser.sign_in.wishes, &dice, &target, back, now);
        pending.before = browser.held(x);
        let Some(sealed) = pending.seal(&browser.login_sealer, nonce) else { return answer(too_large()) };
        let cookie = browser.shape.keep_login(&pending.state, &sealed, PATIENCE, is_https(x));
        let (site, sign_in) = (self.clone(), browser.sign_in.clone());
        Flow::Wait(Box::pin(async move {
            let address = async {
                let metadata = sign_in.provider.metadata(now).await?;
                sign_in.address(&metadata, &pending, now).await
            };
            let address = address.await;
            let resume: Resume = Box::new(move |_| match address {
                Ok(address) => answer(answers::redirect(&address, &[cookie])),
                Err(failure) => answer(site.failed(&failure)),
            });
            resume
        }))
    }

    /// Takes what the provider sends the browser back with.
    pub(crate) fn come_back(self: &Arc<Self>, x: &mut Exchange, browser: &Browser, now: u64) -> Flow {
        if x.request.method != Method::Get {
            return answer(answers::told(400, "Only GET leads back from a login."));
        }
        // The code is for us alone: no log shall have it.
        let query = x.request.query.take().unwrap_or_default();
        x.original.query = None;
        let begun = Callback::parse(&query).and_then(|(state, callback)| {
            let cookie = browser.shape.find_login(&x.request, &state);
            Ok((Pending::of(&browser.login_sealer, cookie, &state, now)?, callback))
        });
        let (pending, callback) = match begun {
            Ok(begun) => begun,
            Err(distrust) => return answer(answers::told(400, &distrust.to_string())),
        };
        let done = browser.shape.forget_login(&pending.state, is_https(x));
        let (code, issuer) = match callback {
            Callback::Code { code, issuer } => (code, issuer),
            Callback::Refused(word) => {
                let mut refused = answers::told(401, &format!("The provider refuses the login: {word}"));
                answers::put_cookies(&mut refused.head.fields, &[done]);
                return answer(refused);
            }
        };
        let Some(id) = random::<16>() else { return answer(answers::told(500, "There is no randomness.")) };
        let (site, sign_in, stored) = (self.clone(), browser.sign_in.clone(), browser.stored.clone());
        // Cookies that are strict do not come along from the provider: what the browser had when it left counts too.
        let before: Vec<String> = pending.before.iter().cloned().chain(browser.held(x)).collect();
        Flow::Wait(Box::pin(async move {
            let finished = sign_in.finish(&pending, &code, issuer.as_deref(), name_of(&id), now).await;
            let kept = match (&stored, &finished, random()) {
                (Some(stored), Ok(session), Some(nonce)) => stored.begin(session, nonce, now).await,
                _ => Ok(()),
            };
            if finished.is_ok() && kept.is_ok() {
                site.replace(&before).await;
            }
            let resume: Resume = Box::new(move |x| answer(site.finished(x, &pending, finished, kept, done)));
            resume
        }))
    }

    /// Ends sessions in whose place there is another one, so that nobody goes on with a ticket that their owner has given up.
    async fn replace(&self, before: &[String]) {
        let Some(browser) = &self.browser else { return };
        for id in before {
            browser.ended.0.insert(id.clone(), ());
            if let Some(stored) = &browser.stored
                && let Err(unkept) = stored.end(id).await
            {
                tracing::debug!(%unkept, "openid-connect: a session that was replaced goes on until it ends by itself");
            }
        }
    }

    fn finished(
        &self,
        x: &Exchange,
        pending: &Pending,
        finished: Result<Session, Failure>,
        kept: Result<(), Unkept>,
        done: String,
    ) -> Answer {
        let Some(browser) = &self.browser else { return too_large() };
        if let Err(unkept) = kept {
            let mut failed = self.unkept(&unkept);
            answers::put_cookies(&mut failed.head.fields, &[done]);
            return failed;
        }
        let kept = finished.map(|session| browser.write(x, &session));
        match kept {
            Ok(Some(mut cookies)) => {
                cookies.push(done);
                if browser.bounces {
                    answers::bounce(&pending.target, &cookies)
                } else {
                    answers::redirect(&pending.target, &cookies)
                }
            }
            Ok(None) => too_large(),
            Err(failure) => {
                let mut failed = self.failed(&failure);
                answers::put_cookies(&mut failed.head.fields, &[done]);
                failed
            }
        }
    }

    /// Ends the session, here and at the provider.
    pub(crate) fn log_out(self: &Arc<Self>, x: &mut Exchange, browser: &Browser, session: Option<Session>, now: u64) -> Flow {
        if let Some(session) = &session {
            browser.ended.0.insert(session.id.clone(), ());
        }
        let cookies = browser.shape.forget(&x.request, is_https(x));
        let out = browser
            .post_logout
            .as_deref()
            .map(|uri| if uri.starts_with('/') { format!("{}{uri}", origin(x)) } else { uri.to_owned() });
        let (client_id, sign_in) = (browser.sign_in.wishes.client_id.clone(), browser.sign_in.clone());
        let (revokes, stored, site) = (browser.revokes, browser.stored.clone(), self.clone());
        Flow::Wait(Box::pin(async move {
            if let (Some(stored), Some(session)) = (&stored, &session)
                && let Err(unkept) = stored.end(&session.id).await
            {
                // Whoever has a copy of the ticket would stay in elsewhere: the browser keeps its own, and may try again.
                let failed: Resume = Box::new(move |_| answer(site.unkept(&unkept)));
                return failed;
            }
            let metadata = sign_in.provider.metadata(now).await.ok();
            if let (true, Some(metadata), Some(session)) = (revokes, &metadata, &session) {
                sign_in.revoke(metadata, &session.tokens, now).await;
            }
            let hint = session.as_ref().and_then(|session| session.tokens.id.as_deref());
            let way = metadata.as_deref().and_then(|metadata| way_out(metadata, &client_id, hint, out.as_deref())).or(out);
            let resume: Resume = Box::new(move |_| {
                answer(match way {
                    Some(way) => answers::redirect(&way, &cookies),
                    None => answers::logged_out(&cookies),
                })
            });
            resume
        }))
    }

    fn failed(&self, failure: &Failure) -> Answer {
        match failure {
            Failure::Trouble(trouble @ Trouble::Down(_)) => self.unavailable(trouble),
            Failure::Trouble(Trouble::Refused(word)) => {
                tracing::warn!(word = &**word, "openid-connect: the provider refuses a login");
                answers::told(401, &format!("The provider refuses the login: {word}"))
            }
            failure => {
                tracing::warn!(%failure, "openid-connect: what the provider says is not believed");
                answers::told(401, &format!("The provider's answer is not believed: {failure}"))
            }
        }
    }
}

impl Browser {
    /// Whether people come back from the provider by this path.
    pub(crate) fn is_return(&self, path: &str) -> bool {
        match &self.back {
            Return::Beside => path.ends_with(SUFFIX),
            Return::At { path: own, .. } => **own == *path,
        }
    }

    /// The id of the session that the browser has, good or not.
    fn held(&self, x: &Exchange) -> Option<String> {
        match &self.stored {
            Some(_) => self.ticket(x),
            None => Session::open(&self.sealer, &self.shape.find(&x.request)?).map(|session| session.id),
        }
    }

    fn return_uri(&self, x: &Exchange) -> String {
        match &self.back {
            Return::Beside => format!("{}{}{SUFFIX}", origin(x), x.request.path.trim_end_matches('/')),
            Return::At { uri, absolute: true, .. } => uri.to_string(),
            Return::At { uri, .. } => format!("{}{uri}", origin(x)),
        }
    }
}

/// Where this host is, as the client sees it.
fn origin(x: &Exchange) -> String {
    format!("{}://{}", if is_https(x) { "https" } else { "http" }, x.request.authority)
}

/// Where the provider ends its own session (OpenID Connect RP-Initiated Logout section 2).
fn way_out(metadata: &Metadata, client_id: &str, hint: Option<&str>, out: Option<&str>) -> Option<String> {
    let mut form = Form::default();
    if let Some(hint) = hint {
        form.add("id_token_hint", hint);
    }
    form.add("client_id", client_id);
    if let Some(out) = out {
        form.add("post_logout_redirect_uri", out);
    }
    Some(form.behind(metadata.end_session_endpoint.as_deref()?))
}
