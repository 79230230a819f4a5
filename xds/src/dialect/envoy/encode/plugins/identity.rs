//! Plugins that say who a client is: keys and signed tokens of consumers. What the client claims to be is taken out of its request first, and who it is told
//! to the upstream by name, as our agents do. It knows no route.

use std::sync::Arc;
use std::time::Duration;

use heddle_proto::envoy::config::core::v3 as base;
use heddle_proto::envoy::config::rbac::v3::Principal;
use heddle_proto::envoy::config::rbac::v3::principal::Identifier;
use heddle_proto::envoy::extensions::filters::http::api_key_auth::v3 as keys;
use heddle_proto::envoy::extensions::filters::http::jwt_authn::v3 as jwt;
use heddle_proto::envoy::r#type::matcher::v3 as matcher;
use jwt::jwt_provider::JwksSourceSpecifier;
use jwt::jwt_requirement::RequiresType;
use serde_json::{Map, Value};

use super::super::fields::Edits;
use super::super::route::Draft;
use super::super::wire::{any, exact, formatted, span};
use super::{Applied, Config, KEY_AUTH, only, text};
use super::{asking, filter, keys as sets};
use crate::model::Consumer;
use crate::snapshot::version_of;

/// What names of filters of `jwt-auth` begin with.
pub(super) const JWT: &str = "heddle.jwt-auth.";
/// Where Envoy keeps what verified tokens say.
const CLAIMS: &str = "envoy.filters.http.jwt_authn";
/// What our agents tell upstreams of a consumer. Envoy tells the name.
const TOLD: [&str; 3] = ["x-consumer-username", "x-credential-identifier", "x-consumer-custom-id"];
/// The consumer whose demands are met, as Envoy's judge names them.
const WHO: &str = "%DYNAMIC_METADATA(envoy.filters.http.rbac:enforced_effective_policy_id)%";
/// Most consumers whose tokens are tried one by one: each costs a signature for a token that is nobody's.
const MOST: usize = 128;
/// The name of the demand of a filter.
const DEMAND: &str = "token";

/// Whether a plugin asks who consumers are.
pub(in super::super) fn asks_consumers(plugin: &str) -> bool {
    matches!(plugin, "key-auth" | "jwt-auth")
}

/// A consumer, and what it proves itself with.
type Known<'a> = (&'a Consumer, &'a Map<String, Value>);

/// Consumers with a credential of this plugin.
fn known<'a>(draft: &'a Draft, plugin: &'a str) -> Result<Vec<Known<'a>>, String> {
    let mut found = Vec::new();
    for consumer in draft.consumers.iter() {
        for credential in consumer.credentials.iter().filter(|credential| &*credential.plugin == plugin) {
            let lacks = |what: &str| Err(format!("consumer {}: {what} has no counterpart in Envoy", consumer.username));
            let plain = match credential.config.as_object() {
                _ if !consumer.plugins.is_empty() => return lacks("plugins of its own"),
                _ if consumer.labels.contains_key("custom_id") => return lacks("the label custom_id"),
                _ if !credential.id.is_empty() => return lacks("a credential with an id"),
                Some(config) if refers(config) => return lacks("a secret that is kept elsewhere"),
                Some(config) => config,
                None => continue,
            };
            found.push((consumer, plain));
        }
    }
    Ok(found)
}

/// Whether a text of it stands for one that a manager of secrets or the environment has.
fn refers(config: &Map<String, Value>) -> bool {
    let is_reference = |text: &str| ["$secret://", "$env://"].iter().any(|start| text.to_ascii_lowercase().starts_with(start));
    config.values().filter_map(Value::as_str).any(is_reference)
}

/// `key-auth`.
pub(super) fn keys(config: &Config, draft: &mut Draft) -> Applied {
    // How Envoy challenges, it does not ask.
    only(config, &["header", "query", "hide_credentials", "realm"])?;
    let credential = |(consumer, config): Known<'_>| keys::Credential {
        key: text(config, "key").unwrap_or_default().to_owned(),
        client: consumer.username.to_string(),
    };
    let credentials = known(draft, "key-auth")?.into_iter().map(credential).filter(|one| !one.key.is_empty()).collect();
    let place = |field: &str| text(config, field).unwrap_or("apikey").to_owned();
    let per_route = keys::ApiKeyAuthPerRoute {
        credentials,
        key_sources: vec![
            keys::KeySource { header: place("header").to_ascii_lowercase(), ..Default::default() },
            keys::KeySource { query: place("query"), ..Default::default() },
        ],
        forwarding: Some(keys::Forwarding {
            header: TOLD[0].to_owned(),
            hide_credentials: config.get("hide_credentials").and_then(Value::as_bool) == Some(true),
        }),
        ..Default::default()
    };
    identified(draft, "key-auth")?;
    draft.filters.extend(any(&per_route).map(|config| (KEY_AUTH.to_owned(), config)));
    Ok(())
}

/// Takes out what the client claims to be; one plugin only says who it is.
fn identified(draft: &mut Draft, plugin: &str) -> Applied {
    if draft.disowned.contains(TOLD[0]) {
        return Err(format!("beside {plugin} stands another plugin that says who clients are"));
    }
    draft.disowned.extend(TOLD.map(str::to_owned));
    Ok(())
}

/// `jwt-auth`: for each consumer two providers that differ in how the field is read, with and without `Bearer`. Which of them verifies a token says nothing yet
/// of whom it names, so that Envoy's judge compares both: who signs may name nobody else.
pub(super) fn tokens(config: &Config, draft: &mut Draft) -> Applied {
    let shared = ["header", "query", "cookie", "hide_credentials", "key_claim_name", "store_in_ctx", "realm", "claims_to_verify"];
    let of_issuers = ["jwks_url", "issuers", "audiences", "clock_skew", "jwks_ttl", "timeout", "ssl_verify", "consumer_required"];
    only(config, &[&shared[..], &of_issuers[..]].concat())?;
    if let Some(place) = ["header", "query", "cookie"].iter().find(|place| text(config, place) == Some("")) {
        return Err(format!("{place}: tokens are looked for in all three places"));
    }
    if config.get("hide_credentials").and_then(Value::as_bool) == Some(true) {
        return Err("hide_credentials: Envoy leaves a token in its cookie".to_owned());
    }
    let claims: Vec<&str> =
        config.get("claims_to_verify").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if claims.contains(&"nbf") {
        return Err("claims_to_verify: Envoy demands no nbf".to_owned());
    }
    let all = known(draft, "jwt-auth")?;
    if all.len() > MOST {
        return Err(format!("{} consumers have tokens, of which Envoy would try each one: {MOST} at most", all.len()));
    }
    let provider = Provider { config, expires: claims.contains(&"exp") };
    let claim = text(config, "key_claim_name").unwrap_or("key");
    let mut providers = Vec::new();
    let mut who: Vec<(Arc<str>, Principal)> = Vec::new();
    match text(config, "jwks_url") {
        None => {
            for (consumer, credential) in &all {
                let key = text(credential, "key").unwrap_or_default();
                let set = sets::set(credential).map_err(|reason| format!("consumer {} {reason}", consumer.username))?;
                // By the set too: a connection that still verifies with an older one says nothing of this one.
                let kept = format!("{key} {}", version_of(set.as_bytes()));
                providers.extend(provider.of_consumer(&kept, &set, credential));
                who.push((consumer.username.clone(), names(&kept, claim, key)));
            }
        }
        Some(url) => {
            if config.get("consumer_required").and_then(Value::as_bool) == Some(false) {
                return Err("consumer_required: Envoy's judge has to name who it is".to_owned());
            }
            let keys: Vec<(Arc<str>, String)> = all
                .iter()
                .map(|(consumer, credential)| (consumer.username.clone(), text(credential, "key").unwrap_or_default().to_owned()))
                .collect();
            let verify = config.get("ssl_verify").and_then(Value::as_bool) != Some(false);
            let cluster = asking::cluster(url, (verify, asking::FEW), draft).map_err(|reason| format!("jwks_url: {reason}"))?;
            providers = provider.of_issuers(url, &cluster);
            who = keys.iter().map(|(name, key)| (name.clone(), names(ISSUER, claim, key))).collect();
        }
    }
    if who.is_empty() {
        return Err("no consumer has tokens yet".to_owned());
    }
    demand(config, providers, who, draft)
}

/// Under which name what the tokens of an issuer say is kept.
const ISSUER: &str = "issuer";

/// The filter of these providers, and who may be named.
fn demand(
    config: &Config,
    providers: Vec<(String, jwt::JwtProvider)>,
    who: Vec<(Arc<str>, Principal)>,
    draft: &mut Draft,
) -> Applied {
    identified(draft, "jwt-auth")?;
    let one = |name: &String| jwt::JwtRequirement { requires_type: Some(RequiresType::ProviderName(name.clone())) };
    let any_of = jwt::JwtRequirementOrList { requirements: providers.iter().map(|(name, _)| one(name)).collect() };
    let requirement = jwt::JwtRequirement { requires_type: Some(RequiresType::RequiresAny(any_of)) };
    let authentication = jwt::JwtAuthentication {
        providers: providers.into_iter().collect(),
        requirement_map: [(DEMAND.to_owned(), requirement)].into(),
        ..Default::default()
    };
    // By what the route says: its consumers are the same everywhere.
    let said = serde_json::to_string(config).unwrap_or_default();
    let name = format!("{JWT}{}", version_of(said.as_bytes()));
    let per_route = jwt::PerRouteConfig {
        requirement_specifier: Some(jwt::per_route_config::RequirementSpecifier::RequirementName(DEMAND.to_owned())),
    };
    draft.filters.extend(any(&per_route).map(|config| (name.clone(), config)));
    draft.further.insert(name.clone(), filter(&name, &authentication, true));
    draft.identified = who.into_iter().map(|(name, principal)| (name.to_string(), principal)).collect();
    Edits::of_requests(&mut draft.route).set(formatted(TOLD[0], WHO));
    Ok(())
}

/// A token that was verified under this name, whose claim is this.
fn names(verified: &str, claim: &str, key: &str) -> Principal {
    let segment = |key: &str| matcher::metadata_matcher::PathSegment {
        segment: Some(matcher::metadata_matcher::path_segment::Segment::Key(key.to_owned())),
    };
    let value = matcher::ValueMatcher { match_pattern: Some(matcher::value_matcher::MatchPattern::StringMatch(exact(key))) };
    Principal {
        identifier: Some(Identifier::Metadata(matcher::MetadataMatcher {
            filter: CLAIMS.to_owned(),
            path: vec![segment(verified), segment(claim)],
            value: Some(value),
            ..Default::default()
        })),
    }
}

/// What all providers of a route share.
struct Provider<'a> {
    config: &'a Config,
    expires: bool,
}

impl Provider<'_> {
    fn of_consumer(&self, kept: &str, set: &str, credential: &Map<String, Value>) -> [(String, jwt::JwtProvider); 2] {
        let number = |config: &Config, field: &str| config.get(field).and_then(Value::as_u64).unwrap_or_default();
        let skew = number(self.config, "clock_skew").max(number(credential, "lifetime_grace_period"));
        let source = base::DataSource { specifier: Some(base::data_source::Specifier::InlineString(set.to_owned())) };
        self.both(kept, skew, &JwksSourceSpecifier::LocalJwks(source), None)
    }

    fn of_issuers(&self, url: &str, cluster: &str) -> Vec<(String, jwt::JwtProvider)> {
        let number = |field: &str, default: u64| self.config.get(field).and_then(Value::as_u64).unwrap_or(default);
        let uri = base::HttpUri {
            uri: url.to_owned(),
            http_upstream_type: Some(base::http_uri::HttpUpstreamType::Cluster(cluster.to_owned())),
            timeout: span(Duration::from_millis(number("timeout", 3_000))),
        };
        let remote = jwt::RemoteJwks { http_uri: Some(uri), cache_duration: span(Duration::from_secs(number("jwks_ttl", 300))) };
        let source = JwksSourceSpecifier::RemoteJwks(remote);
        let issuers: Vec<&str> =
            self.config.get("issuers").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let all: Vec<Option<&str>> = if issuers.is_empty() { vec![None] } else { issuers.into_iter().map(Some).collect() };
        let skew = number("clock_skew", 0);
        all.into_iter().flat_map(|issuer| self.both(ISSUER, skew, &source, issuer)).collect()
    }

    /// The field with `Bearer` before the token, beside query and cookie; and the field that is the token.
    fn both(&self, kept: &str, skew: u64, source: &JwksSourceSpecifier, issuer: Option<&str>) -> [(String, jwt::JwtProvider); 2] {
        let place = |field: &str, default: &str| text(self.config, field).unwrap_or(default).to_owned();
        let header = |prefix: &str| jwt::JwtHeader {
            name: place("header", "authorization").to_ascii_lowercase(),
            value_prefix: prefix.to_owned(),
        };
        let audiences = self.config.get("audiences").and_then(Value::as_array).into_iter().flatten();
        let provider = jwt::JwtProvider {
            issuer: issuer.unwrap_or_default().to_owned(),
            audiences: audiences.filter_map(Value::as_str).map(str::to_owned).collect(),
            jwks_source_specifier: Some(source.clone()),
            forward: true,
            payload_in_metadata: kept.to_owned(),
            // None is a minute to Envoy.
            clock_skew_seconds: u32::try_from(skew).unwrap_or(u32::MAX).max(1),
            require_expiration: self.expires,
            ..Default::default()
        };
        let beside = jwt::JwtProvider {
            from_headers: vec![header("Bearer ")],
            from_params: vec![place("query", "jwt")],
            from_cookies: vec![place("cookie", "jwt")],
            ..provider.clone()
        };
        let plain = jwt::JwtProvider { from_headers: vec![header("")], ..provider };
        let name = issuer.map_or_else(|| kept.to_owned(), |issuer| format!("{kept} {issuer}"));
        [(name.clone(), beside), (format!("{name} (plain)"), plain)]
    }
}
