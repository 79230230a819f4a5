//! Authorization policies, from the form that users write to the one that sidecars ask: short names of callers become SPIFFE ids.

use std::sync::Arc;

use heddle_xds::model::{AuthorizationPolicy, PolicyAction, PolicyHeader, PolicyOperation, PolicyRule, PolicySource, Resource};
use serde::Deserialize;

use super::super::context::{Context, Unit};
use crate::model::resources::{self, Operation, PolicyActionKind, Source};
use crate::model::{Caller, Key, network};
use crate::state::Stored;

/// Translates one policy.
pub(in super::super) fn unit(context: &Context<'_>, key: &Key, stored: &Stored) -> Unit {
    let Ok(written) = resources::AuthorizationPolicy::deserialize(&stored.value) else { return Unit::default() };
    let (domain, namespace) = (context.directory.trust_domain(), &*written.namespace);
    let rule = |rule: &resources::Rule| PolicyRule {
        from: rule.from.iter().map(|source| self::source(source, domain, namespace)).collect(),
        to: rule.to.iter().map(operation).collect(),
    };
    let policy = AuthorizationPolicy {
        id: key.id.clone(),
        namespace: namespace.into(),
        service: written.service.as_deref().map(Arc::from),
        action: match written.action {
            PolicyActionKind::Allow => PolicyAction::Allow,
            PolicyActionKind::Deny => PolicyAction::Deny,
        },
        dry_run: written.dry_run,
        rules: written.rules.iter().map(rule).collect(),
    };
    Unit { resources: vec![Resource::AuthorizationPolicy(policy)], ..Unit::default() }
}

fn source(written: &Source, domain: &str, namespace: &str) -> PolicySource {
    let callers = |items: &[String]| {
        let callers = items.iter().filter_map(|text| Caller::parse(text, namespace).ok());
        callers.map(|caller| caller.pattern(domain).into()).collect()
    };
    let networks = |items: &[String]| items.iter().filter_map(|text| network(text).ok()).collect();
    PolicySource {
        identities: callers(&written.identities),
        namespaces: texts(&written.namespaces),
        cidrs: networks(&written.cidrs),
        not_identities: callers(&written.not_identities),
        not_namespaces: texts(&written.not_namespaces),
        not_cidrs: networks(&written.not_cidrs),
    }
}

fn operation(written: &Operation) -> PolicyOperation {
    let methods = |items: &[String]| items.iter().map(|method| method.to_ascii_uppercase().into()).collect();
    let headers = written.headers.iter();
    PolicyOperation {
        methods: methods(&written.methods),
        paths: texts(&written.paths),
        hosts: written.hosts.iter().map(|host| host.to_ascii_lowercase().into()).collect(),
        ports: written.ports.clone(),
        headers: headers
            .map(|(name, values)| PolicyHeader { name: name.to_ascii_lowercase().into(), values: texts(values.all()) })
            .collect(),
        not_methods: methods(&written.not_methods),
        not_paths: texts(&written.not_paths),
    }
}

fn texts(items: &[String]) -> Vec<Arc<str>> {
    items.iter().map(|item| item.as_str().into()).collect()
}
