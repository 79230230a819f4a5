//! Whether a caller may do what it asks of the service beside which this node stands. Pure: it knows no connection and no request beyond what it is shown.
//!
//! Policies that deny are asked first. Where there are policies that allow, one of them must match; without any, everything is allowed. A policy in dry run
//! decides nothing: what it would have refused is counted and told. A caller that has proven no identity is nobody's friend: a rule that allows and speaks of
//! identities, also of those that it excludes, never matches it, and one that denies all but some always does.

mod matching;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use heddle_xds::model::{AuthorizationPolicy, PolicyAction};

use crate::http::Fields;
use matching::Rule;

/// Who calls.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The SPIFFE id that it has proven, `None` in clear.
    pub peer: Option<&'a str>,
    /// Address of the socket's peer.
    pub address: IpAddr,
}

/// What is called.
#[derive(Debug, Clone, Copy)]
pub struct Called<'a> {
    /// Port of the application.
    pub port: u16,
    /// The request, `None` for bytes that are not looked into: what asks for more than a port then never allows, and always denies.
    pub request: Option<RequestFacts<'a>>,
}

/// What policies look at in a request.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// Upper-case method.
    pub method: &'a str,
    /// Normalised path without query.
    pub path: &'a str,
    /// Host as the request says it, with or without port.
    pub host: &'a str,
    /// Header fields.
    pub fields: &'a Fields,
}

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is let in. `would_refuse` says which policy in dry run would not have.
    Allowed {
        /// By whom it would have been refused.
        would_refuse: Option<Refusal>,
    },
    /// It is refused.
    Refused(Refusal),
}

/// By whom a call is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Id of the policy that denies; of the first one that allows, when none of those matched.
    pub policy: Arc<str>,
    /// Which of its rules matched, from zero; `None` when it is refused because none did.
    pub rule: Option<usize>,
}

/// All policies of one service, compiled; immutable, but for the counters.
#[derive(Debug, Default)]
pub struct Policies {
    deny: Vec<Policy>,
    allow: Vec<Policy>,
    /// Whether any of them is in dry run.
    dry: bool,
}

#[derive(Debug)]
struct Policy {
    id: Arc<str>,
    dry_run: bool,
    rules: Vec<Rule>,
    counts: Arc<Counts>,
}

/// How often a policy refused.
#[derive(Debug, Default)]
struct Counts {
    refused: AtomicU64,
    would_refuse: AtomicU64,
}

/// How often a policy refused, for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyReport {
    /// Id of the policy.
    pub policy: Arc<str>,
    /// Whether it decides nothing.
    pub dry_run: bool,
    /// Calls refused.
    pub refused: u64,
    /// Calls that it would have refused, were it not in dry run.
    pub would_refuse: u64,
}

impl Policies {
    /// Compiles policies. `domain` is the trust domain whose namespaces they mean; before it is known, no caller is of any. Counters go on from `before`.
    pub fn compile<'a>(
        policies: impl IntoIterator<Item = &'a AuthorizationPolicy>,
        domain: Option<&str>,
        before: &Policies,
    ) -> Policies {
        let old: HashMap<&str, &Arc<Counts>> = before.all().map(|policy| (&*policy.id, &policy.counts)).collect();
        let mut compiled = Policies::default();
        for policy in policies {
            let rules = policy.rules.iter().map(|rule| Rule::compile(rule, policy.action, domain)).collect();
            let counts = old.get(&*policy.id).map(|counts| (*counts).clone()).unwrap_or_default();
            compiled.dry |= policy.dry_run;
            let list = match policy.action {
                PolicyAction::Deny => &mut compiled.deny,
                PolicyAction::Allow => &mut compiled.allow,
            };
            list.push(Policy { id: policy.id.clone(), dry_run: policy.dry_run, rules, counts });
        }
        compiled
    }

    /// Whether everything is allowed without a look.
    pub fn is_empty(&self) -> bool {
        self.deny.is_empty() && self.allow.is_empty()
    }

    /// Judges a call and counts what is refused.
    pub fn judge(&self, caller: &Caller<'_>, called: &Called<'_>) -> Verdict {
        if let Some(refused) = self.refusal(caller, called, false) {
            refused.counts.refused.fetch_add(1, Ordering::Relaxed);
            return Verdict::Refused(refused.told());
        }
        let would = if self.dry { self.refusal(caller, called, true) } else { None };
        if let Some(would) = &would {
            would.counts.would_refuse.fetch_add(1, Ordering::Relaxed);
        }
        Verdict::Allowed { would_refuse: would.map(|would| would.told()) }
    }

    /// Whether bytes of a connection that was let in may still flow; counts nothing.
    pub fn still_allows(&self, caller: &Caller<'_>, called: &Called<'_>) -> bool {
        self.refusal(caller, called, false).is_none()
    }

    /// Who refuses; with `dry`, policies in dry run decide too.
    fn refusal(&self, caller: &Caller<'_>, called: &Called<'_>, dry: bool) -> Option<Found<'_>> {
        let counts = |policy: &&Policy| dry || !policy.dry_run;
        for policy in self.deny.iter().filter(counts) {
            if let Some(rule) = policy.matching(caller, called) {
                return Some(Found { id: &policy.id, counts: &policy.counts, rule: Some(rule) });
            }
        }
        let mut first = None;
        for policy in self.allow.iter().filter(counts) {
            if policy.matching(caller, called).is_some() {
                return None;
            }
            // Of those that are to blame, the one in dry run is meant when it is asked for.
            if first.is_none_or(|first: &Policy| dry && !first.dry_run && policy.dry_run) {
                first = Some(policy);
            }
        }
        first.map(|policy| Found { id: &policy.id, counts: &policy.counts, rule: None })
    }

    fn all(&self) -> impl Iterator<Item = &Policy> {
        self.deny.iter().chain(&self.allow)
    }

    /// Counters of all policies.
    pub fn report(&self) -> Vec<PolicyReport> {
        let report = |policy: &Policy| PolicyReport {
            policy: policy.id.clone(),
            dry_run: policy.dry_run,
            refused: policy.counts.refused.load(Ordering::Relaxed),
            would_refuse: policy.counts.would_refuse.load(Ordering::Relaxed),
        };
        self.all().map(report).collect()
    }
}

/// Who refuses, before it is told.
struct Found<'a> {
    id: &'a Arc<str>,
    counts: &'a Counts,
    rule: Option<usize>,
}

impl Found<'_> {
    fn told(&self) -> Refusal {
        Refusal { policy: self.id.clone(), rule: self.rule }
    }
}

impl Policy {
    fn matching(&self, caller: &Caller<'_>, called: &Called<'_>) -> Option<usize> {
        self.rules.iter().position(|rule| rule.matches(caller, called))
    }
}
