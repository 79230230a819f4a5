//! One request and what becomes of it: what filters, balancing and logs see. It knows no tables and no sockets.

pub mod client;
mod connection;
mod consumer;
pub mod content;
mod dispatch;
pub mod expr;
pub mod imagined;
mod outcome;
pub mod path;
pub mod pattern;
pub mod ranges;
mod service;
mod steering;
pub mod template;
#[cfg(test)]
pub(crate) mod testing;
pub mod variable;

use std::any::Any;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heddle_node::telemetry::RequestTrace;
use smallvec::SmallVec;
use tokio::time::Instant;
use xxhash_rust::xxh64::xxh64;

use crate::http::digits::AddressText;
use crate::http::{Body, Method, Name, RequestHead, ResponseHead};

pub use connection::{ClientCertificate, ConnectionInfo, Destination, Door, TlsInfo};
pub use consumer::{ConsumerInfo, Proof};
pub use dispatch::{Dispatched, Inner};
pub use expr::Expr;
pub use outcome::{Answer, Reason};
pub use service::{Call, Ending, Interim, InterimQueue, Reading, Response, Sent, Service, Tunnel};
pub use steering::{Budget, Failover, GrpcStatuses, Repeat, Retry, Statuses, Steering};
pub use template::Template;
pub use variable::Variable;

/// One request on its way. It lives on one worker and dies there.
pub struct Exchange {
    /// The connection it came on.
    pub connection: Rc<ConnectionInfo>,
    /// Client address as policies see it: the peer, or what a trusted proxy said.
    pub remote: SocketAddr,
    /// Whether the peer is a proxy of ours, whose word about clients counts.
    pub trusted: bool,
    /// The request as it will go upstream; filters edit it.
    pub request: Box<RequestHead>,
    /// Its body, until it goes upstream; filters may replace it before that, and its framing follows.
    pub body: Body,
    /// Method, path and query as matched, before filters edited them.
    pub original: OriginalTarget,
    /// Whether it is a call of gRPC, before filters made one of it or of one something else: refusals are told in its words.
    pub calls_grpc: bool,
    /// When its first byte was read.
    pub started: Instant,
    /// The same in Unix milliseconds.
    pub started_ms: u64,
    /// Number of the route that matched, for the directory.
    pub route: Option<u32>,
    /// Captures of the path pattern.
    pub params: SmallVec<[(Arc<str>, String); 2]>,
    /// Who authentication found.
    pub consumer: Option<Arc<ConsumerInfo>>,
    /// Set by filters: upstream to use instead of the route's (`traffic-split`).
    pub upstream_override: Option<Arc<str>>,
    /// Set by filters: host to send upstream instead of what `pass_host` says.
    pub host_override: Option<String>,
    /// Set by filters: what they ask of the way to an endpoint.
    pub steering: Option<Box<Steering>>,
    /// What each try met, in order.
    pub attempts: SmallVec<[Attempt; 1]>,
    /// Bytes and status of the answer, as they become known.
    pub answer: AnswerRecord,
    /// Dice of this request.
    pub dice: fastrand::Rng,
    /// Consumers and plugin metadata of the tables that this request runs on.
    pub directory: Rc<dyn Directory>,
    /// How detailed the metrics of this request are; set by the `prometheus` filter.
    pub metrics: MetricLabels,
    /// W3C trace context, `None` while nothing asks for one.
    pub trace: Option<Box<RequestTrace>>,
    slots: SmallVec<[(&'static str, Box<dyn Any>); 2]>,
    notes: SmallVec<[Note; 1]>,
}

/// Numbers that a filter keeps; they lie in the exchange itself.
struct Note {
    /// Address of the filter.
    owner: usize,
    numbers: [u64; 4],
}

/// How detailed the metrics of a request are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MetricLabels {
    /// Totals only.
    #[default]
    Totals,
    /// By the ids of route, service and consumer.
    Ids,
    /// By their names, where they have some.
    Names,
}

/// Method, path and query as matched.
#[derive(Debug, Clone, Default)]
pub struct OriginalTarget {
    /// Method.
    pub method: Method,
    /// Normalised path.
    pub path: String,
    /// Query without `?`.
    pub query: Option<String>,
}

/// A route as requests see it. With thousands of routes each request finds its route's memory cold, so that what is asked of
/// every request is told apart from the rest.
pub trait Routed {
    /// Bytes of the id; asked for by every request.
    fn id(&self) -> &[u8];
    /// Service id, may be empty; asked for by every request.
    fn service_id(&self) -> &str;
    /// Everything.
    fn info(&self) -> &RouteInfo;
    /// How many segments of a path its pattern says before it takes anything; the most of those that fit, `None` where it takes nothing but what it says.
    fn said(&self, _path: &str) -> Option<usize> {
        Some(0)
    }
}

/// Identity of a route for variables, logs and metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteInfo {
    /// Route id.
    pub id: Arc<str>,
    /// Service id, may be empty.
    pub service_id: Arc<str>,
    /// Route name, may be empty.
    pub name: Arc<str>,
    /// Service name, may be empty.
    pub service: Arc<str>,
    /// The path pattern of the route that has matched; filled for logs by the first pattern.
    pub uri: Arc<str>,
}

/// Which endpoint, for people.
#[derive(Debug)]
pub struct EndpointName {
    /// Its address.
    pub address: SocketAddr,
    /// The same as text.
    pub text: AddressText,
    /// Name of the node as configured.
    pub host: Arc<str>,
    /// Stands for it where it must not be named: the same on every agent, another one for another endpoint.
    pub token: u64,
}

impl EndpointName {
    /// The endpoint of this configured name at this address.
    pub fn new(host: Arc<str>, address: SocketAddr) -> Rc<EndpointName> {
        let text = AddressText::of(address);
        let token = xxh64(text.whole(), xxh64(host.as_bytes(), 0));
        Rc::new(EndpointName { address, text, host, token })
    }
}

/// One try against one endpoint.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The endpoint.
    pub endpoint: Rc<EndpointName>,
    /// Status, `None` when it failed before one.
    pub status: Option<u16>,
    /// What it is judged by, see [`ResponseHead::outcome`]: another one than the status where a refusal is told in the words of gRPC.
    pub outcome: Option<u16>,
    /// Connecting, zero when a pooled connection was used.
    pub connect: Duration,
    /// Until the response head.
    pub header: Option<Duration>,
    /// Until the end of the response.
    pub total: Option<Duration>,
    /// Why it failed.
    pub failure: Option<Reason>,
    /// Whether its connection failed, see [`crate::upstream::UpstreamError`].
    pub broke: bool,
}

/// What is known of the answer, for logs and metrics.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnswerRecord {
    /// Status sent to the client, 0 before one, 499 when the client went away first.
    pub status: u16,
    /// Body bytes sent to the client.
    pub bytes_sent: u64,
    /// Body bytes received from the client.
    pub bytes_received: u64,
    /// Why we answered ourselves, or why the exchange ended badly.
    pub reason: Reason,
    /// From the first byte read to the last byte written, zero before that.
    pub took: Duration,
}

/// What filters may look up in the tables that the request runs on.
pub trait Directory {
    /// The consumer and credential configuration with this value in the unique field of an authentication plugin
    /// (`key` of `key-auth`). Constant time in the value.
    fn find_credential(&self, plugin: &str, value: &[u8]) -> Option<Arc<ConsumerInfo>>;
    /// The consumer of this name (anonymous consumers).
    fn consumer(&self, username: &str) -> Option<Arc<ConsumerInfo>>;
    /// Name of this host, for the variable `hostname`.
    fn hostname(&self) -> &str {
        ""
    }
    /// Runs a request that a filter makes; see [`Exchange::dispatch`].
    fn dispatch(&self, _connection: Rc<ConnectionInfo>, _inner: Inner) -> Dispatched {
        Box::pin(std::future::ready(Err(Reason::NotImplemented)))
    }
    /// The route of this number.
    fn route(&self, _number: u32) -> Option<&dyn Routed> {
        None
    }
}

impl Exchange {
    /// A request that has just been read.
    #[inline]
    pub fn new(
        connection: Rc<ConnectionInfo>,
        request: Box<RequestHead>,
        started: Instant,
        started_ms: u64,
        directory: Rc<dyn Directory>,
        dice: fastrand::Rng,
    ) -> Exchange {
        Exchange {
            remote: connection.peer,
            trusted: false,
            connection,
            calls_grpc: request.calls_grpc(),
            request,
            body: Body::Empty,
            original: OriginalTarget::default(),
            started,
            started_ms,
            route: None,
            params: SmallVec::new(),
            consumer: None,
            upstream_override: None,
            host_override: None,
            steering: None,
            attempts: SmallVec::new(),
            answer: AnswerRecord::default(),
            dice,
            directory,
            metrics: MetricLabels::default(),
            trace: None,
            slots: SmallVec::new(),
            notes: SmallVec::new(),
        }
    }

    /// The route that matched.
    pub fn routed(&self) -> Option<&dyn Routed> {
        self.directory.route(self.route?)
    }

    /// `http` or `https`, as the client spoke to us.
    pub fn scheme(&self) -> &'static str {
        if self.connection.tls.is_some() { "https" } else { "http" }
    }

    /// `http` or `https`, as the client spoke to the first of the proxies before us that are trusted, or else to us.
    pub fn forwarded_proto(&self) -> &'static str {
        let said = if self.trusted { self.request.fields.get_known(Name::XForwardedProto) } else { None };
        let Some(said) = said else { return self.scheme() };
        // Schemes are case-insensitive (RFC 3986 section 3.1).
        let is = |schemes: [&str; 2]| schemes.iter().any(|scheme| said.eq_ignore_ascii_case(scheme.as_bytes()));
        match (is(["https", "wss"]), is(["http", "ws"])) {
            (true, _) => "https",
            (_, true) => "http",
            _ => self.scheme(),
        }
    }

    /// What is asked of the way to an endpoint, to ask for more.
    pub fn steer(&mut self) -> &mut Steering {
        self.steering.get_or_insert_default()
    }

    /// Keeps a value of a filter until the end of the request; the key is the filter's name.
    pub fn put<T: Any>(&mut self, filter: &'static str, value: T) {
        self.slots.retain(|(name, old)| *name != filter || !old.is::<T>());
        self.slots.push((filter, Box::new(value)));
    }

    /// The value that a filter kept.
    pub fn slot<T: Any>(&self, filter: &'static str) -> Option<&T> {
        self.slots.iter().filter(|(name, _)| *name == filter).find_map(|(_, value)| value.downcast_ref())
    }

    /// The value that a filter kept, to change it.
    pub fn slot_mut<T: Any>(&mut self, filter: &'static str) -> Option<&mut T> {
        self.slots.iter_mut().filter(|(name, _)| *name == filter).find_map(|(_, value)| value.downcast_mut())
    }

    /// Keeps numbers of a filter until the end of the request, which costs less than a value of any type; `owner` is the filter's address.
    pub fn note(&mut self, owner: usize, numbers: [u64; 4]) {
        self.notes.push(Note { owner, numbers });
    }

    /// The numbers that a filter kept, in order.
    pub fn notes(&self, owner: usize) -> impl Iterator<Item = [u64; 4]> {
        self.notes.iter().filter(move |note| note.owner == owner).map(|note| note.numbers)
    }

    /// Reads the request body whole, at most `limit` bytes; it stays in the exchange. Trailers are dropped.
    ///
    /// # Errors
    /// Why the request ends.
    pub async fn read_body(&mut self, limit: u64) -> Result<Bytes, Reason> {
        if self.body.remaining().is_some_and(|bytes| bytes > limit) {
            return Err(Reason::BodyTooLarge);
        }
        let bytes = std::mem::take(&mut self.body).collect(limit).await.map_err(|error| Reason::of_request_body(&error))?;
        self.body = Body::from(bytes.clone());
        Ok(bytes)
    }

    /// Writes down what the client will get.
    pub fn record(&mut self, head: &ResponseHead) {
        self.answer.status = head.status;
    }
}
