//! Which hosts a chain of a certificate serves, where some certificate demands one of clients: who may name any server name must not get around that by
//! the host of a request. It knows no route.
//!
//! The rule is that of our agents (RFC 9110 section 7.4): a host whose certificate demands a client certificate is served in its own chain alone, and a chain
//! that demands one serves no other host. A wildcard stands for one label there and for any depth in Envoy's choice of a chain: what is kept out counts by
//! either, what is let in by the first.

use std::collections::BTreeMap;

use heddle_proto::envoy::config::rbac::v3 as rbac;
use heddle_proto::envoy::config::route::v3 as route;
use heddle_proto::envoy::extensions::filters::http::rbac::v3::Rbac;
use heddle_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use heddle_proto::envoy::r#type::matcher::v3::StringMatcher;
use heddle_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use rbac::Permission;
use rbac::permission::{Rule, Set};

use super::super::plugins;
use super::super::wire::{regex, text_matcher};
use crate::model::Certificate;

/// Its own name, which no route says anything of.
const NAME: &str = "heddle.misdirected";
/// Names that stand in each chain of a certificate which demands nothing; with more, such a chain serves the names of its own certificate alone.
const MOST: usize = 1_000;
/// The same in all chains together: the listener is one resource, of which each name takes about 200 bytes.
const MOST_IN_ALL: usize = 50_000;
/// Dots of a wildcard at most: Envoy refuses a pattern that counts more.
pub(super) const MOST_DOTS: usize = 24;
/// A host with a port or without: what Envoy cuts off as a port is one.
pub(super) const SHAPE: &str = r"[!-9;-~]*(?::[0-9]*)?";

/// What stands in the chains of certificates.
pub(super) struct Guards<'c> {
    exact: BTreeMap<&'c str, &'c Certificate>,
    /// By what follows the star.
    wide: BTreeMap<&'c str, &'c Certificate>,
    rest: Option<&'c Certificate>,
    /// For all certificates that demand nothing; `None` when it has too many names.
    open: Option<Option<rbac::Rbac>>,
}

impl<'c> Guards<'c> {
    /// Nothing where nobody demands a certificate. Each name is that of the first certificate that has it.
    pub(super) fn of(certificates: &[&'c Certificate]) -> Option<Guards<'c>> {
        if certificates.iter().all(|certificate| certificate.client.is_none()) {
            return None;
        }
        let mut guards = Guards { exact: BTreeMap::new(), wide: BTreeMap::new(), rest: None, open: None };
        for certificate in certificates {
            for name in &certificate.snis {
                match name.strip_prefix('*') {
                    Some("") => drop(guards.rest.get_or_insert(certificate)),
                    Some(ending) => drop(guards.wide.entry(ending).or_insert(certificate)),
                    None => drop(guards.exact.entry(name).or_insert(certificate)),
                }
            }
        }
        let (rules, names) = guards.rules(&|other| other.client.is_none(), true);
        let chains = certificates.iter().filter(|certificate| certificate.client.is_none()).count();
        guards.open = (names <= MOST && names.saturating_mul(chains) <= MOST_IN_ALL).then_some(rules);
        Some(guards)
    }

    /// What refuses requests for hosts that the chain of a certificate does not serve; nothing where it serves all of them.
    pub(super) fn filter(&self, own: &Certificate) -> Option<HttpFilter> {
        let rules = match &self.open {
            Some(rules) if own.client.is_none() => rules.clone(),
            _ => self.rules(&|other| other.id == own.id, false).0,
        };
        rules.map(|rules| plugins::filter(NAME, &Rbac { rules: Some(rules), ..Default::default() }, false))
    }

    /// What lets the hosts of such certificates in, and `nobodys`, and how many names stand in it.
    fn rules(&self, good: &dyn Fn(&Certificate) -> bool, nobodys: bool) -> (Option<rbac::Rbac>, usize) {
        if self.rest.map_or(nobodys, good) { self.denying(good) } else { self.allowing(good) }
    }

    /// Everything but the names of the others.
    fn denying(&self, good: &dyn Fn(&Certificate) -> bool) -> (Option<rbac::Rbac>, usize) {
        let kept_out = |ending: &&str| self.wide.get(*ending).is_some_and(|owner| !good(owner));
        let mut but: BTreeMap<&str, Vec<Permission>> = BTreeMap::new();
        let exact = self.exact.iter().filter(|(_, owner)| good(owner)).map(|(name, _)| (*name, is(name)));
        let wide = self.wide.iter().filter(|(_, owner)| good(owner)).map(|(ending, _)| (&ending[1..], ends(ending)));
        for (name, let_in) in exact.chain(wide) {
            for ending in endings(name).filter(kept_out) {
                but.entry(ending).or_default().push(let_in.clone());
            }
        }
        let exceptions: usize = but.values().map(Vec::len).sum();
        let mut denied: Vec<Permission> = self.exact.iter().filter(|(_, owner)| !good(owner)).map(|(name, _)| is(name)).collect();
        denied.extend(self.wide.iter().filter(|(_, owner)| !good(owner)).map(|(ending, _)| match but.remove(ending) {
            Some(let_in) => all_of(vec![ends(ending), not(all_of(vec![header(regex(SHAPE)), any_of(let_in)]))]),
            None => ends(ending),
        }));
        let names = denied.len() + exceptions;
        ((!denied.is_empty()).then(|| ruled(rbac::rbac::Action::Deny, denied)), names)
    }

    /// Nothing but their names.
    fn allowing(&self, good: &dyn Fn(&Certificate) -> bool) -> (Option<rbac::Rbac>, usize) {
        let mut but: BTreeMap<&str, Vec<Permission>> = BTreeMap::new();
        let parent = |name: &&'c str| name.find('.').and_then(|dot| name.get(dot..));
        for (name, _) in self.exact.iter().filter(|(_, owner)| !good(owner)) {
            if let Some(ending) = parent(name).filter(|ending| self.wide.get(ending).is_some_and(|owner| good(owner))) {
                but.entry(ending).or_default().push(is(name));
            }
        }
        let exceptions: usize = but.values().map(Vec::len).sum();
        let mut let_in: Vec<Permission> = self.exact.iter().filter(|(_, owner)| good(owner)).map(|(name, _)| is(name)).collect();
        let_in.extend(self.wide.iter().filter(|(_, owner)| good(owner)).map(|(ending, _)| match but.remove(ending) {
            Some(others) => all_of(vec![one_label(ending), not(any_of(others))]),
            None => one_label(ending),
        }));
        let names = let_in.len() + exceptions;
        let allowed = all_of(vec![header(regex(SHAPE)), any_of(let_in)]);
        (Some(ruled(rbac::rbac::Action::Allow, vec![allowed])), names)
    }
}

/// What follows each label of a name, dot included: the wildcards that it falls under, at any depth.
fn endings(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').filter_map(|(at, _)| name.get(at..))
}

fn ruled(action: rbac::rbac::Action, permissions: Vec<Permission>) -> rbac::Rbac {
    let anybody = rbac::Principal { identifier: Some(rbac::principal::Identifier::Any(true)) };
    let policy = rbac::Policy { permissions, principals: vec![anybody] };
    rbac::Rbac { action: action.into(), policies: BTreeMap::from([("host".to_owned(), policy)]) }
}

/// This host, in any case, with a port or a dot behind it.
fn is(name: &str) -> Permission {
    any_of(vec![
        text(MatchPattern::Exact(name.to_owned())),
        text(MatchPattern::Exact(format!("{name}."))),
        text(MatchPattern::Prefix(format!("{name}:"))),
        text(MatchPattern::Prefix(format!("{name}.:"))),
    ])
}

/// Every host that ends so.
fn ends(ending: &str) -> Permission {
    any_of(vec![ends_in(ending), ends_in(&format!("{ending}."))])
}

/// Every host that ends so and has one label before it.
fn one_label(ending: &str) -> Permission {
    let dots = ending.matches('.').count();
    // Patterns have a bound of their own, which names with many letters would reach.
    let more_than = |dots: usize| header(regex(&format!(r"(?:\C*\.){{{}}}\C*", dots + 1)));
    any_of(vec![
        all_of(vec![ends_in(ending), not(more_than(dots))]),
        all_of(vec![ends_in(&format!("{ending}.")), not(more_than(dots + 1))]),
    ])
}

fn ends_in(ending: &str) -> Permission {
    any_of(vec![text(MatchPattern::Suffix(ending.to_owned())), text(MatchPattern::Contains(format!("{ending}:")))])
}

fn text(pattern: MatchPattern) -> Permission {
    header(StringMatcher { ignore_case: true, ..text_matcher(pattern) })
}

fn header(matcher: StringMatcher) -> Permission {
    of(Rule::Header(route::HeaderMatcher {
        name: ":authority".to_owned(),
        header_match_specifier: Some(route::header_matcher::HeaderMatchSpecifier::StringMatch(matcher)),
        ..Default::default()
    }))
}

fn any_of(rules: Vec<Permission>) -> Permission {
    of(Rule::OrRules(Set { rules }))
}

fn all_of(rules: Vec<Permission>) -> Permission {
    of(Rule::AndRules(Set { rules }))
}

fn not(rule: Permission) -> Permission {
    of(Rule::NotRule(Box::new(rule)))
}

fn of(rule: Rule) -> Permission {
    Permission { rule: Some(rule) }
}
