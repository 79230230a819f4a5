//! Compiles a configuration of `openid-connect` into what its filter runs on.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use super::super::check::{self, Faults, fault_at};
use super::super::{BuildContext, Built};
use super::bearer::{Bearer, Memory, Way};
use super::config::faults::{is_path, path_of};
use super::config::{Config, SameSite, Storage};
use super::filter::answers::Answers;
use super::filter::headers::Outputs;
use super::filter::{Browser, Ended, OpenIdConnect, Return, Site};
use super::login::Wishes;
use super::login::sign_in::{Pushes, Renewals, SignIn};
use super::provider::{Client, Manners, Provider, Signer};
use super::rules::Rules;
use super::session::{Lifetimes, Sealer, Shape, Stored};
use crate::filters::jose::{Algorithm, Key, KeySet};
use crate::outbound::RedisOptions;
use heddle_xds::catalog::ConfigFault;

/// Most sessions that are remembered as ended.
const MAX_ENDED: usize = 16_384;

pub(crate) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let provider = provider(&config, context)?;
    let client = Arc::new(client(&config)?);
    let signer = sign_in(&config, context, &provider, &client)?;
    let site = Site {
        answers: Answers::new(&config.realm),
        rules: Rules::new(&config).map_err(|error| vec![fault_at("claim_schema", error)])?,
        outputs: Outputs::from(&config),
        bearer: bearer(&config, value, context, &provider, &client)?.map(Arc::new),
        browser: if config.bearer_only { None } else { Some(browser(&config, context, signer)?) },
    };
    Ok(Arc::new(OpenIdConnect(Arc::new(site))))
}

fn provider(config: &Config, context: &BuildContext<'_>) -> Result<Arc<Provider>, Vec<ConfigFault>> {
    let manners = Manners {
        timeout: Duration::from_secs(u64::from(config.timeout)),
        verify: config.ssl_verify,
        lifetime: config.jwk_expires_in,
    };
    let key = format!(
        "openid-connect provider {} {} {} {}",
        config.discovery, config.timeout, config.ssl_verify, config.jwk_expires_in
    );
    let fresh =
        Provider::new(&config.discovery, &manners, context.outbound).map_err(|error| vec![fault_at("discovery", error)])?;
    Ok(context.keep.get_or(&key, || fresh))
}

fn client(config: &Config) -> Result<Client, Vec<ConfigFault>> {
    let lifetime = config.client_jwt_assertion_expires_in;
    let signer = config.client_rsa_private_key.as_deref();
    let signer = signer.map(|pem| Signer::new(pem, config.client_rsa_private_key_id.clone(), lifetime)).transpose();
    let signer = signer.map_err(|error| vec![fault_at("client_rsa_private_key", error)])?;
    Ok(Client { id: config.client_id.clone(), secret: config.client_secret.clone(), signer })
}

/// The one algorithm of the configuration.
fn expected(config: &Config) -> Option<Algorithm> {
    config.token_signing_alg_values_expected.as_deref().and_then(Algorithm::of_name)
}

fn issuers(config: &Config) -> Option<Vec<Box<str>>> {
    let listed = config.claim_validator.issuer.valid_issuers.as_ref()?;
    Some(listed.iter().map(|issuer| issuer.as_str().into()).collect())
}

fn bearer(
    config: &Config,
    value: &Value,
    context: &BuildContext<'_>,
    provider: &Arc<Provider>,
    client: &Arc<Client>,
) -> Result<Option<Bearer>, Vec<ConfigFault>> {
    let way = if let Some(pem) = &config.public_key {
        let key = Key::pem_for_any(pem).map_err(|error| vec![fault_at("public_key", error.to_string())])?;
        Way::Key(KeySet::of(key))
    } else if config.use_jwks {
        Way::Jwks
    } else if config.bearer_only || config.introspection_endpoint.is_some() {
        Way::Introspection {
            endpoint: config.introspection_endpoint.clone(),
            method: config.introspection_endpoint_auth_method,
            interval: config.introspection_interval,
        }
    } else {
        return Ok(None);
    };
    let algorithms = match expected(config) {
        Some(algorithm) => vec![algorithm],
        None => Algorithm::all().filter(|algorithm| !algorithm.is_symmetric()).collect(),
    };
    // What was found out about tokens holds for this very configuration only.
    let key = format!("openid-connect tokens {:x}", xxh3_128(value.to_string().as_bytes()));
    Ok(Some(Bearer {
        way,
        provider: provider.clone(),
        client: client.clone(),
        algorithms,
        issuers: issuers(config),
        slack: config.iat_slack,
        memory: context.keep.get_or(&key, Memory::default),
    }))
}

fn sign_in(
    config: &Config,
    context: &BuildContext<'_>,
    provider: &Arc<Provider>,
    client: &Arc<Client>,
) -> Result<SignIn, Vec<ConfigFault>> {
    let algorithm = expected(config);
    let secret = algorithm.filter(|algorithm| algorithm.is_symmetric()).zip(config.client_secret.as_deref());
    let secret_keys = secret.map(|(algorithm, secret)| Key::secret(algorithm, secret.as_bytes())).transpose();
    let secret_keys = secret_keys.map_err(|error| vec![fault_at("client_secret", error.to_string())])?;
    let mut params: Vec<_> = config.authorization_params.clone().into_iter().collect();
    if config.force_reauthorize && !config.authorization_params.contains_key("prompt") {
        params.push(("prompt".to_owned(), "login".to_owned()));
    }
    let pushes = match &config.par {
        Some(par) if par.enabled => par.endpoint.clone().map_or(Pushes::ToOwn, Pushes::To),
        _ => Pushes::No,
    };
    let key = format!("openid-connect renewals {} {}", config.discovery, config.client_id);
    Ok(SignIn {
        provider: provider.clone(),
        client: client.clone(),
        method: config.token_auth(),
        wishes: Wishes {
            client_id: config.client_id.clone(),
            scope: config.scope.clone(),
            nonce: config.use_nonce,
            // Without a secret, whoever finds the code could use it.
            pkce: config.use_pkce || config.token_auth() == super::config::AuthMethod::None,
            params,
        },
        algorithm,
        secret_keys: secret_keys.map(|key| Arc::new(KeySet::of(key))),
        issuers: issuers(config),
        slack: config.iat_slack,
        asks_for_user: config.set_userinfo_header,
        pushes,
        renewals: context.keep.get_or(&key, Renewals::default),
    })
}

/// Where sessions are kept when it is a Redis.
fn stored_in_redis(config: &Config, context: &BuildContext<'_>, sealer: Sealer) -> Result<Stored, Vec<ConfigFault>> {
    let place = config.session.redis.clone().unwrap_or_default();
    let timeout = place.connect_timeout.max(place.send_timeout).max(place.read_timeout);
    let options = RedisOptions {
        host: place.host,
        port: place.port,
        username: place.username,
        password: place.password,
        database: place.database,
        timeout: Duration::from_millis(timeout),
        tls: place.ssl,
        verify: place.ssl_verify,
        ca: None,
        identity: None,
        rest: Duration::from_millis(place.keepalive_timeout),
    };
    let redis = context.outbound.redis(&options).map_err(|error| vec![fault_at("session.redis.host", error)])?;
    Ok(Stored::new(redis, &place.prefix, sealer, Lifetimes::from(&config.session)))
}

fn browser(config: &Config, context: &BuildContext<'_>, sign_in: SignIn) -> Result<Browser, Vec<ConfigFault>> {
    let mut faults = Faults::default();
    let secret = config.cookie_secret().unwrap_or_default();
    let sealer = |purpose: &str| Sealer::new(secret, &[purpose, &config.discovery, &config.client_id]);
    let in_redis = config.session.storage == Storage::Redis;
    let in_cookie = if in_redis { "ticket" } else { "session" };
    let (Some(own), Some(login_sealer), Some(stored)) = (sealer(in_cookie), sealer("login"), sealer("stored")) else {
        faults.add("session.secret", "no key can be derived from it");
        return Err(faults.into_result().err().unwrap_or_default());
    };
    let back = match &config.redirect_uri {
        None => Return::Beside,
        Some(uri) => {
            Return::At { path: path_of(uri).unwrap_or_default().into(), uri: uri.as_str().into(), absolute: !is_path(uri) }
        }
    };
    let key = format!("openid-connect ended {} {}", config.discovery, config.client_id);
    Ok(Browser {
        sign_in: Arc::new(sign_in),
        sealer: own,
        stored: if in_redis { Some(Arc::new(stored_in_redis(config, context, stored)?)) } else { None },
        login_sealer,
        shape: Shape::new(&config.session),
        lifetimes: Lifetimes::from(&config.session),
        bounces: config.session.cookie_same_site == SameSite::Strict,
        action: config.unauth_action,
        back,
        logout_path: config.logout_path.as_str().into(),
        post_logout: config.post_logout_redirect_uri.as_deref().map(Into::into),
        revokes: config.revoke_tokens_on_logout,
        renews: config.renew_access_token_on_expiry,
        leeway: config.access_token_expires_leeway,
        ended: context.keep.get_or(&key, || Ended(Cache::new(MAX_ENDED))),
    })
}
