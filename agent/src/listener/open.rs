//! The listeners of one worker: opened, changed, closed and drained as the configuration wants. It knows no protocol.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use heddle_node::drain::DrainWatch;
use heddle_xds::model::{Listener, ListenerProtocol};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::admission::Admission;
use super::connection::{self, Newcomer, Shared};
use super::counters::Count;
use super::mesh::{Entry, Wanted, inbound, outbound};
use super::site::{Drain, Site, Worker};
use super::socket::listen;
use crate::exchange::Service;

/// Pause after accepting failed for want of descriptors or memory: they come back when connections close, not by trying.
const PAUSE: Duration = Duration::from_millis(100);

/// The listeners of one worker.
pub struct Listeners<S> {
    worker: Rc<Worker<S>>,
    shared: Shared,
    drain_time: Duration,
    open: HashMap<Arc<str>, Open>,
    closing: Vec<JoinHandle<()>>,
}

/// A listener that could not be opened. Others are not touched, and an older one of the same name stays, unless it is in clear and the newer one is not.
#[derive(Debug, thiserror::Error)]
#[error("listener {name}: cannot listen on {address}: {error}")]
pub struct ListenFault {
    /// Name of the listener.
    pub name: Arc<str>,
    /// Address that was wanted.
    pub address: SocketAddr,
    /// What the system said.
    #[source]
    pub error: io::Error,
}

/// An open socket and the task that accepts on it.
struct Open {
    wanted: SocketAddr,
    site: Rc<RefCell<Rc<Site>>>,
    stop: Rc<Drain>,
    task: JoinHandle<()>,
}

impl<S: Service> Listeners<S> {
    /// None yet. Connections of a listener that is removed have `drain_time` to end.
    pub fn new(worker: Rc<Worker<S>>, shared: Shared, drain_time: Duration) -> Listeners<S> {
        Listeners { worker, shared, drain_time, open: HashMap::new(), closing: Vec::new() }
    }

    /// Opens what is wanted and not open, closes what is open and not wanted. A listener that has changed but for its address keeps its socket
    /// and its connections: those accepted from now on live under the new configuration. Must run in the worker's local task set.
    pub fn reconcile(&mut self, wanted: &[Wanted]) -> Vec<ListenFault> {
        self.closing.retain(|task| !task.is_finished());
        let gone: Vec<_> =
            self.open.keys().filter(|name| wanted.iter().all(|wanted| wanted.listener.name != **name)).cloned().collect();
        gone.iter().for_each(|name| self.close(name));
        let mut faults = Vec::new();
        for Wanted { listener, entry } in wanted {
            match self.open.get(&listener.name) {
                Some(open) if open.wanted == listener.address => {
                    let site = open.site.borrow().clone();
                    if site.listener != *listener || site.entry != *entry {
                        open.site.replace(Rc::new(Site::new(listener.clone(), entry.clone(), site.drain.clone())));
                    }
                }
                _ => {
                    if let Err(error) = self.open(listener, entry) {
                        self.close_if_clear(listener);
                        faults.push(ListenFault { name: listener.name.clone(), address: listener.address, error });
                    }
                }
            }
        }
        faults
    }

    fn open(&mut self, listener: &Arc<Listener>, entry: &Entry) -> io::Result<()> {
        let admission = &self.shared.admission;
        let socket = listen(admission.address(&listener.name, listener.address), entry.is_transparent())?;
        let bound = socket.local_addr()?;
        // Only now the old socket of that name goes: a name is never without one because its new address is taken.
        self.close(&listener.name);
        if listener.address.port() == 0 {
            self.shared.admission.note_address(&listener.name, bound);
        }
        let drain = Rc::<Drain>::default();
        let site = Rc::new(RefCell::new(Rc::new(Site::new(listener.clone(), entry.clone(), drain.clone()))));
        let stop = Rc::<Drain>::default();
        let door = Door {
            worker: self.worker.clone(),
            shared: self.shared.clone(),
            count: self.shared.admission.listener(&listener.name),
            site: site.clone(),
            tasks: JoinSet::new(),
        };
        let task = tokio::task::spawn_local(door.run(socket, stop.clone(), drain, self.drain_time));
        self.open.insert(listener.name.clone(), Open { wanted: listener.address, site, stop, task });
        Ok(())
    }

    fn close(&mut self, name: &Arc<str>) {
        if let Some(open) = self.open.remove(name) {
            open.stop.begin();
            self.closing.push(open.task);
        }
    }

    /// Who came in by the old one would get in clear what is for TLS now, and without what is demanded there.
    fn close_if_clear(&mut self, newer: &Listener) {
        let is_clear = |open: &Open| !ends_tls(&open.site.borrow().listener);
        if ends_tls(newer) && self.open.get(&newer.name).is_some_and(is_clear) {
            self.close(&newer.name);
        }
    }

    /// Whether callers of the application beside this node are let in.
    pub fn lets_callers_in(&self) -> bool {
        self.open.values().any(|open| matches!(open.site.borrow().entry, Entry::Inbound(_)))
    }

    /// Holds `watch` until the last connection of those that have been closed so far has ended.
    pub fn hold_while_closing(&mut self, watch: DrainWatch) {
        let closing = std::mem::take(&mut self.closing);
        self.closing.push(tokio::task::spawn_local(async move {
            for task in closing {
                // A task that panicked has nothing left to wait for.
                let _ = task.await;
            }
            drop(watch);
        }));
    }

    /// Closes all; ends when the last connection has, at the latest after the drain time.
    pub async fn drain(mut self) {
        let names: Vec<_> = self.open.keys().cloned().collect();
        names.iter().for_each(|name| self.close(name));
        for task in self.closing {
            // A task that panicked has nothing left to wait for.
            let _ = task.await;
        }
    }
}

/// Whether all that a listener does stands behind TLS of its own.
fn ends_tls(listener: &Listener) -> bool {
    match listener.protocol {
        ListenerProtocol::Http => false,
        ListenerProtocol::Https => true,
        ListenerProtocol::Tcp => !listener.tcp.is_empty() && listener.tcp.iter().all(|route| route.terminate),
    }
}

/// Accepts on one socket.
struct Door<S> {
    worker: Rc<Worker<S>>,
    shared: Shared,
    count: Arc<AtomicU32>,
    site: Rc<RefCell<Rc<Site>>>,
    tasks: JoinSet<()>,
}

impl<S: Service> Door<S> {
    async fn run(mut self, socket: TcpListener, stop: Rc<Drain>, drain: Rc<Drain>, drain_time: Duration) {
        let mut stopped = std::pin::pin!(stop.begins());
        while !stop.has_begun() {
            tokio::select! {
                () = stopped.as_mut() => break,
                accepted = socket.accept() => match accepted {
                    Ok((stream, peer)) => self.enter(stream, peer),
                    Err(error) => self.pause(&error).await,
                },
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => {}
            }
        }
        self.enter_waiting(socket);
        drain.begin();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        // What has not ended by then is cut.
        let _ = tokio::time::timeout(drain_time, ended).await;
        let name = self.site.borrow().listener.name.clone();
        self.shared.admission.forget(&name);
    }

    /// Who stands in the queue was promised a connection. The system is asked itself, since the runtime learns of newcomers only later.
    fn enter_waiting(&mut self, socket: TcpListener) {
        let Ok(socket) = socket.into_std() else { return };
        while let Ok((stream, peer)) = socket.accept() {
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                self.enter(stream, peer);
            }
        }
    }

    async fn pause(&self, error: &io::Error) {
        // The client went away while it waited: the next one is as good.
        let harmless = matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
        );
        if !harmless {
            self.worker.counters.add(Count::AcceptFailed);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Where somebody comes in now: under what the configuration says at this moment, whether or not this worker has been woken for it. Who was let in by a
    /// change once is not let in without it by the worker next door.
    fn site(&self) -> Rc<Site> {
        let site = self.site.borrow().clone();
        let newest = self.worker.service.listener(&site.listener.name).filter(|_| matches!(site.entry, Entry::Gateway));
        match newest {
            // At another address it has a socket of its own.
            Some(now) if !Arc::ptr_eq(&now, &site.listener) && now.address == site.listener.address => {
                let site = Rc::new(Site::new(now, Entry::Gateway, site.drain.clone()));
                self.site.replace(site.clone());
                site
            }
            _ => site,
        }
    }

    fn enter(&mut self, stream: TcpStream, peer: SocketAddr) {
        let site = self.site();
        let Some(seat) = Admission::seat(&self.count, site.limits().max_connections) else {
            self.worker.counters.add(Count::RefusedListener);
            return;
        };
        let (worker, shared) = (self.worker.clone(), self.shared.clone());
        let newcomer = Newcomer { stream, peer, site, seat };
        match newcomer.site.entry.clone() {
            Entry::Gateway => self.tasks.spawn_local(connection::serve(worker, shared, newcomer)),
            Entry::Inbound(door) => self.tasks.spawn_local(inbound::serve(worker, shared, newcomer, door)),
            Entry::Outbound(leads) => self.tasks.spawn_local(outbound::serve(worker, shared, newcomer, leads)),
        };
    }
}
