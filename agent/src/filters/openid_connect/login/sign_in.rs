//! Signing in at a provider, renewing what it issued, and signing out: the calls of each, in order. It knows no requests of clients and no cookies.

use std::future::Future;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::super::config::AuthMethod;
use super::super::flights::Flights;
use super::super::form::Form;
use super::super::provider::{Client, Issued, Metadata, Provider, Trouble, pushed};
use super::super::session::{Session, Tokens};
use super::id_token::{self, Demands, IdTokenError};
use super::{Pending, Wishes};
use crate::filters::jose::{Algorithm, JoseError, KeySet, Unverified};

/// Seconds for which a renewal is given to those who come late with the old refresh token: requests of one browser overlap, and many providers
/// take a refresh token that comes twice for stolen.
const RENEWAL_MEMORY: u64 = 60;

/// One client of one provider.
pub(crate) struct SignIn {
    pub(crate) provider: Arc<Provider>,
    pub(crate) client: Arc<Client>,
    pub(crate) method: AuthMethod,
    pub(crate) wishes: Wishes,
    /// The one algorithm of ID tokens, where it is configured.
    pub(crate) algorithm: Option<Algorithm>,
    /// The client secret as a key, where ID tokens are signed with it.
    pub(crate) secret_keys: Option<Arc<KeySet>>,
    /// Issuers that are believed instead of the provider alone.
    pub(crate) issuers: Option<Vec<Box<str>>>,
    /// Seconds by which clocks may differ.
    pub(crate) slack: u64,
    /// Whether the provider is asked who the user is.
    pub(crate) asks_for_user: bool,
    /// Where the parameters of logins are pushed to.
    pub(crate) pushes: Pushes,
    pub(crate) renewals: Arc<Renewals>,
}

/// Whether the parameters of a login go to the provider directly (RFC 9126).
pub(crate) enum Pushes {
    /// No, through the browser.
    No,
    /// To the endpoint that the provider names.
    ToOwn,
    /// To this endpoint.
    To(String),
}

/// Renewals under way and just done, shared by all workers.
pub(crate) struct Renewals(Flights<[u8; 32], Result<Arc<Tokens>, Failure>>);

/// Why nobody is signed in.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failure {
    /// The provider gives nothing.
    #[error(transparent)]
    Trouble(#[from] Trouble),
    /// What it says is not believed.
    #[error(transparent)]
    IdToken(#[from] IdTokenError),
    /// It names another issuer, or none where it must (RFC 9207).
    #[error("the answer comes from another provider (iss)")]
    Issuer,
    /// There is no ID token.
    #[error("the provider issues no ID token; scope must hold openid")]
    NoIdToken,
}

impl Default for Renewals {
    fn default() -> Renewals {
        Renewals(Flights::new(|end| match end {
            Err(Failure::Trouble(Trouble::Down(_))) => 1,
            _ => RENEWAL_MEMORY,
        }))
    }
}

impl SignIn {
    /// Where the browser is sent to.
    ///
    /// # Errors
    /// The provider cannot be asked, or does not take pushed parameters.
    pub(crate) async fn address(&self, metadata: &Metadata, pending: &Pending, now: u64) -> Result<String, Failure> {
        let address = metadata.authorization_endpoint.as_deref().ok_or_else(|| missing("authorization_endpoint"))?;
        let mut form = pending.request(&self.wishes);
        let endpoint = match &self.pushes {
            Pushes::No => return Ok(form.behind(address)),
            Pushes::To(url) => url.as_str(),
            Pushes::ToOwn => {
                let own = metadata.pushed_authorization_request_endpoint.as_deref();
                own.ok_or_else(|| missing("pushed_authorization_request_endpoint"))?
            }
        };
        let authorization = self.prove(&mut form, endpoint, now)?;
        let request = pushed(&self.provider.post(endpoint, form.into_text(), authorization).await?)?;
        Ok(Form::default().with([("client_id", self.wishes.client_id.as_str()), ("request_uri", &request)]).behind(address))
    }

    /// Makes a session of a code.
    ///
    /// # Errors
    /// The provider gives nothing, or what it says is not believed.
    pub(crate) async fn finish(
        &self,
        pending: &Pending,
        code: &str,
        issuer: Option<&str>,
        id: String,
        now: u64,
    ) -> Result<Session, Failure> {
        let metadata = self.provider.metadata(now).await?;
        let silent = issuer.is_none() && metadata.authorization_response_iss_parameter_supported;
        if silent || issuer.is_some_and(|issuer| issuer != metadata.issuer) {
            return Err(Failure::Issuer);
        }
        let mut form =
            Form::default().with([("grant_type", "authorization_code"), ("code", code), ("redirect_uri", &pending.redirect_uri)]);
        if let Some(verifier) = &pending.verifier {
            form.add("code_verifier", verifier);
        }
        let mut tokens = self.ask_for_tokens(&metadata, form, now).await?;
        let token = tokens.id.clone().ok_or(Failure::NoIdToken)?;
        let context = Context { nonce: pending.nonce.as_deref(), access_token: tokens.access.as_deref(), subject: None };
        let claims = self.verify(&metadata, &token, &context, now).await?;
        if tokens.scope.is_empty() {
            tokens.scope.clone_from(&self.wishes.scope);
        }
        let subject = claims.get("sub").and_then(serde_json::Value::as_str).unwrap_or_default();
        let user = match (&metadata.userinfo_endpoint, &tokens.access) {
            (Some(url), Some(access)) if self.asks_for_user => self.ask_for_user(url, access, subject).await,
            _ => None,
        };
        Ok(Session::begin(id, tokens, user, now))
    }

    /// What a refresh token brings, asked for once even if many need it at the same time.
    pub(crate) fn renew(
        self: &Arc<Self>,
        session: &Session,
        now: u64,
    ) -> impl Future<Output = Result<Arc<Tokens>, Failure>> + 'static {
        let this = self.clone();
        let (refresh, old) = (session.tokens.refresh.clone().unwrap_or_default(), session.tokens.id.clone());
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, refresh.as_bytes()).as_ref());
        let shared =
            self.renewals.0.share(key, now, async move { this.refresh(&refresh, old.as_deref(), now).await.map(Arc::new) });
        async move {
            let stopped = || Err(Trouble::down("the worker that asked was stopped".to_owned()).into());
            shared.await.unwrap_or_else(stopped)
        }
    }

    /// Revokes what a session holds (RFC 7009); what the provider answers changes nothing.
    pub(crate) async fn revoke(&self, metadata: &Metadata, tokens: &Tokens, now: u64) {
        let Some(endpoint) = metadata.revocation_endpoint.as_deref() else { return };
        for (hint, token) in [("refresh_token", &tokens.refresh), ("access_token", &tokens.access)] {
            let Some(token) = token else { continue };
            let mut form = Form::default().with([("token", token.as_str()), ("token_type_hint", hint)]);
            let posted = match self.prove(&mut form, endpoint, now) {
                Ok(authorization) => self.provider.post(endpoint, form.into_text(), authorization).await,
                Err(trouble) => Err(trouble),
            };
            if let Err(trouble) = posted {
                tracing::warn!(%trouble, "openid-connect: a {hint} could not be revoked");
            }
        }
    }

    async fn refresh(&self, refresh: &str, old: Option<&str>, now: u64) -> Result<Tokens, Failure> {
        let metadata = self.provider.metadata(now).await?;
        let form = Form::default().with([("grant_type", "refresh_token"), ("refresh_token", refresh)]);
        let tokens = self.ask_for_tokens(&metadata, form, now).await?;
        if let Some(token) = &tokens.id {
            let old = old.and_then(id_token::claims_of_verified).unwrap_or_default();
            let subject = old.get("sub").and_then(serde_json::Value::as_str);
            let context = Context { nonce: None, access_token: tokens.access.as_deref(), subject };
            self.verify(&metadata, token, &context, now).await?;
        }
        Ok(tokens)
    }

    async fn ask_for_tokens(&self, metadata: &Metadata, mut form: Form, now: u64) -> Result<Tokens, Failure> {
        let endpoint = metadata.token_endpoint.as_deref().ok_or_else(|| missing("token_endpoint"))?;
        let authorization = self.prove(&mut form, endpoint, now)?;
        let reply = self.provider.post(endpoint, form.into_text(), authorization).await?;
        Ok(Issued::read(&reply, now)?.0)
    }

    async fn verify(
        &self,
        metadata: &Metadata,
        token: &str,
        context: &Context<'_>,
        now: u64,
    ) -> Result<serde_json::Map<String, serde_json::Value>, Failure> {
        let algorithms = match self.algorithm {
            Some(algorithm) => vec![algorithm],
            None => metadata.id_token_algorithms(),
        };
        let keys = match &self.secret_keys {
            Some(keys) => keys.clone(),
            None => {
                // Nothing is fetched for what is refused anyway.
                let unverified = Unverified::parse(token).map_err(IdTokenError::Jose)?;
                let algorithm = unverified.algorithm();
                if !algorithms.contains(&algorithm) {
                    return Err(IdTokenError::Jose(JoseError::Algorithm(algorithm)).into());
                }
                self.provider.clone().keys(unverified.kid().map(str::to_owned), algorithm, now).await?
            }
        };
        let provider = [metadata.issuer.as_str().into()];
        let demands = Demands {
            issuers: self.issuers.as_deref().unwrap_or(&provider),
            client_id: &self.wishes.client_id,
            algorithms: &algorithms,
            slack: self.slack,
            nonce: context.nonce,
            access_token: context.access_token,
            subject: context.subject,
        };
        Ok(id_token::verify(token, &keys, &demands, now)?)
    }

    /// What the provider says of the user, JSON; nothing when it says it of somebody else (OpenID Connect Core section 5.3.2).
    async fn ask_for_user(&self, url: &str, access_token: &str, subject: &str) -> Option<String> {
        match self.provider.user(url, access_token).await {
            Ok(user) if user.get("sub").and_then(serde_json::Value::as_str) == Some(subject) => serde_json::to_string(&user).ok(),
            Ok(_) => {
                tracing::warn!("openid-connect: the userinfo endpoint speaks of another user (sub), so nobody is told");
                None
            }
            Err(trouble) => {
                tracing::warn!(%trouble, "openid-connect: the userinfo endpoint cannot be asked, so upstreams get no X-Userinfo");
                None
            }
        }
    }

    fn prove(&self, form: &mut Form, endpoint: &str, now: u64) -> Result<Option<String>, Trouble> {
        self.client.prove(self.method, form, endpoint, now)
    }
}

/// What is known when an ID token comes.
struct Context<'a> {
    nonce: Option<&'a str>,
    access_token: Option<&'a str>,
    subject: Option<&'a str>,
}

fn missing(endpoint: &str) -> Trouble {
    Trouble::down(format!("its discovery document names no {endpoint}"))
}

/// A name for a session, or anything else that nobody may guess.
pub(crate) fn name_of(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
