//! Signed tokens: `jwt_authn` as our plugin that does the same. It knows no other filter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::super::piece::{Deed, Override};
use super::super::read::{Fault, Fields, Read, bytes, message};
use super::super::route::criteria;
use super::rbac::{anything, group};

/// The plugin, and the one by which several of its configurations take turns.
const PLUGIN: &str = "jwt-auth";
const TURNS: &str = "workflow";
/// Rules of one filter; each is looked at for each request.
const MAX_RULES: usize = 64;
/// Most milliseconds that our plugin lets a fetch of keys take.
const LONGEST_FETCH: u32 = 60_000;
/// What comes before a token where nothing else is said.
const BEARER: &str = "Bearer";

/// What the rules of a filter do, and what it does where a route names a requirement.
type Deeds = (Option<Deed>, BTreeMap<Arc<str>, Deed>);

/// What a request must show.
type Requirement = Option<Value>;

/// Reads the filter: what its rules do, and what it does where a route names a requirement.
pub(super) fn filter(fields: &mut Fields<'_>) -> Read<Deeds> {
    for name in ["filter_state_rules", "strip_failure_response"] {
        fields.refuse(name, "is not supported")?;
    }
    let mut providers = BTreeMap::new();
    for (name, value) in fields.map("providers")? {
        let provider = message(value, provider).map_err(|fault| fault.inside(&format!("providers[{name}]")))?;
        providers.insert(name.as_str(), provider);
    }
    let mut named: BTreeMap<Arc<str>, Requirement> = BTreeMap::new();
    for (name, value) in fields.map("requirement_map")? {
        let wanted = message(value, |fields| requirement(fields, &providers));
        named.insert(name.as_str().into(), wanted.map_err(|fault| fault.inside(&format!("requirement_map[{name}]")))?);
    }
    let rules = fields.list("rules", |fields| rule(fields, &providers, &named))?;
    if rules.len() > MAX_RULES {
        return Err(Fault::new("rules", format!("expected at most {MAX_RULES}")));
    }
    let bypass = fields.is_on("bypass_cors_preflight")?;
    let told: BTreeSet<&str> = providers.values().flat_map(told).collect();
    let deed = Some(in_order(rules, bypass, &told)).filter(|deed| !deed.is_empty());
    let alone = |wanted: Requirement| in_order(vec![(anything(), wanted)], bypass, &told);
    Ok((deed, named.into_iter().map(|(name, wanted)| (name, alone(wanted))).collect()))
}

/// Reads what a route says of it.
pub(super) fn per_route(fields: &mut Fields<'_>) -> Read<Override> {
    if fields.is_on("disabled")? {
        return Ok(Override::Off);
    }
    Ok(Override::Named(fields.name("requirement_name")?))
}

/// Fields by which the upstream is told of a token.
fn told(provider: &Value) -> impl Iterator<Item = &str> {
    let claims = provider["claim_headers"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    provider["payload_header"].as_str().into_iter().chain(claims)
}

/// The first rule that fits a request decides. What clients say in the fields that tell of tokens is taken off all requests.
fn in_order(rules: Vec<(Value, Requirement)>, bypass: bool, told: &BTreeSet<&str>) -> Deed {
    let mut deed = Deed::new();
    if !told.is_empty() {
        deed.push(("proxy-rewrite", json!({"headers": {"remove": told}})));
    }
    let mut turns: Vec<Value> = bypass.then(|| json!({"case": [preflight()], "actions": [["pass"]]})).into_iter().collect();
    for (fits, wanted) in rules {
        let always = fits == anything();
        match wanted {
            // Nothing comes before it, and nothing behind.
            Some(config) if always && turns.is_empty() => {
                deed.push((PLUGIN, config));
                return deed;
            }
            wanted => {
                let action = wanted.map_or_else(|| json!(["pass"]), |config| json!([PLUGIN, config]));
                let mut turn = json!({"actions": [action]});
                if !always {
                    turn["case"] = json!([fits]);
                }
                turns.push(turn);
            }
        }
        if always {
            break;
        }
    }
    let idle = |turn: &Value| turn["actions"] == json!([["pass"]]);
    while turns.last().is_some_and(idle) {
        turns.pop();
    }
    if !turns.is_empty() {
        deed.push((TURNS, json!({"rules": turns})));
    }
    deed
}

/// What browsers ask before they ask, without a token. Empty fields ask nothing.
fn preflight() -> Value {
    json!(["AND", ["method", "==", "OPTIONS"], ["http_origin", "~~", "."], ["http_access_control_request_method", "~~", "."]])
}

fn rule(
    fields: &mut Fields<'_>,
    providers: &BTreeMap<&str, Value>,
    named: &BTreeMap<Arc<str>, Requirement>,
) -> Read<(Value, Requirement)> {
    let conditions = fields.required("match", |fields| {
        fields.refuse("runtime_fraction", "is not supported: a rule is for all requests that it fits")?;
        criteria(fields)
    })?;
    let fits = if conditions.is_empty() { anything() } else { group("AND", conditions) };
    let written = fields.message("requires", |fields| requirement(fields, providers))?;
    let wanted = match (written, fields.text("requirement_name")?) {
        (Some(wanted), None) => wanted,
        (None, Some(name)) => match named.get(name) {
            Some(wanted) => wanted.clone(),
            None => return Err(Fault::new("requirement_name", format!("there is no {name:.100} in requirement_map"))),
        },
        (None, None) => None,
        (Some(_), Some(_)) => return Err(Fault::new("requirement_name", "excludes requires")),
    };
    Ok((fits, wanted))
}

fn requirement(fields: &mut Fields<'_>, providers: &BTreeMap<&str, Value>) -> Read<Requirement> {
    for name in ["requires_all", "allow_missing_or_failed"] {
        fields.refuse(name, "is not supported")?;
    }
    fields.refuse("allow_missing", "is only supported beside a provider, in requires_any")?;
    let known = |name: &str| match providers.get(name) {
        Some(config) => Ok(config.clone()),
        None => Err(Fault::new("provider_name", format!("there is no provider {name:.100}"))),
    };
    let mut found: Vec<Value> = fields.text("provider_name")?.map(known).transpose()?.into_iter().collect();
    found.extend(fields.message("provider_and_audiences", |one| {
        let mut config = known(&one.name("provider_name")?)?;
        config["audiences"] = json!(one.texts("audiences")?);
        Ok(config)
    })?);
    found.extend(fields.message("requires_any", |any| {
        let mut optional = false;
        let found = any.list("requirements", |one| {
            if one.message("allow_missing", Fields::skip)?.is_some() {
                optional = true;
                return Ok(None);
            }
            requirement(one, providers)
        })?;
        let mut found: Vec<Value> = found.into_iter().flatten().collect();
        match (found.pop(), found.is_empty()) {
            (Some(mut config), true) => {
                config["optional"] = json!(optional);
                Ok(config)
            }
            _ => Err(Fault::new("requirements", "expected one provider, and allow_missing beside it")),
        }
    })?);
    match found.pop() {
        wanted if found.is_empty() => Ok(wanted),
        _ => Err(Fault::new("", "expected exactly one of provider_name, provider_and_audiences and requires_any")),
    }
}

fn provider(fields: &mut Fields<'_>) -> Read<Value> {
    fields.ignore(&[
        "cache_duration",
        "jwt_cache_config",
        "payload_in_metadata",
        "header_in_metadata",
        "failed_status_in_metadata",
    ]);
    for name in ["subjects", "max_lifetime", "clear_route_cache", "pad_forward_payload_header", "normalize_payload_in_metadata"] {
        fields.refuse(name, "is not supported")?;
    }
    let mut config = Map::from_iter([("consumer_required".to_owned(), json!(false))]);
    keys(fields, &mut config)?;
    places(fields, &mut config)?;
    config.insert("hide_credentials".to_owned(), json!(!fields.is_on("forward")?));
    config.insert("clock_skew".to_owned(), json!(fields.small("clock_skew_seconds")?.filter(|skew| *skew > 0).unwrap_or(60)));
    if fields.is_on("require_expiration")? {
        config.insert("claims_to_verify".to_owned(), json!(["exp"]));
    }
    config.extend(fields.text("issuer")?.map(|issuer| ("issuers".to_owned(), json!([issuer]))));
    let audiences = fields.texts("audiences")?;
    if !audiences.is_empty() {
        config.insert("audiences".to_owned(), json!(audiences));
    }
    config.extend(fields.text("forward_payload_header")?.map(|name| ("payload_header".to_owned(), json!(name))));
    let mut claims = Map::new();
    fields.list("claim_to_headers", |one| {
        claims.insert(one.name("header_name")?.to_string(), json!(&*one.name("claim_name")?));
        Ok(())
    })?;
    if !claims.is_empty() {
        config.insert("claim_headers".to_owned(), claims.into());
    }
    Ok(config.into())
}

/// Where the keys are.
fn keys(fields: &mut Fields<'_>, config: &mut Map<String, Value>) -> Read<()> {
    let url = fields.message("remote_jwks", |jwks| {
        jwks.ignore(&["async_fetch", "retry_policy"]);
        if let Some(kept) = jwks.duration("cache_duration")? {
            config.insert("jwks_ttl".to_owned(), u32::try_from(kept.as_secs()).unwrap_or(u32::MAX).max(1).into());
        }
        jwks.required("http_uri", |uri| {
            uri.ignore(&["cluster"]);
            if let Some(patience) = uri.duration("timeout")? {
                let millis = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
                config.insert("timeout".to_owned(), millis.clamp(1, LONGEST_FETCH).into());
            }
            uri.name("uri")
        })
    })?;
    let set = fields.message("local_jwks", |source| {
        source.refuse("filename", "files are read for a bootstrap only: use inline_string")?;
        source.refuse("environment_variable", "is not read: use inline_string")?;
        let raw = source.text("inline_bytes")?.map(bytes).transpose()?;
        let text = source.text("inline_string")?.map(str::as_bytes).or(raw.as_deref()).unwrap_or_default();
        let set =
            serde_json::from_slice::<Map<String, Value>>(text).map_err(|_| Fault::new("", "expected a set of keys (JWKS)"))?;
        let is_public = |key: &Value| matches!(key["kty"].as_str(), Some("RSA" | "EC" | "OKP"));
        match set.get("keys").and_then(Value::as_array).is_some_and(|keys| keys.iter().any(is_public)) {
            true => Ok(set),
            false => Err(Fault::new(
                "",
                "expected `keys` with a public key at least (`kty` of RSA, EC or OKP): others verify nothing here",
            )),
        }
    })?;
    match (url, set) {
        (Some(url), None) => config.insert("jwks_url".to_owned(), json!(&*url)),
        (None, Some(set)) => config.insert("jwks".to_owned(), set.into()),
        _ => return Err(Fault::new("remote_jwks", "expected exactly one of remote_jwks and local_jwks")),
    };
    Ok(())
}

/// Where tokens are looked for: as browsers and services send them, where nothing is said.
fn places(fields: &mut Fields<'_>, config: &mut Map<String, Value>) -> Read<()> {
    let headers = fields.list("from_headers", |header| {
        let prefix = header.text("value_prefix")?.unwrap_or_default().trim_end();
        if !prefix.is_empty() && prefix != BEARER {
            return Err(Fault::new("value_prefix", "expected `Bearer ` or nothing"));
        }
        Ok((header.name("name")?, prefix == BEARER))
    })?;
    let (params, cookies) = (fields.texts("from_params")?, fields.texts("from_cookies")?);
    for (name, count) in [("from_headers", headers.len()), ("from_params", params.len()), ("from_cookies", cookies.len())] {
        if count > 1 {
            return Err(Fault::new(name, "more than one is not supported"));
        }
    }
    let nothing = headers.is_empty() && params.is_empty() && cookies.is_empty();
    let header = headers.first().map_or(if nothing { "authorization" } else { "" }, |(name, _)| name);
    config.insert("bearer_only".to_owned(), json!(headers.first().map_or(nothing, |(_, bearer)| *bearer)));
    let query = params.first().copied().unwrap_or(if nothing { "access_token" } else { "" });
    for (place, name) in [("header", header), ("query", query), ("cookie", cookies.first().copied().unwrap_or_default())] {
        config.insert(place.to_owned(), json!(name));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn authn(rules: Value) -> Value {
        json!({
            "providers": {"p": {
                "issuer": "i", "local_jwks": {"inline_string": "{\"keys\": [{\"kty\": \"EC\"}]}"}, "require_expiration": true,
                "forward_payload_header": "x-payload", "claim_to_headers": [{"header_name": "x-who", "claim_name": "sub"}],
            }},
            "requirement_map": {"maybe": {"requires_any": {"requirements": [{"provider_name": "p"}, {"allow_missing": {}}]}}},
            "rules": rules,
        })
    }

    fn config() -> Value {
        json!({
            "jwks": {"keys": [{"kty": "EC"}]}, "consumer_required": false, "hide_credentials": true, "clock_skew": 60, "claims_to_verify": ["exp"],
            "issuers": ["i"], "payload_header": "x-payload", "claim_headers": {"x-who": "sub"},
            "header": "authorization", "bearer_only": true, "query": "access_token", "cookie": "",
        })
    }

    #[test]
    fn published_keys_are_fetched_as_the_provider_says() {
        let said = |jwks: Value| {
            let provider = json!({"issuer": "i", "remote_jwks": jwks});
            message(&provider, super::provider)
                .map(|config| (config["jwks_url"].clone(), config["jwks_ttl"].clone(), config["timeout"].clone()))
        };
        let uri = |timeout: &str| json!({"uri": "https://keys.example/", "cluster": "c", "timeout": timeout});
        let url = || json!("https://keys.example/");
        let plain = said(json!({"http_uri": {"uri": "https://keys.example/"}})).unwrap();
        assert_eq!(plain, (url(), Value::Null, Value::Null), "then our plugin decides");
        let told = |kept: &str, timeout: &str| said(json!({"http_uri": uri(timeout), "cache_duration": kept})).unwrap();
        assert_eq!(told("600s", "1.5s"), (url(), json!(600), json!(1_500)));
        assert_eq!(told("0.1s", "0s"), (url(), json!(1), json!(1)));
        assert_eq!(told("86400s", "300s"), (url(), json!(86_400), json!(60_000)));
        assert!(said(json!({"http_uri": uri("1s"), "cache_duration": "-1s"})).is_err());
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = json!([
            {"match": {"path": "/open"}},
            {"match": {"prefix": "/maybe"}, "requirement_name": "maybe"},
            {"match": {"prefix": "/"}, "requires": {"provider_name": "p"}},
            {"match": {"prefix": "/never"}, "requires": {"provider_name": "p"}},
        ]);
        let (deed, named) = message(&authn(rules), filter).unwrap();
        let deed = deed.unwrap();
        let (open, maybe) = (json!(["uri", "==", "/open"]), json!(["uri", "~~", "^/maybe"]));
        let mut first = config();
        first["optional"] = json!(true);
        let stripped = ("proxy-rewrite", json!({"headers": {"remove": ["x-payload", "x-who"]}}));
        assert_eq!(named["maybe"], [stripped.clone(), (PLUGIN, first.clone())]);
        let turns = json!({"rules": [
            {"case": [open], "actions": [["pass"]]},
            {"case": [maybe], "actions": [["jwt-auth", first]]},
            {"actions": [["jwt-auth", config()]]},
        ]});
        assert_eq!(deed, [stripped.clone(), (TURNS, turns)]);
        let only = |rules: Value, bypass: bool| {
            let mut value = authn(rules);
            value["bypass_cors_preflight"] = json!(bypass);
            message(&value, filter).unwrap().0.unwrap()
        };
        let all = || json!([{"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}]);
        assert_eq!(only(all(), false), [stripped.clone(), (PLUGIN, config())]);
        let turns = json!({"rules": [{"case": [preflight()], "actions": [["pass"]]}, {"actions": [["jwt-auth", config()]]}]});
        assert_eq!(only(all(), true), [stripped.clone(), (TURNS, turns)]);
        let some = |name: &str| json!([name, "~~", "."]);
        let asks = json!(["AND", ["method", "==", "OPTIONS"], some("http_origin"), some("http_access_control_request_method")]);
        assert_eq!(preflight(), asks, "empty fields are none");
        assert_eq!(
            only(json!([{"match": {"path": "/open"}}, {"match": {"prefix": "/b"}}]), true),
            [stripped],
            "nothing is demanded"
        );
    }

    #[test]
    fn what_cannot_be_demanded_is_refused_by_its_place() {
        let of = |value: &Value| message(value, filter).unwrap_err().field;
        let rule = |requires: Value| json!([{"match": {"prefix": "/"}, "requires": requires}]);
        assert_eq!(of(&authn(rule(json!({"provider_name": "q"})))), "rules[0].requires.provider_name");
        assert_eq!(of(&authn(rule(json!({"allow_missing": {}})))), "rules[0].requires.allow_missing");
        assert_eq!(of(&authn(rule(json!({"requires_all": {"requirements": []}})))), "rules[0].requires.requires_all");
        let mut value = authn(json!([]));
        value["providers"]["p"]["from_headers"] = json!([{"name": "x", "value_prefix": "Token "}]);
        assert_eq!(of(&value), "providers[p].from_headers[0].value_prefix");
        value["providers"]["p"] = json!({"subjects": {"exact": "a"}});
        assert_eq!(of(&value), "providers[p].subjects");
    }
}
