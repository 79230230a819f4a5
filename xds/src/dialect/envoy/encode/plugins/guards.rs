//! Plugins that let requests through or not by what they look like. All of a route become one rule: everything that is demanded holds.

use std::collections::BTreeMap;

use heddle_proto::envoy::config::rbac::v3 as rbac;
use heddle_proto::envoy::config::route::v3 as wire;
use heddle_proto::envoy::extensions::filters::http::rbac::v3::{Rbac, RbacPerRoute};
use ipnet::IpNet;
use rbac::Principal;
use rbac::principal::{Identifier, Set};
use serde_json::Value;
use wire::header_matcher::HeaderMatchSpecifier;

use super::super::route::Draft;
use super::super::wire::{any, network, regex};
use super::{Applied, Config, RBAC, only};

pub(super) fn addresses(config: &Config, draft: &mut Draft) -> Applied {
    only(config, &["whitelist", "blacklist"])?;
    let (field, passes) = if config.contains_key("whitelist") { ("whitelist", true) } else { ("blacklist", false) };
    let mut listed = Vec::new();
    for text in texts(config, field) {
        let net: IpNet = match (text.parse(), text.parse::<std::net::IpAddr>()) {
            (Ok(net), _) => net,
            (_, Ok(ip)) => IpNet::from(ip),
            _ => return Err(format!("{field}: `{text}` is no address")),
        };
        listed.push(of(Identifier::RemoteIp(network(&net))));
    }
    draft.demands.push(any_of(listed, passes));
    Ok(())
}

/// Clients by the name of their program.
pub(super) fn programs(config: &Config, draft: &mut Draft) -> Applied {
    only(config, &["allowlist", "denylist", "bypass_missing"])?;
    let (field, passes) = if config.contains_key("allowlist") { ("allowlist", true) } else { ("denylist", false) };
    let found = |pattern: &str| of(Identifier::Header(found("user-agent", pattern, "s")));
    let listed = any_of(texts(config, field).map(found).collect(), passes);
    let named = wire::HeaderMatcher {
        name: "user-agent".to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::PresentMatch(true)),
        ..Default::default()
    };
    let named = of(Identifier::Header(named));
    let missing_passes = config.get("bypass_missing").and_then(Value::as_bool) == Some(true);
    draft.demands.push(if missing_passes { any_of(vec![not(named), listed], true) } else { all_of(vec![named, listed]) });
    Ok(())
}

/// One rule of all that is demanded.
pub(super) fn finish(draft: &mut Draft) {
    let demands = std::mem::take(&mut draft.demands);
    if demands.is_empty() {
        return;
    }
    let any_request = rbac::Permission { rule: Some(rbac::permission::Rule::Any(true)) };
    let policy = rbac::Policy { permissions: vec![any_request], principals: vec![all_of(demands)] };
    let policies = BTreeMap::from([("demands".to_owned(), policy)]);
    let rules = rbac::Rbac { action: rbac::rbac::Action::Allow.into(), policies };
    let per_route = RbacPerRoute { rbac: Some(Rbac { rules: Some(rules), ..Default::default() }) };
    draft.filters.extend(any(&per_route).map(|config| (RBAC.to_owned(), config)));
}

fn texts<'a>(config: &'a Config, field: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    config.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// A field in which a pattern is found.
fn found(name: &str, pattern: &str, flags: &str) -> wire::HeaderMatcher {
    wire::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(regex(&format!("(?{flags}).*(?:{pattern}).*")))),
        ..Default::default()
    }
}

fn of(identifier: Identifier) -> Principal {
    Principal { identifier: Some(identifier) }
}

fn not(principal: Principal) -> Principal {
    of(Identifier::NotId(Box::new(principal)))
}

/// Whether one of them holds is as it is to be. None of an empty list does, which Envoy's own message cannot say.
fn any_of(listed: Vec<Principal>, expected: bool) -> Principal {
    let any = match listed.is_empty() {
        true => not(of(Identifier::Any(true))),
        false => of(Identifier::OrIds(Set { ids: listed })),
    };
    if expected { any } else { not(any) }
}

fn all_of(ids: Vec<Principal>) -> Principal {
    of(Identifier::AndIds(Set { ids }))
}
