//! Plugins that let requests through or not by what they look like. All of a route become one rule: everything that is demanded holds.

use std::collections::BTreeMap;

use heddle_proto::envoy::config::rbac::v3 as rbac;
use heddle_proto::envoy::config::route::v3 as wire;
use heddle_proto::envoy::extensions::filters::http::csrf::v3::CsrfPolicy;
use heddle_proto::envoy::extensions::filters::http::rbac::v3::{Rbac, RbacPerRoute};
use ipnet::IpNet;
use rbac::Principal;
use rbac::principal::{Identifier, Set};
use serde_json::Value;
use wire::header_matcher::HeaderMatchSpecifier;

use super::super::pattern::escape;
use super::super::re2;
use super::super::route::Draft;
use super::super::wire::{ANY, ASCII, always, any, network, regex};
use super::{Applied, CSRF, Config, RBAC, only};

/// A character of a host that is a name.
const LABELS: &str = r"[^:@/?#\\\[\]]";

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

/// Clients by the name of their program. What patterns see of a name that is not ASCII depends on Envoy's version, so a list of those who are kept out keeps
/// such names out as well.
pub(super) fn programs(config: &Config, draft: &mut Draft) -> Applied {
    only(config, &["allowlist", "denylist", "bypass_missing"])?;
    let (field, passes) = if config.contains_key("allowlist") { ("allowlist", true) } else { ("denylist", false) };
    texts(config, field).try_for_each(re2::accept)?;
    let found = |pattern: &str| of(Identifier::Header(found("user-agent", pattern, "s")));
    let listed = any_of(texts(config, field).map(found).collect(), passes);
    let named = present("user-agent");
    if !passes {
        draft.demands.push(seen("user-agent"));
    }
    let missing_passes = config.get("bypass_missing").and_then(Value::as_bool) == Some(true);
    draft.demands.push(if missing_passes { any_of(vec![not(named), listed], true) } else { all_of(vec![named, listed]) });
    Ok(())
}

/// Clients by the host of the page that they come from, where that is an absolute `http` or `https` URL without user information.
pub(super) fn referers(config: &Config, draft: &mut Draft) -> Applied {
    only(config, &["whitelist", "blacklist", "bypass_missing"])?;
    let (field, passes) = if config.contains_key("whitelist") { ("whitelist", true) } else { ("blacklist", false) };
    if let Some(host) = texts(config, field).find(|host| host.contains([':', '['])) {
        return Err(format!("{field}: `{host}` is an address, which has no counterpart in Envoy"));
    }
    let one = |host: &str| match host.strip_prefix('*') {
        Some(ending) => format!("{LABELS}*{}", escape(ending)),
        None => escape(host),
    };
    let hosts = texts(config, field).map(one).collect::<Vec<_>>().join("|");
    re2::fits(&hosts).map_err(|reason| format!("{field}: {reason}"))?;
    let of_url = |host: &str| {
        let pattern = format!("(?is)https?://(?:{host})(?::[^/?#\\\\@]*)?(?:[/?#\\\\].*)?");
        let matcher = HeaderMatchSpecifier::StringMatch(regex(&pattern));
        of(Identifier::Header(wire::HeaderMatcher {
            name: "referer".to_owned(),
            header_match_specifier: Some(matcher),
            ..Default::default()
        }))
    };
    let listed = any_of(if hosts.is_empty() { Vec::new() } else { vec![of_url(&format!("(?:{hosts})\\.?"))] }, passes);
    let told = of_url(&format!("{LABELS}+|\\[[^\\]/?#\\\\@]+\\]"));
    let missing_passes = config.get("bypass_missing").and_then(Value::as_bool) == Some(true);
    if !passes || missing_passes {
        draft.demands.push(seen("referer"));
    }
    draft.demands.push(if missing_passes { any_of(vec![not(told), listed], true) } else { all_of(vec![told, listed]) });
    Ok(())
}

/// What changes something by the page that it comes from.
pub(super) fn origins(config: &Config, draft: &mut Draft) -> Applied {
    let Some(by_origin) = config.get("by_origin").and_then(Value::as_object) else {
        return Err("without by_origin: Envoy knows no tokens against forged requests".to_owned());
    };
    let additional = || texts(by_origin, "additional");
    additional().try_for_each(re2::accept)?;
    let policy = CsrfPolicy {
        filter_enabled: Some(always()),
        additional_origins: additional().map(|pattern| regex(&format!("(?s){ANY}(?:{pattern}){ANY}"))).collect(),
        ..Default::default()
    };
    draft.filters.extend(any(&policy).map(|config| (CSRF.to_owned(), config)));
    Ok(())
}

/// One rule of all that is demanded.
pub(super) fn finish(draft: &mut Draft) {
    let (demands, identified) = (std::mem::take(&mut draft.demands), std::mem::take(&mut draft.identified));
    let any_request = rbac::Permission { rule: Some(rbac::permission::Rule::Any(true)) };
    let policy = |all: Vec<Principal>| rbac::Policy { permissions: vec![any_request.clone()], principals: vec![all_of(all)] };
    let policies: BTreeMap<String, rbac::Policy> = match (identified.is_empty(), demands.is_empty()) {
        (true, true) => return,
        (true, false) => BTreeMap::from([("demands".to_owned(), policy(demands))]),
        // Each by a name of its own, by which Envoy says afterwards whose demands were met.
        (false, _) => {
            let whole = |who: Principal| policy(std::iter::once(who).chain(demands.clone()).collect());
            identified.into_iter().map(|(name, who)| (name, whole(who))).collect()
        }
    };
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
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(regex(&format!("(?{flags}){ANY}(?:{pattern}){ANY}")))),
        ..Default::default()
    }
}

/// A field that is not there, or of which every pattern sees all.
fn seen(name: &str) -> Principal {
    let matcher = HeaderMatchSpecifier::StringMatch(regex(ASCII));
    let header = wire::HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(matcher), ..Default::default() };
    any_of(vec![not(present(name)), of(Identifier::Header(header))], true)
}

fn present(name: &str) -> Principal {
    of(Identifier::Header(wire::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::PresentMatch(true)),
        ..Default::default()
    }))
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
