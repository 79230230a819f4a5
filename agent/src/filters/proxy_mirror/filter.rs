//! The filter of `proxy-mirror`.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use heddle_xds::catalog::ConfigFault;
use serde_json::Value;
use smallvec::SmallVec;

use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::{Config, PathMode};
use super::copy::{Copy, Counts, Errand, MAX_ANSWER, Named, Target};
use crate::exchange::Exchange;
use crate::http::{Method, Name};
use crate::outbound::{Call, RemoteOptions};

struct Mirror {
    target: Target,
    path: Option<(String, PathMode)>,
    /// Stands behind the name of the host.
    suffix: String,
    /// Below 1.
    ratio: Option<f64>,
    wants_body: bool,
    limit: u64,
    /// Most bytes of bodies that are gathered at once.
    room: u64,
    counts: Arc<Counts>,
}

/// Copies of one request, by the address of their filter: a global rule may mirror to another place than the route.
pub(super) type Copies = SmallVec<[(usize, Rc<Copy>); 1]>;
const COPIES: &str = "proxy-mirror";

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let target = target(&config, context)?;
    let key = format!("proxy-mirror/{}/{target:?}", context.origin());
    Ok(Arc::new(Mirror {
        target,
        path: config.path.map(|path| (path, config.path_concat_mode)),
        suffix: config.host_suffix,
        ratio: (config.sample_ratio < 1.0).then_some(config.sample_ratio),
        wants_body: config.mirror_body,
        limit: config.max_body_size,
        room: config.max_body_size.saturating_mul(config.max_in_flight as u64),
        counts: context.keep.get_or(&key, Counts::default),
    }))
}

/// Where copies go.
fn target(config: &Config, context: &BuildContext<'_>) -> Result<Target, Vec<ConfigFault>> {
    let timeout = Duration::try_from_secs_f64(config.timeout).unwrap_or_default();
    let name = match (&config.host, &config.upstream_id) {
        (Some(host), _) => {
            let options = RemoteOptions {
                timeout,
                verify: config.ssl_verify,
                keepalive_pool: config.max_in_flight,
                max_body: MAX_ANSWER,
                max_in_flight: config.max_in_flight,
                ..RemoteOptions::default()
            };
            let remote = context.outbound.remote(host, &options);
            return remote.map(Target::Server).map_err(|why| vec![check::fault_at("host", why)]);
        }
        (None, Some(Value::String(name))) => name.as_str().into(),
        (None, Some(other)) => other.to_string().into(),
        (None, None) => {
            let why = "an upstream written in place must be named by the control plane".to_owned();
            return Err(vec![check::fault_at("upstream", why)]);
        }
    };
    Ok(Target::Upstream(Arc::new(Named { name, timeout, most: config.max_in_flight })))
}

impl Mirror {
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn own(&self, x: &Exchange) -> Option<Rc<Copy>> {
        let copies = x.slot::<Copies>(COPIES)?;
        copies.iter().find(|(owner, _)| *owner == self.address()).map(|(_, copy)| copy.clone())
    }

    /// The copy without its body.
    fn errand(&self, x: &Exchange) -> Errand {
        let (target, host) = (self.path_and_query(x), self.host(x));
        if let Target::Server(_) = self.target {
            let mut fields = x.request.fields.clone();
            fields.set_known(Name::Host, &*host);
            return Errand::Call(Call { method: x.request.method.clone(), target, fields, ..Call::default() });
        }
        let mut head = x.request.clone();
        head.authority = host.into_owned();
        let (path, query) = target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
        (head.path, head.query) = (path.to_owned(), query.map(str::to_owned));
        // How long the body is follows from the copy of it.
        head.fields.remove_known(Name::ContentLength);
        Errand::Inner { directory: x.directory.clone(), connection: x.connection.clone(), head }
    }

    /// The host that the copy names.
    fn host<'x>(&self, x: &'x Exchange) -> Cow<'x, str> {
        let host = x.host_override.as_deref().unwrap_or(&x.request.authority);
        if self.suffix.is_empty() {
            return Cow::Borrowed(host);
        }
        // The port stays where it is; the colons of an address in brackets are none of a port.
        let behind = host.rfind(']').map_or(0, |end| end + 1);
        let end = host[behind..].find(':').map_or(host.len(), |at| behind + at);
        Cow::Owned([&host[..end], &self.suffix, &host[end..]].concat())
    }

    /// Path and query of the copy.
    fn path_and_query(&self, x: &Exchange) -> String {
        let (path, mode) = match &self.path {
            None => return x.request.target(),
            Some((path, mode)) => (path.as_str(), *mode),
        };
        let own = if mode == PathMode::Prefix { x.request.path.as_str() } else { "" };
        // a prefix may end with the slash that the path begins with
        let path = if own.is_empty() { path } else { path.trim_end_matches('/') };
        match &x.request.query {
            Some(query) => format!("{path}{own}?{query}"),
            None => format!("{path}{own}"),
        }
    }
}

impl Filter for Mirror {
    fn phases(&self) -> Phases {
        Phases::ACCESS.and(Phases::BEFORE_PROXY)
    }

    /// The body is looked at from here on; whether the request goes upstream at all is not known yet.
    fn access(&self, x: &mut Exchange) -> Flow {
        let tunnel = x.request.method == Method::Connect || x.request.fields.contains_known(Name::Upgrade);
        if tunnel || self.ratio.is_some_and(|ratio| x.dice.f64() >= ratio) {
            return Flow::Continue;
        }
        let copy = Copy::of(&mut x.body, self.wants_body, self.limit, self.room, self.target.clone(), self.counts.clone());
        match x.slot_mut::<Copies>(COPIES) {
            Some(copies) => copies.push((self.address(), copy)),
            None => x.put(COPIES, Copies::from_iter([(self.address(), copy)])),
        }
        Flow::Continue
    }

    /// The head is copied as it goes to the first endpoint; further tries are none of the mirror's business.
    fn before_proxy(&self, x: &mut Exchange) -> Flow {
        if let Some(copy) = self.own(x).filter(|copy| !copy.has_head()) {
            copy.head(self.errand(x));
        }
        Flow::Continue
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        let all =
            [("sent", &counts.sent), ("failed", &counts.failed), ("dropped", &counts.dropped), ("too_large", &counts.too_large)];
        all.into_iter().map(|(event, counter)| (event, read(counter))).collect()
    }
}
