//! What counting instructions and fuzzing need of the rooms inside: compiled with the feature `bench` alone, for `integration/bench/instructions` and
//! `integration/fuzz`. Nothing of Heddle uses it.

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use heddle_node::identity::Identity;
use heddle_xds::codec::InvalidResource;
use heddle_xds::model::{Listener, Resource};
use tokio::sync::watch;

pub use crate::balance::{Epoch, Node, Policy, Standing, View as NodeView, Worker as Picker, Zones, hash_key};
pub use crate::filters::canonical;
use crate::http::Body;
pub use crate::http::digits::AddressText;
pub use crate::http::h1::{
    BodyLength, HeadLimits, ParsedRequest, ParsedResponse, Persistence, RequestKind, RequestParser, ResponseParser, WireLength,
    write_request_head, write_response_head,
};
pub use crate::http::h2::hpack::{Class, Decoder, Encoder};
pub use crate::http::h2::message;
pub use crate::http::{Name, RequestHead, ResponseHead};
pub use crate::tables::Tables;

use crate::exchange::{Answer, Directory, Exchange};
use crate::listener::{self, Listeners, Wanted};
use crate::observe::access_log::{AccessLog, Sink};
use crate::observe::{RouteStats, Sharded};
use crate::outbound::Outbound;
use crate::pipeline::{Forwarded, Pipeline, Plan, Shared, View, Worker, set_forwarded, strip_hop_by_hop};
use crate::secrets::References;
use crate::tables::Compiler;
use crate::upstream::{Clusters, Context, Pools};

/// Dice fall the same in every run.
const SEED: u64 = 7;

/// The tables of these resources, for one worker. Needs a runtime.
///
/// # Errors
/// A resource cannot be used.
pub fn tables(resources: impl IntoIterator<Item = Resource>) -> Result<Arc<Tables>, InvalidResource> {
    let pool = Clusters::new(Arc::new(Context::default()), None, tokio::runtime::Handle::current());
    let mut compiler =
        Compiler::new(1, pool, Outbound::default(), References::new(Arc::new(|_: &str| None), "".into(), Outbound::default()));
    for resource in resources {
        compiler.set(resource)?;
    }
    Ok(compiler.tables())
}

/// What every proxied request gets from an untrusted peer: hop-by-hop fields off, `X-Forwarded-*` on.
pub fn rewrite_fields(head: &mut RequestHead, peer: &AddressText) {
    strip_hop_by_hop(&mut head.fields);
    set_forwarded(head, &Forwarded { scheme: "https", peer, client: None, local_port: 443, trusted: false, as_envoy: false });
}

/// The filters of the first route of some tables, as the pipeline runs them.
pub struct Filters {
    view: Rc<View>,
}

impl Filters {
    /// The filters of these tables.
    pub fn of(tables: Arc<Tables>) -> Filters {
        Filters { view: Rc::new(View::new(tables, "bench".into(), 0)) }
    }

    /// Who may be found by requests.
    pub fn directory(&self) -> Rc<dyn Directory> {
        self.view.clone()
    }

    /// Runs all phases but those of bodies; an answer of a filter ends it.
    pub async fn run(&self, x: &mut Exchange, head: &mut ResponseHead) -> Option<Box<Answer>> {
        let mut plan = Plan::new(self.view.clone());
        plan.take_route(0);
        if let Some(answer) = plan.rewrite(x).await {
            return Some(answer);
        }
        if let Some(answer) = plan.access(x).await {
            return Some(answer);
        }
        let edits = plan.request_body(x);
        if let Some(answer) = plan.before_proxy(x).await {
            return Some(answer);
        }
        let mut body = Body::Empty;
        if plan.acts_after_proxy()
            && let Some(answer) = plan.after_proxy(x, head, &mut body).await
        {
            return Some(answer);
        }
        plan.response_head(x, head);
        drop((edits, plan.response_body(x, head)));
        if plan.encodes() {
            drop(plan.encode(x, head, body));
        }
        plan.redact(x);
        plan.log(x);
        None
    }
}

/// One worker that listens, as `app` makes them.
pub struct Gateway {
    /// Where its first listener accepts.
    pub address: SocketAddr,
    _listeners: Listeners<Pipeline>,
    /// Where changes would appear, for which each request looks.
    _publisher: watch::Sender<Arc<Tables>>,
}

impl Gateway {
    /// Opens the listeners of these tables; access log lines go to `log`. Must run in a local task set.
    ///
    /// # Errors
    /// The log or a listener cannot be opened, or there is no listener.
    pub fn open(tables: Arc<Tables>, log: &Path) -> std::io::Result<Gateway> {
        let log = Arc::new(AccessLog::open(&Sink::File(log.to_owned()), None)?);
        let shared = Shared {
            counters: Sharded::new(1),
            unmatched: Arc::new(RouteStats::new(1)),
            details: Sharded::new(1),
            hostname: "bench".into(),
            identity: Identity::new(),
        };
        let worker = Worker::new(0, Pools::new(), Arc::new(shared), fastrand::Rng::with_seed(SEED), Some(log.batch()), None);
        let (publisher, newest) = watch::channel(tables.clone());
        worker.follow(newest);
        let door = listener::Worker::new(Pipeline::new(worker), Arc::default());
        let doors = listener::Shared::default();
        let mut listeners = Listeners::new(Rc::new(door), doors.clone(), Duration::from_secs(1));
        let wanted: Vec<Arc<Listener>> = tables.listeners.values().cloned().collect();
        let all: Vec<Wanted> = wanted.iter().cloned().map(Wanted::gateway).collect();
        if let Some(fault) = listeners.reconcile(&all).into_iter().next() {
            return Err(fault.error);
        }
        let first = wanted.first().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
        let address = doors.admission.address(&first.name, first.address);
        Ok(Gateway { address, _listeners: listeners, _publisher: publisher })
    }
}
