//! The tables as one worker sees them, with what it has derived from them for its requests. Nothing here is shared with another worker.

use std::cell::{OnceCell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use heddle_node::clock::Instant;
use heddle_xds::model::Timeouts;

use super::dispatch;
use super::worker::Worker;
use crate::exchange::{ConnectionInfo, ConsumerInfo, Directory, Dispatched, Inner, Reason, RouteInfo, Routed};
use crate::filters::Chain;
use crate::observe::RouteShard;
use crate::route::CompiledRoute;
use crate::tables::{Action, Tables};
use crate::upstream::Edition;

/// A route as one worker sees it.
///
/// With thousands of routes a request finds its route's memory cold, so all that most requests need is here, in one line of 64 bytes; the rest of the route
/// is followed only by requests that need it.
#[repr(align(64))]
pub struct Seen {
    /// The worker's own counters of the route.
    pub stats: Arc<RouteShard>,
    /// The route's upstream; `None` where it names none, or one that is not there.
    pub cluster: Option<Arc<Edition>>,
    /// The route.
    pub route: Arc<CompiledRoute<Action>>,
    /// Filters of global rules: without what the route does itself.
    global: Arc<Chain>,
    own: Arc<Chain>,
    id: ShortText,
    has: Has,
}

/// What a route has, so that nobody has to look for what it has not.
#[derive(Debug, Clone, Copy)]
struct Has(u8);

impl Has {
    const FILTERS: u8 = 1;
    const TIMEOUTS: u8 = 2;
    const SERVICE: u8 = 4;
    const END: u8 = 8;

    fn of(route: &CompiledRoute<Action>) -> Has {
        let filters = if route.target.chain.is_empty() { 0 } else { Has::FILTERS };
        let timeouts = route.target.timeouts.map_or(0, |_| Has::TIMEOUTS);
        let service = if route.info.service_id.is_empty() { 0 } else { Has::SERVICE };
        let end = route.target.max_duration.map_or(0, |_| Has::END);
        Has(filters | timeouts | service | end)
    }

    fn any(self, of: u8) -> bool {
        self.0 & of != 0
    }
}

/// A text that is short enough to be kept where it is needed; ids mostly are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ShortText {
    length: u8,
    bytes: [u8; ShortText::LONGEST],
}

impl ShortText {
    const LONGEST: usize = 22;
    /// The length of what is too long.
    const TOO_LONG: u8 = u8::MAX;

    fn new(text: &str) -> ShortText {
        let mut bytes = [0; ShortText::LONGEST];
        match bytes.get_mut(..text.len()) {
            Some(place) => place.copy_from_slice(text.as_bytes()),
            None => return ShortText { length: ShortText::TOO_LONG, bytes },
        }
        ShortText { length: text.len() as u8, bytes }
    }

    /// The text, `None` when it was too long.
    fn get(&self) -> Option<&[u8]> {
        self.bytes.get(..usize::from(self.length))
    }
}

impl Seen {
    /// Timeouts that the route sets over its upstream's.
    pub fn timeouts(&self) -> Option<Timeouts> {
        if self.has.any(Has::TIMEOUTS) { self.route.target.timeouts } else { None }
    }

    /// How long a whole exchange may take.
    pub fn max_duration(&self) -> Option<Duration> {
        if self.has.any(Has::END) { self.route.target.max_duration } else { None }
    }
}

impl Routed for Seen {
    fn id(&self) -> &[u8] {
        self.id.get().unwrap_or_else(|| self.info().id.as_bytes())
    }

    fn service_id(&self) -> &str {
        if self.has.any(Has::SERVICE) { &self.info().service_id } else { "" }
    }

    fn info(&self) -> &RouteInfo {
        &self.route.info
    }

    fn said(&self, path: &str) -> Option<usize> {
        self.route.said(path)
    }
}

/// What was made once and is kept under a key.
type Kept<K, V> = RefCell<HashMap<K, V, RandomState>>;

/// The tables as one worker sees them, with what it has derived from them.
#[derive(Default)]
pub struct View {
    /// The tables.
    pub tables: Arc<Tables>,
    /// A chain of no filters.
    nothing: Chain,
    hostname: Arc<str>,
    worker: usize,
    /// Runs the requests that filters make.
    home: Weak<Worker>,
    merged: Kept<(usize, Arc<str>), Arc<Chain>>,
    /// By number of the route in the tables, [`SHEET`] to a sheet.
    sheets: Box<[OnceCell<Sheet>]>,
    /// What comes in for the application beside this node.
    inbound: OnceCell<Seen>,
    /// Services that it calls, in the order of the tables.
    services: Box<[OnceCell<Seen>]>,
    /// Their numbers, with when they were last asked for.
    callees: Kept<Arc<str>, (u32, Instant)>,
}

/// The number under which the application beside this node is, as if there were a route to it.
pub const INBOUND: u32 = u32::MAX;

/// The numbers of services begin here.
const SERVICES: u32 = 1 << 31;
/// How long a service is called without asking for it again, so that it is known to be in use.
const FRESH: Duration = Duration::from_secs(600);

/// Neighbouring routes.
type Sheet = Box<[OnceCell<Seen>; SHEET]>;

/// Routes of a sheet. Sheets are made when one of their routes is first needed: after a change, not all at once.
const SHEET: usize = 16;

/// Chains of route and consumer that one view keeps; beyond them the cache starts afresh.
const MAX_KEPT: usize = 10_000;

impl View {
    /// A view of these tables for the worker of this number, on the host of this name.
    pub fn new(tables: Arc<Tables>, hostname: Arc<str>, worker: usize) -> View {
        let sheets = (0..tables.routes.len().div_ceil(SHEET)).map(|_| OnceCell::new()).collect();
        let services = tables.mesh.iter().map(|_| OnceCell::new()).collect();
        View { tables, hostname, worker, sheets, services, ..View::default() }
    }

    /// The same view, on a worker that runs the requests that filters make.
    #[must_use]
    pub fn at(self, home: Weak<Worker>) -> View {
        View { home, ..self }
    }

    /// The upstreams of this view and nothing else: what goes by it meets no filters.
    pub fn without_filters(&self) -> View {
        let tables = Tables { clusters: self.tables.clusters.clone(), ..Tables::default() };
        View { tables: Arc::new(tables), hostname: self.hostname.clone(), worker: self.worker, ..View::default() }
    }

    /// The chain of a route once this consumer is known; `None` when the consumer adds nothing.
    pub fn merged(&self, route: &Arc<CompiledRoute<Action>>, consumer: &ConsumerInfo) -> Option<Arc<Chain>> {
        let own = self.tables.consumers.chain(consumer)?;
        let key = (Arc::as_ptr(route) as usize, consumer.username.clone());
        let mut merged = self.merged.borrow_mut();
        if let Some(chain) = merged.get(&key) {
            return Some(chain.clone());
        }
        if merged.len() >= MAX_KEPT {
            merged.clear();
        }
        // Keys may be addresses, because the view keeps the tables that the routes live in.
        Some(merged.entry(key).or_insert(Arc::new(route.target.chain.with_consumer(own))).clone())
    }

    /// The route of this number as this worker sees it; `None` beyond the last one.
    pub fn seen(&self, number: u32) -> Option<&Seen> {
        let number = number as usize;
        let Some(route) = self.tables.routes.routes().get(number) else { return self.apart(number) };
        let sheet = self.sheets.get(number / SHEET)?.get_or_init(|| Box::new([const { OnceCell::new() }; SHEET]));
        Some(sheet[number % SHEET].get_or_init(|| self.see(route)))
    }

    /// What has a number and is no route: no global rule is meant for it.
    #[cold]
    fn apart(&self, number: usize) -> Option<&Seen> {
        if let Some(cell) = number.checked_sub(SERVICES as usize).and_then(|at| self.services.get(at)) {
            let service = self.tables.mesh.values().nth(number - SERVICES as usize)?;
            let has = Has(Has::of(&service.route).0 | Has::FILTERS);
            return Some(cell.get_or_init(|| Seen { global: Arc::default(), has, ..self.see(&service.route) }));
        }
        let route = &self.tables.application.as_ref().filter(|_| number == INBOUND as usize)?.route;
        let see = || Seen { global: Arc::default(), has: Has(Has::FILTERS), ..self.see(route) };
        Some(self.inbound.get_or_init(see))
    }

    /// The number of a service that has been called a short while ago.
    pub fn callee(&self, name: &str, now: Instant) -> Option<u32> {
        let callees = self.callees.borrow();
        let (number, asked) = callees.get(name)?;
        (now.saturating_duration_since(*asked) < FRESH).then_some(*number)
    }

    /// The number of a service that has just been asked for.
    pub fn note_callee(&self, name: &str, now: Instant) -> Option<u32> {
        let (at, known) = self.tables.mesh.keys().enumerate().find(|(_, known)| &***known == name)?;
        let number = SERVICES + u32::try_from(at).ok()?;
        self.callees.borrow_mut().insert(known.clone(), (number, now));
        Some(number)
    }

    fn see(&self, route: &Arc<CompiledRoute<Action>>) -> Seen {
        let action = &route.target;
        let own = action.chain.clone();
        let global = if own.is_empty() { self.tables.global.clone() } else { self.tables.global.yielding_to(&own) };
        Seen {
            stats: action.stats.own(self.worker).clone(),
            cluster: action.upstream.as_ref().and_then(|name| self.tables.clusters.get(name)).cloned(),
            route: route.clone(),
            global,
            own,
            id: ShortText::new(&route.info.id),
            has: Has::of(route),
        }
    }

    /// The filters of requests to a route, or to none, in the order in which they run.
    pub fn chains<'a>(&'a self, route: Option<&'a Seen>) -> [&'a Chain; 2] {
        match route.filter(|seen| seen.has.any(Has::FILTERS)) {
            None => [&self.tables.global, &self.nothing],
            Some(seen) => [&seen.global, &seen.own],
        }
    }
}

impl Directory for View {
    fn find_credential(&self, plugin: &str, value: &[u8]) -> Option<Arc<ConsumerInfo>> {
        self.tables.consumers.find_credential(plugin, value)
    }

    fn consumer(&self, username: &str) -> Option<Arc<ConsumerInfo>> {
        self.tables.consumers.consumer(username)
    }

    fn hostname(&self) -> &str {
        &self.hostname
    }

    fn dispatch(&self, connection: Rc<ConnectionInfo>, inner: Inner) -> Dispatched {
        match self.home.upgrade() {
            Some(worker) => dispatch::dispatch(worker, connection, inner),
            None => Box::pin(std::future::ready(Err(Reason::Shedding))),
        }
    }

    fn route(&self, number: u32) -> Option<&dyn Routed> {
        self.seen(number).map(|seen| seen as &dyn Routed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_needs_of_its_route_fits_in_one_line() {
        assert_eq!(size_of::<OnceCell<Seen>>(), 64);
    }

    #[test]
    fn short_texts_are_kept_whole_or_not_at_all() {
        for text in ["", "r1", "1234567890123456789012"] {
            assert_eq!(ShortText::new(text).get(), Some(text.as_bytes()));
        }
        assert_eq!(ShortText::new("12345678901234567890123").get(), None);
        assert_eq!(ShortText::new(&"x".repeat(300)).get(), None);
    }
}
