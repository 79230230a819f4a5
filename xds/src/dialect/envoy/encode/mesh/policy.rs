//! Authorization policies as Envoy's RBAC: what is denied, and what alone is allowed. It knows no listener.
//!
//! Envoy looks at a path as it stands. An application may read more into one (`%2F`, `//`), so what speaks of paths never allows such a path, and denies it.
//! What is not ASCII some match byte by byte, and others not at all (RE2 for UTF-8): such a path is never allowed, and what might be meant is denied.

use std::collections::BTreeMap;
use std::sync::Arc;

use heddle_proto::envoy::config::rbac::v3 as wire;
use heddle_proto::envoy::config::route::v3::HeaderMatcher;
use heddle_proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use heddle_proto::envoy::extensions::filters::http::rbac::v3 as filter;
use heddle_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use heddle_proto::envoy::r#type::matcher::v3::{PathMatcher, StringMatcher, path_matcher};
use ipnet::IpNet;
use wire::permission::Rule;
use wire::principal::{Authenticated, Identifier};
use wire::rbac::Action;

use super::super::pattern::{any_form, escape, has_one_form};
use super::super::wire::{ASCII, exact, network, regex, text_matcher};
use crate::model::{
    AuthorizationPolicy, PolicyAction, PolicyHeader, PolicyOperation, PolicyRule, PolicySource, canonical_path, without_mesh,
};

/// What an application may read as another path than the one that stands there.
const AMBIGUOUS: &str = r".*(//|%2[fF]|%5[cC]|\\).*";
/// What whoever has an identity is called.
const MEMBER: &str = "spiffe://";

/// The two rules of a service, by what a match of them means; `None` where nothing is said.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Rules {
    pub(super) deny: Option<filter::Rbac>,
    pub(super) allow: Option<filter::Rbac>,
}

/// What is meant by names: the trust domain of namespaces, and the one port of the application.
pub(super) struct Meaning<'a> {
    /// `None`: whichever it is, the certificates that are believed are all of it.
    pub(super) domain: Option<&'a str>,
    pub(super) port: u16,
    /// Bytes come in that nobody looks into: in them may be what is denied, and is never what is allowed.
    pub(super) opaque: bool,
}

/// The rules of all policies of one service.
pub(super) fn rules(policies: &[&AuthorizationPolicy], meaning: &Meaning<'_>) -> Rules {
    let of = |action: PolicyAction| {
        let all: Vec<&AuthorizationPolicy> = policies.iter().copied().filter(|policy| policy.action == action).collect();
        let live: Vec<&AuthorizationPolicy> = all.iter().copied().filter(|policy| !policy.dry_run).collect();
        // Of those in dry run Envoy counts what they would do, beside the others.
        let tried = (live.len() < all.len()).then(|| rbac(&all, action, meaning));
        let decides = (!live.is_empty()).then(|| rbac(&live, action, meaning));
        (!all.is_empty()).then(|| filter::Rbac { rules: decides, shadow_rules: tried, ..Default::default() })
    };
    Rules { deny: of(PolicyAction::Deny), allow: of(PolicyAction::Allow) }
}

fn rbac(policies: &[&AuthorizationPolicy], action: PolicyAction, meaning: &Meaning<'_>) -> wire::Rbac {
    let mut rules = BTreeMap::new();
    for policy in policies {
        for (number, rule) in policy.rules.iter().enumerate() {
            rules.extend(self::rule(rule, action, meaning).map(|rule| (format!("{}[{number}]", policy.id), rule)));
        }
    }
    let action = match action {
        PolicyAction::Allow => Action::Allow,
        PolicyAction::Deny => Action::Deny,
    };
    wire::Rbac { action: action.into(), policies: rules }
}

/// A rule; `None` when it matches nothing on this port.
fn rule(rule: &PolicyRule, action: PolicyAction, meaning: &Meaning<'_>) -> Option<wire::Policy> {
    let seen = |operation: &PolicyOperation| !meaning.opaque || action == PolicyAction::Deny || !looks(operation);
    let here =
        |operation: &&PolicyOperation| (operation.ports.is_empty() || operation.ports.contains(&meaning.port)) && seen(operation);
    let operations: Vec<&PolicyOperation> = rule.to.iter().filter(here).collect();
    if operations.is_empty() && !rule.to.is_empty() {
        return None;
    }
    let whole = |operation: &PolicyOperation| match meaning.opaque {
        true => permit(Rule::Any(true)),
        false => self::operation(operation, action),
    };
    let mut permissions: Vec<_> = operations.into_iter().map(whole).collect();
    if permissions.is_empty() {
        permissions.push(permit(Rule::Any(true)));
    }
    let mut principals: Vec<_> = rule.from.iter().map(|source| self::source(source, action, meaning.domain)).collect();
    if principals.is_empty() {
        principals.push(who(Identifier::Any(true)));
    }
    Some(wire::Policy { permissions, principals })
}

/// Whether it speaks of what stands in requests.
fn looks(operation: &PolicyOperation) -> bool {
    let PolicyOperation { ports: _, methods, not_methods, paths, not_paths, hosts, headers } = operation;
    !(methods.is_empty()
        && not_methods.is_empty()
        && paths.is_empty()
        && not_paths.is_empty()
        && hosts.is_empty()
        && headers.is_empty())
}

/// Who calls. What allows all but some allows nobody who has proven nothing: who that is, is not known to be another.
fn source(source: &PolicySource, action: PolicyAction, domain: Option<&str>) -> wire::Principal {
    let ids = |ids: &[Arc<str>]| any_who(ids.iter().map(|id| proven(starred(id).unwrap_or_else(|| exact(id)))));
    let within = |space: &Arc<str>| match domain {
        Some(domain) => prefix(&format!("spiffe://{domain}/ns/{space}/")),
        None => regex(&format!("spiffe://[^/]+/ns/{}/.*", escape(space))),
    };
    let spaces = |spaces: &[Arc<str>]| any_who(spaces.iter().map(|space| proven(within(space))));
    let nets = |nets: &[IpNet]| any_who(nets.iter().map(|net| who(Identifier::DirectRemoteIp(network(net)))));
    let demanded = [ids(&source.identities), spaces(&source.namespaces), nets(&source.cidrs)];
    let excluded = [ids(&source.not_identities), spaces(&source.not_namespaces), nets(&source.not_cidrs)];
    let excluded = excluded.into_iter().flatten().map(|one| who(Identifier::NotId(Box::new(one))));
    let excludes = !(source.not_identities.is_empty() && source.not_namespaces.is_empty());
    let someone = (excludes && action == PolicyAction::Allow).then(|| proven(prefix(MEMBER)));
    let all: Vec<_> = demanded.into_iter().flatten().chain(someone).chain(excluded).collect();
    if all.is_empty() { who(Identifier::Any(true)) } else { who(Identifier::AndIds(wire::principal::Set { ids: all })) }
}

fn operation(operation: &PolicyOperation, action: PolicyAction) -> wire::Permission {
    let methods = |methods: &[Arc<str>]| any_of(methods.iter().map(|method| header(":method", exact(method))));
    let paths = |paths: &[Arc<str>]| any_of(paths.iter().map(|path| at(written(path))));
    let denies = action == PolicyAction::Deny;
    let mut path: Vec<_> = paths(&operation.paths).into_iter().chain(paths(&operation.not_paths).map(not)).collect();
    if !path.is_empty() {
        let ambiguous = [at(regex(AMBIGUOUS)), not(at(regex(ASCII)))];
        match action {
            PolicyAction::Allow => path.extend(ambiguous.map(not)),
            PolicyAction::Deny => path = any_of([every(path)].into_iter().chain(ambiguous)).into_iter().collect(),
        }
    }
    let mut all: Vec<_> = methods(&operation.methods).into_iter().chain(methods(&operation.not_methods).map(not)).collect();
    all.extend(path);
    let hosts = operation.hosts.iter().map(|host| header(":authority", self::host(host)));
    let unseen = (denies && !operation.hosts.is_empty()).then(|| not(header(":authority", regex(ASCII))));
    all.extend(any_of(hosts.chain(unseen)));
    all.extend(operation.headers.iter().map(|wanted| field(wanted, denies)));
    every(all)
}

/// A path, or what begins like it, however its characters are encoded.
fn written(path: &str) -> StringMatcher {
    let path = canonical_path(path);
    let (start, rest) = path.strip_suffix('*').map_or((path.as_str(), ""), |start| (start, ".*"));
    match has_one_form(start) {
        true => starred(&path).unwrap_or_else(|| exact(&path)),
        false => regex(&format!("{}{rest}", any_form(start))),
    }
}

/// A host with any port, in any case, with the ending of the mesh and without it.
fn host(host: &str) -> StringMatcher {
    let (any, rest) = host.strip_prefix('*').map_or(("", host), |rest| (".*", rest));
    regex(&format!("(?i){any}{}(\\.mesh)?(:[0-9]*)?", escape(without_mesh(rest))))
}

/// A field of which one line has one of the values. Envoy sees all lines of a field as one text: what allows must be that text, what denies may stand anywhere
/// in it, between bytes that no pattern sees, too.
fn field(wanted: &PolicyHeader, denies: bool) -> wire::Permission {
    let present = permit(Rule::Header(HeaderMatcher {
        name: wanted.name.to_string(),
        header_match_specifier: Some(HeaderMatchSpecifier::PresentMatch(true)),
        ..Default::default()
    }));
    if wanted.values.is_empty() {
        return present;
    }
    let value = |value: &Arc<str>| match (denies, value.strip_suffix('*')) {
        (false, _) => starred(value).unwrap_or_else(|| exact(value)),
        (true, Some(prefix)) => regex(&format!("(.*,)?{}.*", escape(prefix))),
        (true, None) => regex(&format!("(.*,)?{}(,.*)?", escape(value))),
    };
    let hidden = |text: &Arc<str>| {
        let text = text.strip_suffix('*').unwrap_or(text);
        let within = (!text.is_empty()).then(|| header(&wanted.name, text_matcher(MatchPattern::Contains(text.to_owned()))));
        every([not(header(&wanted.name, regex(ASCII))), present.clone()].into_iter().chain(within).collect())
    };
    let stated = wanted.values.iter().map(|text| header(&wanted.name, value(text)));
    let hidden = wanted.values.iter().filter(|_| denies).map(hidden);
    every(any_of(stated.chain(hidden)).into_iter().collect())
}

/// What begins like this, where a star ends it.
fn starred(text: &str) -> Option<StringMatcher> {
    match text.strip_suffix('*')? {
        "" => Some(regex(".*")),
        start => Some(prefix(start)),
    }
}

fn prefix(text: &str) -> StringMatcher {
    text_matcher(MatchPattern::Prefix(text.to_owned()))
}

/// Whoever has proven such an identity.
fn proven(name: StringMatcher) -> wire::Principal {
    let name = if name == regex(".*") { prefix(MEMBER) } else { name };
    who(Identifier::Authenticated(Authenticated { principal_name: Some(name) }))
}

fn who(identifier: Identifier) -> wire::Principal {
    wire::Principal { identifier: Some(identifier) }
}

/// One of several; nothing where there are none.
fn any_who(ids: impl Iterator<Item = wire::Principal>) -> Option<wire::Principal> {
    let ids: Vec<_> = ids.collect();
    (!ids.is_empty()).then(|| who(Identifier::OrIds(wire::principal::Set { ids })))
}

fn permit(rule: Rule) -> wire::Permission {
    wire::Permission { rule: Some(rule) }
}

fn at(path: StringMatcher) -> wire::Permission {
    permit(Rule::UrlPath(PathMatcher { rule: Some(path_matcher::Rule::Path(path)) }))
}

fn header(name: &str, value: StringMatcher) -> wire::Permission {
    let header_match_specifier = Some(HeaderMatchSpecifier::StringMatch(value));
    permit(Rule::Header(HeaderMatcher { name: name.to_owned(), header_match_specifier, ..Default::default() }))
}

fn not(permission: wire::Permission) -> wire::Permission {
    permit(Rule::NotRule(Box::new(permission)))
}

fn any_of(rules: impl Iterator<Item = wire::Permission>) -> Option<wire::Permission> {
    let rules: Vec<_> = rules.collect();
    (!rules.is_empty()).then(|| permit(Rule::OrRules(wire::permission::Set { rules })))
}

fn every(rules: Vec<wire::Permission>) -> wire::Permission {
    if rules.is_empty() { permit(Rule::Any(true)) } else { permit(Rule::AndRules(wire::permission::Set { rules })) }
}
