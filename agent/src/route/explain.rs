//! Why a request takes the route that it takes, and why not the others. For people, not for the request path.

use std::fmt;
use std::sync::Arc;

use super::compile::Condition;
use super::{CompiledRoute, RouteTable};
use crate::exchange::{Exchange, RouteInfo};

/// What became of one route.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The route.
    pub route: Arc<RouteInfo>,
    /// What became of it.
    pub why: Why,
}

/// What became of one route; the closer it came, the smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It takes the request.
    Taken,
    /// It fits too, but another one goes first (host, path, priority, pattern length, age).
    Outranked,
    /// Its expression does not hold.
    Vars,
    /// The client address is in none of its networks.
    RemoteAddr,
    /// The method is none of its methods.
    Method,
    /// The path fits none of its patterns.
    Path,
    /// The host fits none of its hosts.
    Host,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Taken => "takes the request",
            Why::Outranked => {
                "fits, but a route with a closer host, a closer path, a higher priority or an earlier creation goes first"
            }
            Why::Vars => "host, path, method and address fit, but `vars` does not hold",
            Why::RemoteAddr => "host, path and method fit, but the client address is not in `remote_addrs`",
            Why::Method => "host and path fit, but the method is not in `methods`",
            Why::Path => "the host fits, but the path fits none of `uris`",
            Why::Host => "the host fits none of `hosts`",
        })
    }
}

impl<T> RouteTable<T> {
    /// What becomes of each route for this request, the closest first, at most `limit` of them. Looks at every route.
    pub fn explain(&self, x: &Exchange, limit: usize) -> Vec<Verdict> {
        let taken = self.find(x).map(|found| found.route);
        let verdict = |route: &Arc<CompiledRoute<T>>| {
            let why = if taken.is_some_and(|taken| Arc::ptr_eq(taken, route)) { Why::Taken } else { route.why_not(x) };
            Verdict { route: route.info.clone(), why }
        };
        let mut verdicts: Vec<Verdict> = self.routes.iter().map(verdict).collect();
        verdicts.sort_by_key(|verdict| verdict.why);
        verdicts.truncate(limit);
        verdicts
    }
}

impl<T> CompiledRoute<T> {
    fn why_not(&self, x: &Exchange) -> Why {
        if !self.host_fits(x) {
            return Why::Host;
        }
        if !self.patterns.iter().any(|pattern| pattern.matches(&x.request.path)) {
            return Why::Path;
        }
        match self.refusal(x) {
            Some(Condition::Method) => Why::Method,
            Some(Condition::RemoteAddr) => Why::RemoteAddr,
            Some(Condition::Vars) => Why::Vars,
            None => Why::Outranked,
        }
    }
}
