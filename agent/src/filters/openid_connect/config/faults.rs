//! The faults of a configuration that its types cannot express.

use super::super::super::check::{self, Faults};
use super::super::provider::Signer;
use super::super::rules;
use super::{AuthMethod, Config, SameSite, SessionConfig, Storage};
use crate::filters::jose::{Algorithm, Key};
use crate::http::chars::is_token;
use crate::outbound::Url;
use crate::secrets::reference::is_reference;

/// Parameters of the authorization request that are ours.
const OWN_PARAMS: [&str; 9] = [
    "response_type",
    "response_mode",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
];

/// Shortest secret that cookies are sealed with.
pub(crate) const MIN_SECRET: usize = 16;
/// Most seconds by which clocks may differ, and that anything may last.
const DAY: u64 = 86_400;

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        self.check_client(faults);
        self.check_tokens(faults);
        self.check_urls(faults);
        self.check_unsupported(faults);
        if self.realm.contains(|c: char| c.is_control() || !c.is_ascii() || c == '"' || c == '\\') {
            faults.add("realm", "expected text without quotes, backslashes and control characters");
        }
        faults.range("timeout", self.timeout, 1, 60);
        faults.range("iat_slack", self.iat_slack, 0, DAY);
        faults.range("jwk_expires_in", self.jwk_expires_in, 1, 365 * DAY);
        for name in self.authorization_params.keys().filter(|name| OWN_PARAMS.contains(&name.as_str())) {
            faults.add(format!("authorization_params.{name}"), "this parameter is the plugin's own");
        }
        for (index, scope) in self.required_scopes.iter().enumerate() {
            if scope.is_empty() || scope.contains(' ') {
                faults.add(format!("required_scopes[{index}]"), "expected one scope");
            }
        }
        if let Some(Err(error)) = self.claim_schema.as_ref().map(rules::compile_schema) {
            faults.add("claim_schema", error);
        }
        check_session(&self.session, faults);
    }
}

impl Config {
    /// How this gateway proves itself to the token endpoint.
    pub(crate) fn token_auth(&self) -> AuthMethod {
        let usual = if self.client_secret.is_some() { AuthMethod::ClientSecretBasic } else { AuthMethod::None };
        self.token_endpoint_auth_method.unwrap_or(usual)
    }

    /// What cookies are sealed with.
    pub(crate) fn cookie_secret(&self) -> Option<&str> {
        self.session.secret.as_deref().or(self.client_secret.as_deref())
    }

    fn check_client(&self, faults: &mut Faults) {
        if self.client_id.is_empty() {
            faults.add("client_id", "string too short, expected at least 1, got 0");
        }
        if self.client_secret.as_deref() == Some("") {
            faults.add("client_secret", "string too short, expected at least 1, got 0");
        }
        let mut methods = Vec::new();
        if !self.bearer_only {
            methods.push(("token_endpoint_auth_method", self.token_auth()));
        }
        if self.public_key.is_none() && !self.use_jwks && (self.bearer_only || self.introspection_endpoint.is_some()) {
            methods.push(("introspection_endpoint_auth_method", self.introspection_endpoint_auth_method));
        }
        for (path, method) in methods {
            match method {
                AuthMethod::ClientSecretBasic | AuthMethod::ClientSecretPost if self.client_secret.is_none() => {
                    faults.add("client_secret", format!("expected, because of {path}"));
                }
                AuthMethod::PrivateKeyJwt if self.client_rsa_private_key.is_none() => {
                    faults.add("client_rsa_private_key", format!("expected, because of {path}"));
                }
                _ => {}
            }
        }
        if let Some(pem) = self.client_rsa_private_key.as_deref().filter(|pem| !is_reference(pem))
            && let Err(error) = Signer::new(pem, None, 1)
        {
            faults.add("client_rsa_private_key", error);
        }
        faults.range("client_jwt_assertion_expires_in", self.client_jwt_assertion_expires_in, 1, 3_600);
        if self.bearer_only {
            return;
        }
        match self.cookie_secret() {
            Some(secret) if is_reference(secret) || secret.len() >= MIN_SECRET => {}
            _ if self.session.secret.is_some() => {
                faults.add("session.secret", format!("string too short, expected at least {MIN_SECRET}"));
            }
            _ => faults.add(
                "session.secret",
                format!("expected at least {MIN_SECRET} characters, the same on all nodes: there is no client_secret that long instead"),
            ),
        }
    }

    fn check_tokens(&self, faults: &mut Faults) {
        if let Some(pem) = self.public_key.as_deref().filter(|pem| !is_reference(pem))
            && let Err(error) = Key::pem_for_any(pem)
        {
            faults.add("public_key", error.to_string());
        }
        let Some(name) = &self.token_signing_alg_values_expected else { return };
        const PATH: &str = "token_signing_alg_values_expected";
        match Algorithm::of_name(name) {
            None => faults.add(PATH, format!("expected the name of a signature algorithm, for example RS256, got \"{name}\"")),
            Some(algorithm) if algorithm.is_symmetric() => {
                if self.public_key.is_some() || self.use_jwks {
                    faults.add(PATH, "a shared secret does not go together with public_key and use_jwks");
                } else if self.client_secret.is_none() {
                    faults.add("client_secret", "expected, because of token_signing_alg_values_expected");
                }
            }
            Some(_) => {}
        }
    }

    fn check_urls(&self, faults: &mut Faults) {
        let par = self.par.as_ref().and_then(|par| par.endpoint.as_ref());
        for (path, url) in [
            ("discovery", Some(&self.discovery)),
            ("introspection_endpoint", self.introspection_endpoint.as_ref()),
            ("par.endpoint", par),
        ] {
            if let Some(Err(error)) = url.map(|url| Url::parse(url)) {
                faults.add(path, error);
            }
        }
        for (path, url) in [("redirect_uri", &self.redirect_uri), ("post_logout_redirect_uri", &self.post_logout_redirect_uri)] {
            if let Some(url) = url
                && !is_path(url)
                && Url::parse(url).is_err()
            {
                faults.add(path, "expected a URL, or a path that starts with one /");
            }
        }
        if !is_path(&self.logout_path) {
            faults.add("logout_path", "expected a path that starts with one /");
        }
        if self.redirect_uri.as_deref().and_then(path_of).is_some_and(|path| path == self.logout_path) {
            faults.add("redirect_uri", "expected another path than logout_path");
        }
    }

    fn check_unsupported(&self, faults: &mut Faults) {
        if self.accept_none_alg {
            faults.add("accept_none_alg", "tokens without a signature are never believed; leave this out");
        }
        if self.proxy_opts.is_some() {
            faults.add("proxy_opts", "not supported: the provider is asked directly; leave this out");
        }
        if self.dpop.as_ref().is_some_and(|dpop| dpop.get("enabled").is_none_or(|enabled| enabled.as_bool() != Some(false))) {
            faults.add("dpop", "not supported: tokens are bearer tokens; leave this out");
        }
    }
}

/// The path of a URL, or of a path with a query.
pub(crate) fn path_of(url: &str) -> Option<String> {
    let target = if is_path(url) { url.to_owned() } else { Url::parse(url).ok()?.target };
    target.split('?').next().map(str::to_owned)
}

/// Whether this is a path of our own host.
pub(crate) fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && !text.starts_with("//")
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'#')
}

fn check_redis(session: &SessionConfig, faults: &mut Faults) {
    let Some(redis) = &session.redis else { return };
    if session.storage == Storage::Cookie {
        faults.add("session.redis", "has no meaning without session.storage: redis");
    }
    let texts = [("host", Some(&redis.host)), ("username", redis.username.as_ref()), ("password", redis.password.as_ref())];
    for (field, _) in texts.iter().filter(|(_, text)| text.is_some_and(String::is_empty)) {
        faults.add(format!("session.redis.{field}"), "string too short, expected at least 1, got 0");
    }
    if redis.username.is_some() && redis.password.is_none() {
        faults.add("session.redis.password", "a user needs a password");
    }
    if redis.prefix.is_empty() || redis.prefix.len() > 64 || !redis.prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
        faults.add("session.redis.prefix", "expected 1 to 64 visible ASCII characters");
    }
    faults.range("session.redis.port", redis.port, 1, u16::MAX);
    faults.range("session.redis.database", redis.database, 0, i32::MAX as u32);
    let waits =
        [("connect_timeout", redis.connect_timeout), ("send_timeout", redis.send_timeout), ("read_timeout", redis.read_timeout)];
    for (field, wait) in waits {
        faults.range(&format!("session.redis.{field}"), wait, 1, 60_000);
    }
    faults.range("session.redis.keepalive_timeout", redis.keepalive_timeout, 1_000, 3_600_000);
}

fn check_session(session: &SessionConfig, faults: &mut Faults) {
    check_redis(session, faults);
    let name = session.cookie_name.as_str();
    if !is_token(name.as_bytes()) || name.len() > 64 {
        faults.add("session.cookie_name", "expected a token of at most 64 characters");
    }
    let attribute = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';' && byte != b',');
    if !session.cookie_path.starts_with('/') || !attribute(&session.cookie_path) || session.cookie_path.len() > 128 {
        faults.add("session.cookie_path", "expected a path that starts with /");
    }
    if session.cookie_domain.as_deref().is_some_and(|domain| domain.is_empty() || !attribute(domain) || domain.len() > 255) {
        faults.add("session.cookie_domain", "expected the name of a domain");
    }
    let secure = session.cookie_secure;
    let needs = session.cookie_same_site == SameSite::None || session.cookie_partitioned || name.starts_with("__");
    if needs && secure == Some(false) {
        faults.add("session.cookie_secure", "browsers drop such a cookie unless it is secure");
    }
    if name.starts_with("__Host-") && (session.cookie_path != "/" || session.cookie_domain.is_some()) {
        faults.add("session.cookie_name", "browsers take __Host- cookies only with the path / and without a domain");
    }
}
