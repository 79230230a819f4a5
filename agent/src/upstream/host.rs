//! One endpoint as one worker sees it: its idle connections, and how many there are. It speaks no protocol.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use heddle_xds::model::KeepalivePool;
use rustls::ClientConfig;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::EndpointCore;
use super::Shard;
use super::connect::TlsIdentity;
use super::h1::Conn;
use super::h2::{Sessions, Trust};
use crate::exchange::EndpointName;

/// One endpoint as one worker sees it.
pub(super) struct Host {
    pub(super) core: Arc<EndpointCore>,
    pub(super) name: Rc<EndpointName>,
    pub(super) shard: Arc<Shard>,
    pub(super) fallbacks: RefCell<Arc<[SocketAddr]>>,
    /// HTTP/1 connections at rest, the last used one at the end.
    #[expect(clippy::vec_box, reason = "a connection goes from pool to exchange and back by pointer")]
    idle: RefCell<Vec<Box<Conn>>>,
    /// HTTP/2 connections.
    pub(super) sessions: Sessions,
    pub(super) books: Rc<Books>,
}

/// How many connections an endpoint has. Apart from the host, so that a connection does not keep its own pool alive.
pub(super) struct Books {
    pub(super) connections: Cell<u32>,
    /// Requests that wait for a connection to become free.
    pub(super) waiting: Cell<u32>,
    pub(super) freed: Notify,
    shard: Arc<Shard>,
}

/// Counts one open connection while it lives.
pub(super) struct Slot(Rc<Books>);

impl Slot {
    pub(super) fn take(host: &Host) -> Slot {
        let books = &host.books;
        books.connections.set(books.connections.get() + 1);
        books.shard.connections.inc();
        books.shard.connects.inc();
        Slot(books.clone())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get().saturating_sub(1));
        self.0.shard.connections.dec();
        self.0.freed.notify_one();
    }
}

impl Host {
    pub(super) fn new(core: Arc<EndpointCore>, fallbacks: Arc<[SocketAddr]>) -> Rc<Host> {
        let shard = core.stats.shard();
        let books = Books { connections: Cell::new(0), waiting: Cell::new(0), freed: Notify::new(), shard: shard.clone() };
        let name = EndpointName::new(core.host.clone(), core.address);
        Rc::new(Host {
            core,
            name,
            shard,
            fallbacks: RefCell::new(fallbacks),
            idle: RefCell::default(),
            sessions: Sessions::default(),
            books: Rc::new(books),
        })
    }

    /// The connection that was used last and still stands, since it is the likeliest to be warm; dead ones are closed on the way.
    pub(super) fn take_idle(
        &self,
        tls: Option<&Arc<ClientConfig>>,
        name: Option<&str>,
        limits: &KeepalivePool,
        now: Instant,
    ) -> Option<Box<Conn>> {
        let mut idle = self.idle.borrow_mut();
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            if TlsIdentity::fits(idle[at].identity.as_ref(), tls, name) {
                let mut conn = idle.remove(at);
                if !conn.is_spent(limits, now) && !conn.is_overdue(now) && !conn.is_stale() {
                    return Some(conn);
                }
            }
        }
        None
    }

    /// Closes the connection that has rested longest, to make room for one with another TLS identity. False when none rests.
    pub(super) fn drop_idle(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        let oldest = (!idle.is_empty()).then(|| idle.remove(0));
        drop(idle);
        oldest.is_some()
    }

    /// Keeps a connection for the next request, unless it has served enough or there are enough.
    pub(super) fn put_idle(&self, mut conn: Box<Conn>, limits: &KeepalivePool, now: Instant) {
        if conn.is_spent(limits, now) || limits.size == 0 || self.core.is_retired() {
            return;
        }
        conn.rest(now);
        let mut idle = self.idle.borrow_mut();
        // the oldest makes room: it is the one that the server will close first
        let oldest = (idle.len() >= limits.size as usize).then(|| idle.remove(0));
        idle.push(conn);
        drop(idle);
        drop(oldest);
        self.books.freed.notify_one();
    }

    /// Closes what has rested too long or was closed by the peer; all of it once the endpoint is retired.
    pub(super) fn sweep(&self, limits: &KeepalivePool, trust: Option<&Trust>, now: Instant) {
        let retired = self.core.is_retired();
        let gone: Vec<Box<Conn>> = {
            let mut idle = self.idle.borrow_mut();
            idle.extract_if(.., |conn| {
                let late = conn.rested(now) >= limits.idle_timeout || conn.is_overdue(now);
                retired || late || conn.is_spent(limits, now) || conn.is_stale()
            })
            .collect()
        };
        drop(gone);
        self.sessions.sweep(limits, trust, retired, now);
    }

    /// Whether nothing is open any more.
    pub(super) fn is_unused(&self) -> bool {
        self.books.connections.get() == 0
    }
}
