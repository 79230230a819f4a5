//! From a route of the model to one that can be matched. It knows no index.

use std::sync::Arc;

use heddle_node::weak_map::WeakMap;
use heddle_xds::catalog::ConfigFault;
use heddle_xds::model::Route;
use ipnet::IpNet;
use serde_json::Value;

use super::pattern::PathPattern;
use crate::exchange::expr::ExprError;
use crate::exchange::{Exchange, Expr, RouteInfo, expr};
use crate::http::Method;

/// A route whose conditions are compiled. `T` is what it leads to.
#[derive(Debug)]
pub struct CompiledRoute<T> {
    /// Identity, for variables, logs and metrics.
    pub info: Arc<RouteInfo>,
    /// What the route leads to.
    pub target: T,
    /// Among equals, higher wins.
    pub priority: i64,
    /// Among equals of the same priority, lower wins.
    pub created: u64,
    pub(super) hosts: Vec<HostPattern>,
    pub(super) hosts_have_port: bool,
    pub(super) patterns: Vec<PathPattern>,
    pub(super) methods: Methods,
    pub(super) remote_addrs: Vec<IpNet>,
    pub(super) vars: Option<Arc<Expr>>,
}

/// A host condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// Every host.
    Any,
    /// This host, lower-case.
    Exact(Arc<str>),
    /// Every host that ends so; `.example.com` for `*.example.com`.
    Suffix(Arc<str>),
}

impl HostPattern {
    /// Parses `example.com`, `*.example.com` or `*`.
    ///
    /// # Errors
    /// Says what was expected.
    pub fn parse(text: &str) -> Result<HostPattern, String> {
        let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        match text.strip_prefix('*') {
            Some("") => Ok(HostPattern::Any),
            _ if text.is_empty() => Err("expected a host, found an empty string".to_owned()),
            Some(suffix) if !suffix.contains('*') => Ok(HostPattern::Suffix(suffix.into())),
            None if !text.contains('*') => Ok(HostPattern::Exact(text.into())),
            _ => Err(format!("expected a host with at most one `*`, at its start; found `{text}`")),
        }
    }

    /// Whether a lower-case host without port fits.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            HostPattern::Any => true,
            HostPattern::Exact(name) => **name == *host,
            HostPattern::Suffix(suffix) if suffix.starts_with('.') => host.len() > suffix.len() && host.ends_with(&**suffix),
            HostPattern::Suffix(suffix) => host.ends_with(&**suffix),
        }
    }
}

/// A set of methods; the empty set is every method.
#[derive(Debug, Default)]
pub(super) struct Methods {
    known: u16,
    other: Vec<Box<str>>,
}

impl Methods {
    fn new(tokens: &[Arc<str>]) -> Methods {
        let mut methods = Methods::default();
        for token in tokens {
            match Method::from_token(&token.to_ascii_uppercase()) {
                Method::Other(token) => methods.other.push(token),
                known => methods.known |= bit(&known),
            }
        }
        methods
    }

    /// The set as bits when [`bit`] has one for each of its members; zero is every method.
    pub(super) fn known_only(&self) -> Option<u16> {
        self.other.is_empty().then_some(self.known)
    }

    fn has(&self, method: &Method) -> bool {
        let all = self.known == 0 && self.other.is_empty();
        all || match method {
            Method::Other(token) => self.other.contains(token),
            known => self.known & bit(known) != 0,
        }
    }
}

/// The bit of a method in a set.
pub(super) fn bit(method: &Method) -> u16 {
    match method {
        Method::Get => 1,
        Method::Head => 2,
        Method::Post => 4,
        Method::Put => 8,
        Method::Delete => 16,
        Method::Options => 32,
        Method::Patch => 64,
        Method::Connect => 128,
        Method::Trace => 256,
        Method::Other(_) => 0,
    }
}

/// A condition besides host and path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Method,
    RemoteAddr,
    Vars,
}

/// Compiled conditions of routes by their JSON form: thousands of routes have the same, which are compiled once.
pub type Conditions = WeakMap<Arc<Value>, Expr>;

fn compiled(source: &Arc<Value>, known: &mut Conditions) -> Result<Arc<Expr>, ExprError> {
    if let Some(expr) = known.get(source) {
        return Ok(expr);
    }
    let expr = Arc::new(Expr::compile(source)?);
    known.put(source.clone(), &expr);
    Ok(expr)
}

/// Why a route cannot be chosen by the body.
const BODY_TOO_LATE: &str = "post_arg and graphql variables cannot choose a route, since the body is not read before; \
    use them in _meta.filter, traffic-split or other plugins";

impl<T> CompiledRoute<T> {
    /// Compiles a route of the model by itself.
    ///
    /// # Errors
    /// All its faults, with their paths inside the route.
    pub fn compile(route: &Route, target: T) -> Result<CompiledRoute<T>, Vec<ConfigFault>> {
        Self::compile_beside(route, target, &mut Conditions::default())
    }

    /// Compiles a route of the model; conditions that others have too are shared with them.
    ///
    /// # Errors
    /// As [`CompiledRoute::compile`].
    pub fn compile_beside(route: &Route, target: T, conditions: &mut Conditions) -> Result<CompiledRoute<T>, Vec<ConfigFault>> {
        let mut faults = Vec::new();
        let matches = &route.matches;
        let patterns = collect(&matches.uris, "uris", &mut faults, PathPattern::parse);
        if matches.uris.is_empty() {
            faults.push(fault("uris".to_owned(), "expected at least one path".to_owned()));
        }
        let mut hosts = collect(&matches.hosts, "hosts", &mut faults, HostPattern::parse);
        if matches.hosts.is_empty() {
            hosts.push(HostPattern::Any);
        }
        let vars = match matches.vars.as_ref().map(|vars| compiled(vars, conditions)).transpose() {
            Ok(vars) => vars.filter(|expr| !expr.is_trivial()),
            Err(error) => {
                faults.push(fault(format!("vars{}", error.path), error.message));
                None
            }
        };
        if vars.as_ref().is_some_and(|vars| vars.wants_content()) {
            faults.push(fault("vars".to_owned(), BODY_TOO_LATE.to_owned()));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let has_port =
            |host: &HostPattern| matches!(host, HostPattern::Exact(name) if name.contains(':') && !name.ends_with(']'));
        Ok(CompiledRoute {
            info: Arc::new(RouteInfo {
                id: route.id.clone(),
                service_id: route.service_id.clone(),
                name: route.name.clone(),
                service: route.service_name.clone(),
                uri: matches.uris.first().cloned().unwrap_or_default(),
            }),
            target,
            priority: route.priority,
            created: route.created,
            hosts_have_port: hosts.iter().any(has_port),
            hosts,
            patterns,
            methods: Methods::new(&matches.methods),
            remote_addrs: matches.remote_addrs.clone(),
            vars,
        })
    }

    /// How many segments of a path its patterns say before they take anything; see [`Routed::said`](crate::exchange::Routed::said).
    pub fn said(&self, path: &str) -> Option<usize> {
        let mut said = Some(0);
        for pattern in self.patterns.iter().filter(|pattern| pattern.matches(path)) {
            said = said.zip(pattern.said()).map(|(one, other)| one.max(other));
        }
        said
    }

    /// The first condition besides host and path that does not hold.
    pub(super) fn refusal(&self, x: &Exchange) -> Option<Condition> {
        if !self.methods.has(&x.request.method) {
            return Some(Condition::Method);
        }
        if !self.remote_addrs.is_empty() && !expr::contains(&self.remote_addrs, x.remote.ip()) {
            return Some(Condition::RemoteAddr);
        }
        match &self.vars {
            Some(expr) if !expr.matches(x) => Some(Condition::Vars),
            _ => None,
        }
    }

    /// Whether the host fits one of the route's; hosts with a port are compared with the whole authority.
    pub(super) fn host_fits(&self, x: &Exchange) -> bool {
        let host = x.request.host();
        self.hosts.iter().any(|pattern| pattern.matches(host) || self.hosts_have_port && pattern.matches(&x.request.authority))
    }
}

fn collect<V>(
    texts: &[Arc<str>],
    field: &str,
    faults: &mut Vec<ConfigFault>,
    parse: impl Fn(&str) -> Result<V, String>,
) -> Vec<V> {
    let mut values = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match parse(text) {
            Ok(value) => values.push(value),
            Err(message) => faults.push(fault(format!("{field}[{index}]"), message)),
        }
    }
    values
}

fn fault(path: String, message: String) -> ConfigFault {
    ConfigFault { path, message }
}
