//! Configuration of `openid-connect`.

pub(crate) mod faults;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Configuration on a route.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Client id that the provider knows this gateway by.
    #[schemars(length(min = 1))]
    pub client_id: String,
    /// Client secret; not needed where tokens are checked by key alone, with `private_key_jwt` and with `none`.
    pub client_secret: Option<String>,
    /// URL of the provider's discovery document (`/.well-known/openid-configuration`).
    #[schemars(length(min = 1))]
    pub discovery: String,
    /// Scopes that a login asks for, separated by blanks.
    #[serde(default = "scope")]
    pub scope: String,
    /// Scopes without which a token is refused with 403.
    #[serde(default)]
    pub required_scopes: Vec<String>,
    /// Only tokens in the request count: nobody is sent to the provider, and there are no cookies.
    #[serde(default)]
    pub bearer_only: bool,
    /// What happens to those who have not logged in.
    #[serde(default)]
    pub unauth_action: UnauthAction,
    /// Where the provider sends people back to: a URL or a path of this gateway; the request's path with `/.apisix/redirect` behind it when absent.
    pub redirect_uri: Option<String>,
    /// Path that ends the session.
    #[serde(default = "logout_path")]
    pub logout_path: String,
    /// Where people come out after a logout.
    pub post_logout_redirect_uri: Option<String>,
    /// What `WWW-Authenticate` names.
    #[serde(default = "realm")]
    pub realm: String,
    /// Seconds that one call to the provider may take.
    #[serde(default = "timeout")]
    #[schemars(range(min = 1, max = 60))]
    pub timeout: u32,
    /// Whether the provider's certificate is verified.
    #[serde(default = "yes")]
    pub ssl_verify: bool,
    /// URL that says whether a bearer token is good; that of the discovery document when absent.
    pub introspection_endpoint: Option<String>,
    /// How this gateway proves itself to the introspection endpoint.
    #[serde(default)]
    pub introspection_endpoint_auth_method: AuthMethod,
    /// Seconds for which an introspected token is remembered at most; 0 is until the token expires.
    #[serde(default)]
    pub introspection_interval: u64,
    /// How this gateway proves itself to the token endpoint; `client_secret_basic` when absent, `none` without a secret.
    pub token_endpoint_auth_method: Option<AuthMethod>,
    /// Private key (PEM) that signs the assertions of `private_key_jwt`.
    pub client_rsa_private_key: Option<String>,
    /// Id of that key, told to the provider.
    pub client_rsa_private_key_id: Option<String>,
    /// Seconds for which such an assertion is good.
    #[serde(default = "assertion_lifetime")]
    #[schemars(range(min = 1, max = 3600))]
    pub client_jwt_assertion_expires_in: u32,
    /// Public key (PEM) that bearer tokens are verified with.
    pub public_key: Option<String>,
    /// Whether bearer tokens are verified with the provider's published keys.
    #[serde(default)]
    pub use_jwks: bool,
    /// The one algorithm by which tokens may be signed; what the provider's discovery document names when absent.
    pub token_signing_alg_values_expected: Option<String>,
    /// Whether the code is bound to this gateway by PKCE (S256); always so without a client secret.
    #[serde(default)]
    pub use_pkce: bool,
    /// Whether the ID token must carry the nonce of the login.
    #[serde(default)]
    pub use_nonce: bool,
    /// Pushed authorization requests (RFC 9126).
    pub par: Option<Par>,
    /// Refused when enabled: sender-constrained tokens are not implemented.
    pub dpop: Option<Map<String, Value>>,
    /// What the claims of a token must say.
    #[serde(default)]
    pub claim_validator: ClaimValidator,
    /// JSON Schema of what was learnt: the claims of a bearer token; `user`, `access_token` and `id_token` of a login.
    pub claim_schema: Option<Map<String, Value>>,
    /// Cookies that hold the session, and how long it lasts.
    #[serde(default)]
    pub session: SessionConfig,
    /// Whether the upstream gets the access token, in `X-Access-Token`.
    #[serde(default = "yes")]
    pub set_access_token_header: bool,
    /// Whether the access token goes to the upstream in `Authorization` instead.
    #[serde(default)]
    pub access_token_in_authorization_header: bool,
    /// Whether the upstream gets the claims of the ID token, in `X-ID-Token`, JSON in base64.
    #[serde(default = "yes")]
    pub set_id_token_header: bool,
    /// Whether the upstream gets the ID token as it was issued, in `X-Raw-ID-Token`.
    #[serde(default)]
    pub set_raw_id_token_header: bool,
    /// Whether the upstream gets what the provider says of the user, in `X-Userinfo`, JSON in base64.
    #[serde(default = "yes")]
    pub set_userinfo_header: bool,
    /// Whether the upstream gets the refresh token, in `X-Refresh-Token`.
    #[serde(default)]
    pub set_refresh_token_header: bool,
    /// Whether an access token that has expired is renewed by its refresh token.
    #[serde(default = "yes")]
    pub renew_access_token_on_expiry: bool,
    /// Seconds before its end at which an access token counts as expired.
    #[serde(default)]
    pub access_token_expires_leeway: u64,
    /// Seconds by which the provider's clock may differ.
    #[serde(default = "iat_slack")]
    pub iat_slack: u64,
    /// Refused when true: tokens without a signature are never believed.
    #[serde(default)]
    pub accept_none_alg: bool,
    /// Seconds for which the provider's discovery document and keys are used before they are fetched anew.
    #[serde(default = "jwk_expires_in")]
    #[schemars(range(min = 1))]
    pub jwk_expires_in: u64,
    /// Refused: calls to the provider go through no proxy.
    pub proxy_opts: Option<Map<String, Value>>,
    /// More parameters of the authorization request.
    #[serde(default)]
    pub authorization_params: BTreeMap<String, String>,
    /// Whether a logout revokes the tokens at the provider.
    #[serde(default)]
    pub revoke_tokens_on_logout: bool,
    /// Whether the provider asks for the password at each login, even when it knows the browser.
    #[serde(default)]
    pub force_reauthorize: bool,
}

/// What happens to those who have not logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UnauthAction {
    /// They are sent to the provider.
    #[default]
    Auth,
    /// They get 401.
    Deny,
    /// They go on unknown.
    Pass,
}

/// How this gateway proves itself to an endpoint of the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AuthMethod {
    /// Id and secret in `Authorization`.
    #[default]
    ClientSecretBasic,
    /// Id and secret in the form.
    ClientSecretPost,
    /// An assertion signed with the private key.
    PrivateKeyJwt,
    /// The id alone.
    None,
}

/// Pushed authorization requests.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Par {
    /// Whether the parameters of a login go to the provider directly instead of through the browser.
    #[serde(default)]
    pub enabled: bool,
    /// URL that takes them; that of the discovery document when absent.
    pub endpoint: Option<String>,
}

/// What the claims of a token must say.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClaimValidator {
    /// Who may have issued it.
    #[serde(default)]
    pub issuer: IssuerRule,
    /// Whom it must be for.
    #[serde(default)]
    pub audience: AudienceRule,
}

/// Who may have issued a token.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IssuerRule {
    /// Issuers that are believed; the one of the discovery document when absent.
    pub valid_issuers: Option<Vec<String>>,
}

/// Whom a bearer token must be for.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AudienceRule {
    /// Claim that names the audience.
    #[serde(default = "audience_claim")]
    pub claim: String,
    /// Whether a token without that claim is refused with 403.
    #[serde(default)]
    pub required: bool,
    /// Whether a token for others than `client_id` is refused with 403.
    #[serde(default)]
    pub match_with_client_id: bool,
}

impl Default for AudienceRule {
    fn default() -> Self {
        AudienceRule { claim: audience_claim(), required: false, match_with_client_id: false }
    }
}

/// Cookies that hold the session, and how long it lasts.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionConfig {
    /// What the key that seals the cookies is made of, the same on all nodes; `client_secret` when absent.
    #[schemars(length(min = 16))]
    pub secret: Option<String>,
    /// Name of the cookie; a large session takes more, with a number behind the name.
    #[serde(default = "cookie_name")]
    pub cookie_name: String,
    /// Path for which browsers send it.
    #[serde(default = "cookie_path")]
    pub cookie_path: String,
    /// Domain for which browsers send it; the host alone when absent.
    pub cookie_domain: Option<String>,
    /// Whether browsers send it over TLS only; when absent, as the request came.
    pub cookie_secure: Option<bool>,
    /// Whether it is hidden from scripts.
    #[serde(default = "yes")]
    pub cookie_http_only: bool,
    /// When browsers send it on the way from other sites.
    #[serde(default)]
    pub cookie_same_site: SameSite,
    /// Which cookies browsers drop first when there are too many.
    pub cookie_priority: Option<CookiePriority>,
    /// Whether browsers keep it apart for each top-level site.
    #[serde(default)]
    pub cookie_partitioned: bool,
    /// Seconds without a request after which the session ends; 0 never.
    #[serde(default = "idling_timeout")]
    pub idling_timeout: u64,
    /// Seconds after which the session ends unless its cookie was renewed, which happens in the last quarter; 0 never.
    #[serde(default = "rolling_timeout")]
    pub rolling_timeout: u64,
    /// Seconds after the login at which the session ends in any case; 0 never.
    #[serde(default = "absolute_timeout")]
    pub absolute_timeout: u64,
    /// Where sessions are kept.
    #[serde(default)]
    pub storage: Storage,
    /// With `storage: redis`: where the Redis is.
    pub redis: Option<SessionRedis>,
}

impl Default for SessionConfig {
    fn default() -> Self {
        SessionConfig {
            secret: None,
            cookie_name: cookie_name(),
            cookie_path: cookie_path(),
            cookie_domain: None,
            cookie_secure: None,
            cookie_http_only: true,
            cookie_same_site: SameSite::default(),
            cookie_priority: None,
            cookie_partitioned: false,
            idling_timeout: idling_timeout(),
            rolling_timeout: rolling_timeout(),
            absolute_timeout: absolute_timeout(),
            storage: Storage::default(),
            redis: None,
        }
    }
}

/// The Redis that sessions are kept in.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SessionRedis {
    /// Name or address of the Redis.
    #[schemars(length(min = 1))]
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User of its access list.
    #[schemars(length(min = 1))]
    pub username: Option<String>,
    /// Its password, or a reference to it.
    #[schemars(length(min = 1))]
    pub password: Option<String>,
    /// Number of the database.
    pub database: u32,
    /// What the names of keys begin with, before a colon.
    #[schemars(length(min = 1, max = 64))]
    pub prefix: String,
    /// Whether the connection is encrypted.
    pub ssl: bool,
    /// Whether its certificate must be trusted and be for `host`.
    pub ssl_verify: bool,
    /// Milliseconds that opening a connection takes at most. A question takes no longer than the longest of these three, opening the connection included.
    #[schemars(range(min = 1, max = 60_000))]
    pub connect_timeout: u64,
    /// Milliseconds that sending takes at most.
    #[schemars(range(min = 1, max = 60_000))]
    pub send_timeout: u64,
    /// Milliseconds that an answer takes at most.
    #[schemars(range(min = 1, max = 60_000))]
    pub read_timeout: u64,
    /// Milliseconds after which a connection that nobody uses is closed.
    #[schemars(range(min = 1000, max = 3_600_000))]
    pub keepalive_timeout: u64,
}

impl Default for SessionRedis {
    fn default() -> Self {
        SessionRedis {
            host: "127.0.0.1".to_owned(),
            port: 6379,
            username: None,
            password: None,
            database: 0,
            prefix: "sessions".to_owned(),
            ssl: false,
            ssl_verify: true,
            connect_timeout: 1_000,
            send_timeout: 1_000,
            read_timeout: 1_000,
            keepalive_timeout: 10_000,
        }
    }
}

/// When browsers send a cookie on the way from other sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) enum SameSite {
    /// Never.
    Strict,
    /// When a link is followed.
    #[default]
    Lax,
    /// Always.
    None,
}

/// Which cookies browsers drop first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum CookiePriority {
    /// First.
    Low,
    /// As usual.
    Medium,
    /// Last.
    High,
}

/// Where sessions are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Storage {
    /// Sealed, in the browser.
    #[default]
    Cookie,
    /// Sealed, in a Redis that all nodes ask; the browser keeps a sealed ticket.
    Redis,
}

fn yes() -> bool {
    true
}

fn scope() -> String {
    "openid".to_owned()
}

fn logout_path() -> String {
    "/logout".to_owned()
}

fn realm() -> String {
    "apisix".to_owned()
}

fn timeout() -> u32 {
    3
}

fn assertion_lifetime() -> u32 {
    60
}

fn iat_slack() -> u64 {
    120
}

fn jwk_expires_in() -> u64 {
    86_400
}

fn audience_claim() -> String {
    "aud".to_owned()
}

fn cookie_name() -> String {
    "session".to_owned()
}

fn cookie_path() -> String {
    "/".to_owned()
}

fn idling_timeout() -> u64 {
    900
}

fn rolling_timeout() -> u64 {
    3_600
}

fn absolute_timeout() -> u64 {
    86_400
}
