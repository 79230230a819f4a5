//! Routes as clients of gRPC know them: they choose a cluster by path and header fields, and change nothing. It knows no host but by its routes.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use heddle_proto::envoy::config::route::v3 as wire;
use heddle_proto::envoy::r#type::matcher::v3::StringMatcher;
use heddle_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use wire::header_matcher::HeaderMatchSpecifier;
use wire::route::Action;
use wire::route_action::HashPolicy;
use wire::route_action::hash_policy::{Header, PolicySpecifier};

use super::super::Reader;
use super::super::hosts::Place;
use super::super::plugins::{CORS, FAULT};
use super::super::route::{Draft, Encoded, Instead, places, shared};
use super::super::wire::ANY;
use crate::model::{Balancer, HashOn, PassHost, PluginConf, Route, Upstream};

/// The one method of gRPC.
const POST: &str = "POST";

/// Encodes a route with what is said of all routes, or says what of it clients of gRPC lack. One whose endpoints speak no HTTP/2 is none of their business.
pub(in super::super) fn encode<'a>(
    route: &Route,
    everywhere: &[PluginConf],
    find: &dyn Fn(&str) -> Option<&'a Upstream>,
) -> Result<Encoded, String> {
    let own = route.upstream.as_ref().map(|upstream| upstream.name.clone());
    let mut upstreams: BTreeSet<Arc<str>> = own.iter().cloned().collect();
    let methods = &route.matches.methods;
    let upstream = own.as_ref().and_then(|name| find(name)).filter(|upstream| upstream.scheme.is_h2());
    let Some(upstream) = upstream.filter(|_| methods.is_empty() || methods.iter().any(|method| &**method == POST)) else {
        return Ok(Encoded { upstreams, ..Encoded::default() });
    };
    let mut draft = Draft { reader: Reader::Grpc, action: action(upstream)?, ..Draft::default() };
    let untouched = draft.action.clone();
    draft.plug(route, everywhere)?;
    if draft.answer.is_some() {
        return Err("is answered here, and clients of gRPC answer nothing themselves".to_owned());
    }
    let retried = draft.action.retry_policy.take();
    if draft.route != wire::Route::default() || draft.action != untouched {
        return Err("edits requests or answers, and clients of gRPC edit none".to_owned());
    }
    draft.action.retry_policy = retried;
    // What browsers are told is none of their business.
    draft.filters.remove(CORS);
    if let Some(other) = draft.filters.keys().find(|name| *name != FAULT) {
        return Err(format!("needs {other}, which clients of gRPC lack"));
    }
    if !draft.copies.is_empty() {
        return Err("copies requests, and clients of gRPC copy none".to_owned());
    }
    let mut actions = Vec::new();
    for before in std::mem::take(&mut draft.before) {
        let Instead::Shares(shares) = before.what else {
            return Err("is answered here, and clients of gRPC answer nothing themselves".to_owned());
        };
        actions.push((before.conditions, Action::Route(shared(&draft.action, &shares, own.as_ref(), &mut upstreams)?)));
    }
    let last = Action::Route(shared(&draft.action, &draft.shares, own.as_ref(), &mut upstreams)?);
    actions.push((Vec::new(), last));
    let places = places(&without_method(route), &draft, &actions, known)?;
    Ok(Encoded { places, upstreams, ..Encoded::default() })
}

/// What stands in the place of a route that is withheld: a call that comes there fails, since no client of gRPC answers by itself.
pub(in super::super) fn gap(route: &Route, status: u32) -> Vec<Place> {
    super::super::route::gap(&without_method(route), status, known)
}

/// Every call is a POST.
fn without_method(route: &Route) -> Cow<'_, Route> {
    if route.matches.methods.is_empty() {
        return Cow::Borrowed(route);
    }
    let mut route = route.clone();
    route.matches.methods.clear();
    Cow::Owned(route)
}

/// Whether clients of gRPC look at what a condition asks for. They have no query, and of what begins with a colon only the path.
/// What they read is ASCII, and not all of them know other bytes in a pattern.
fn known(matches: &mut wire::RouteMatch) -> Result<(), String> {
    if let Some(parameter) = matches.query_parameters.first() {
        return Err(format!("vars: calls have no parameter `arg_{}`", parameter.name));
    }
    for field in &mut matches.headers {
        if field.name.starts_with(':') {
            return Err(format!("vars: clients of gRPC do not look at `{}`", field.name));
        }
        if field.invert_match {
            let name = &field.name;
            return Err(format!("vars: clients of gRPC do not take a missing `{name}` for one that does not match"));
        }
        if let Some(HeaderMatchSpecifier::StringMatch(StringMatcher {
            match_pattern: Some(MatchPattern::SafeRegex(pattern)),
            ..
        })) = &mut field.header_match_specifier
        {
            pattern.regex = ascii(&pattern.regex).unwrap_or_else(|| std::mem::take(&mut pattern.regex));
        }
    }
    Ok(())
}

/// A pattern with any text around what a user wrote, in which nothing is changed.
pub(super) fn ascii(pattern: &str) -> Option<String> {
    let (flags, rest) = pattern.split_at_checked(pattern.find(')')? + 1)?;
    let written = rest.strip_prefix(ANY)?.strip_suffix(ANY)?;
    flags.starts_with("(?").then(|| format!("{flags}.*{written}.*"))
}

fn action(upstream: &Upstream) -> Result<wire::RouteAction, String> {
    if upstream.pass_host != PassHost::Pass {
        return Err("pass_host: clients of gRPC say the host that they were given".to_owned());
    }
    let hashed = match &upstream.balancer {
        Balancer::ConsistentHash(HashOn::Header(name), _) => Some(name.to_ascii_lowercase()),
        Balancer::ConsistentHash(HashOn::Var(name), _) => {
            let name =
                name.strip_prefix("http_").ok_or_else(|| format!("balancer: clients of gRPC hash no variable `{name}`"))?;
            Some(name.replace('_', "-"))
        }
        Balancer::ConsistentHash(..) => return Err("balancer: clients of gRPC hash header fields only".to_owned()),
        _ => None,
    };
    let policy = |header_name| HashPolicy {
        policy_specifier: Some(PolicySpecifier::Header(Header { header_name, ..Default::default() })),
        ..Default::default()
    };
    Ok(wire::RouteAction { hash_policy: hashed.map(policy).into_iter().collect(), ..Default::default() })
}
