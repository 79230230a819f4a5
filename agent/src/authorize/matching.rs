//! What rules of policies match, compiled. It knows no policy.

use std::sync::Arc;

use heddle_xds::model::{PolicyAction, PolicyHeader, PolicyOperation, PolicyRule, PolicySource, canonical_path, without_mesh};
use ipnet::IpNet;

use super::{Called, Caller, RequestFacts};

/// A rule: one of its sources and one of its operations must match, where it has any.
#[derive(Debug)]
pub(super) struct Rule {
    from: Vec<Source>,
    to: Vec<Operation>,
}

impl Rule {
    pub(super) fn compile(rule: &PolicyRule, action: PolicyAction, domain: Option<&str>) -> Rule {
        Rule {
            from: rule.from.iter().map(|source| Source::compile(source, action, domain)).collect(),
            to: rule.to.iter().map(|operation| Operation::compile(operation, action)).collect(),
        }
    }

    pub(super) fn matches(&self, caller: &Caller<'_>, called: &Called<'_>) -> bool {
        let from = self.from.is_empty() || self.from.iter().any(|source| source.matches(caller));
        from && (self.to.is_empty() || self.to.iter().any(|operation| operation.matches(called)))
    }
}

/// A text with at most one star, at its end or at its start.
#[derive(Debug)]
enum Pattern {
    Exact(Arc<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
}

impl Pattern {
    fn prefix(text: &Arc<str>) -> Pattern {
        text.strip_suffix('*').map_or_else(|| Pattern::Exact(text.clone()), |prefix| Pattern::Prefix(prefix.into()))
    }

    /// For paths, written as requests have them.
    fn path(text: &Arc<str>) -> Pattern {
        Pattern::prefix(&canonical_path(text).into())
    }

    /// For hosts, in lower case, without the ending of the mesh.
    fn suffix(text: &str) -> Pattern {
        let text = text.to_ascii_lowercase();
        let text = without_mesh(&text);
        match text.strip_prefix('*') {
            Some(suffix) => Pattern::Suffix(suffix.into()),
            None => Pattern::Exact(text.into()),
        }
    }

    /// Sidecars name services without that ending, Envoys and clients of gRPC with it.
    fn names(&self, host: &str) -> bool {
        self.matches_host(host) || self.matches_host(without_mesh(host))
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Pattern::Exact(exact) => **exact == *text,
            Pattern::Prefix(prefix) => text.starts_with(&**prefix),
            Pattern::Suffix(suffix) => text.ends_with(&**suffix),
        }
    }

    fn matches_bytes(&self, text: &[u8]) -> bool {
        match self {
            Pattern::Exact(exact) => exact.as_bytes() == text,
            Pattern::Prefix(prefix) => text.starts_with(prefix.as_bytes()),
            Pattern::Suffix(suffix) => text.ends_with(suffix.as_bytes()),
        }
    }

    fn matches_host(&self, host: &str) -> bool {
        let host = host.as_bytes();
        match self {
            Pattern::Exact(exact) => exact.as_bytes().eq_ignore_ascii_case(host),
            Pattern::Prefix(prefix) => host.len() >= prefix.len() && host[..prefix.len()].eq_ignore_ascii_case(prefix.as_bytes()),
            Pattern::Suffix(suffix) => {
                host.len() >= suffix.len() && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes())
            }
        }
    }
}

/// Who calls.
#[derive(Debug)]
struct Source {
    /// One list per condition that an identity must meet: ids, namespaces.
    identities: Vec<Vec<Pattern>>,
    not_identities: Vec<Pattern>,
    /// Whether a caller without identity meets `not_identities`.
    nobody: bool,
    networks: Vec<IpNet>,
    not_networks: Vec<IpNet>,
}

impl Source {
    fn compile(source: &PolicySource, action: PolicyAction, domain: Option<&str>) -> Source {
        let namespace = |namespace: &Arc<str>| {
            // A trust domain has no slash in it: without one, nothing begins like this.
            Pattern::Prefix(format!("spiffe://{}/ns/{namespace}/", domain.unwrap_or("/")).into())
        };
        let lists = [
            source.identities.iter().map(Pattern::prefix).collect::<Vec<_>>(),
            source.namespaces.iter().map(namespace).collect::<Vec<_>>(),
        ];
        let excluded = source.not_identities.iter().map(Pattern::prefix);
        Source {
            identities: lists.into_iter().filter(|list| !list.is_empty()).collect(),
            not_identities: excluded.chain(source.not_namespaces.iter().map(namespace)).collect(),
            nobody: action == PolicyAction::Deny,
            networks: source.cidrs.clone(),
            not_networks: source.not_cidrs.clone(),
        }
    }

    fn matches(&self, caller: &Caller<'_>) -> bool {
        let identity = match caller.peer {
            Some(peer) => {
                self.identities.iter().all(|list| list.iter().any(|pattern| pattern.matches(peer)))
                    && !self.not_identities.iter().any(|pattern| pattern.matches(peer))
            }
            None => self.identities.is_empty() && (self.not_identities.is_empty() || self.nobody),
        };
        let address = caller.address.to_canonical();
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        identity && (self.networks.is_empty() || within(&self.networks)) && !within(&self.not_networks)
    }
}

/// What is called.
#[derive(Debug)]
struct Operation {
    ports: Vec<u16>,
    /// Whether it matches bytes that nobody looks into.
    blind: bool,
    methods: Vec<Arc<str>>,
    not_methods: Vec<Arc<str>>,
    paths: Vec<Pattern>,
    not_paths: Vec<Pattern>,
    hosts: Vec<Pattern>,
    headers: Vec<(Arc<str>, Vec<Pattern>)>,
}

impl Operation {
    fn compile(operation: &PolicyOperation, action: PolicyAction) -> Operation {
        let header = |header: &PolicyHeader| (header.name.clone(), header.values.iter().map(Pattern::prefix).collect());
        let mut compiled = Operation {
            ports: operation.ports.clone(),
            blind: false,
            methods: operation.methods.clone(),
            not_methods: operation.not_methods.clone(),
            paths: operation.paths.iter().map(Pattern::path).collect(),
            not_paths: operation.not_paths.iter().map(Pattern::path).collect(),
            hosts: operation.hosts.iter().map(|host| Pattern::suffix(host)).collect(),
            headers: operation.headers.iter().map(header).collect(),
        };
        let looks = !(compiled.methods.is_empty()
            && compiled.not_methods.is_empty()
            && compiled.paths.is_empty()
            && compiled.not_paths.is_empty()
            && compiled.hosts.is_empty()
            && compiled.headers.is_empty());
        // In what cannot be seen may be what is denied, and is never what is allowed.
        compiled.blind = !looks || action == PolicyAction::Deny;
        compiled
    }

    fn matches(&self, called: &Called<'_>) -> bool {
        if !self.ports.is_empty() && !self.ports.contains(&called.port) {
            return false;
        }
        match &called.request {
            Some(request) => self.matches_request(request),
            None => self.blind,
        }
    }

    fn matches_request(&self, request: &RequestFacts<'_>) -> bool {
        let is_method = |methods: &[Arc<str>]| methods.iter().any(|method| **method == *request.method);
        let is_path = |paths: &[Pattern]| paths.iter().any(|path| path.matches(request.path));
        (self.methods.is_empty() || is_method(&self.methods))
            && !is_method(&self.not_methods)
            && (self.paths.is_empty() || is_path(&self.paths))
            && !is_path(&self.not_paths)
            && (self.hosts.is_empty() || self.hosts.iter().any(|host| host.names(without_port(request.host))))
            && self.headers.iter().all(|(name, values)| has(request, name, values))
    }
}

fn has(request: &RequestFacts<'_>, name: &str, values: &[Pattern]) -> bool {
    request.fields.get_all(name).any(|value| values.is_empty() || values.iter().any(|pattern| pattern.matches_bytes(value)))
}

/// A host without its port; brackets of an IPv6 literal stay.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}
