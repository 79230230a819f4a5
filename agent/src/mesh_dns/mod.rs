//! Names of services for the application beside this node: a small DNS server that answers `<service>.<namespace>.mesh` itself, and the names that Kubernetes has
//! for services where they are of the mesh, and hands everything else to the name servers of the host. It knows neither requests nor connections of the mesh.

mod forward;
mod question;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock::{self, Instant};
use heddle_node::identity::Identity;
use heddle_xds::client::{Demand, Standing};
use heddle_xds::model::Kind;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep_until, timeout};

use crate::tables::Tables;
use question::{Found, Plan, Question};

/// Questions under way at once; more are not answered, and asked again by who wants to know.
const MAX_QUESTIONS: usize = 1_024;
/// Connections at once.
const MAX_CONNECTIONS: usize = 64;
/// A connection on which nobody asks is closed after this long.
const IDLE: Duration = Duration::from_secs(10);
/// How long a first question waits for the control plane: less than resolvers wait before they ask again.
const WAIT: Duration = Duration::from_secs(2);
/// What names of Kubernetes end in where nothing else is said: that is the default there, too.
const CLUSTER_DOMAIN: &str = "cluster.local";
/// Longest question over UDP: larger ones are none that resolvers ask.
const MAX_QUESTION: usize = 4_096;

/// Whom the application may ask for.
#[derive(Clone)]
pub struct Names {
    /// Asks for services by name.
    pub demand: Demand,
    /// What is known of them.
    pub tables: watch::Receiver<Arc<Tables>>,
    /// The namespace of names that name none.
    pub namespace: Arc<str>,
    /// What is answered of names of Kubernetes; `None` where they are left to others.
    pub kubernetes: Option<Kubernetes>,
    /// Name servers for everything else.
    pub servers: Arc<[SocketAddr]>,
}

/// What is known of the names of Kubernetes.
#[derive(Clone)]
pub struct Kubernetes {
    /// What they end in: `cluster.local`.
    pub domain: Arc<str>,
    /// Services that are never looked for in the mesh, as they must be found before it is: those of control planes.
    pub spared: Arc<[Arc<str>]>,
    /// Who this node is: these names mean services of its own trust domain.
    pub identity: Identity,
}

/// A DNS server whose sockets are open.
pub struct Server {
    names: Names,
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    /// Whether only this host can reach it, by the address that it listens on.
    is_private: bool,
    questions: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

/// The name servers of the host, but for `own`, which would only ask themselves.
pub fn servers_of_host(own: SocketAddr) -> Arc<[SocketAddr]> {
    let found = hickory_resolver::system_conf::read_system_conf();
    let config = match found {
        Ok((config, _)) => config,
        Err(error) => {
            tracing::warn!(%error, "names outside of the mesh cannot be looked up; set agent.resolvers");
            return Arc::default();
        }
    };
    let mut servers: Vec<SocketAddr> = Vec::new();
    for server in &config.name_servers {
        let port = server.connections.first().map_or(53, |connection| connection.port);
        let address = SocketAddr::new(server.ip, port);
        if address != own && !servers.contains(&address) {
            servers.push(address);
        }
    }
    servers.into()
}

/// What names of Kubernetes end in, by the domains in which the host looks for names, as those of pods have `svc.cluster.local`.
pub fn cluster_domain_of_host() -> String {
    let search = hickory_resolver::system_conf::read_system_conf().map(|(config, _)| config.search).unwrap_or_default();
    search.iter().find_map(|domain| cluster_domain(&domain.to_ascii())).unwrap_or_else(|| CLUSTER_DOMAIN.to_owned())
}

fn cluster_domain(search: &str) -> Option<String> {
    let domain = search.strip_suffix('.').unwrap_or(search).to_ascii_lowercase();
    domain.strip_prefix("svc.").filter(|domain| !domain.is_empty()).map(str::to_owned)
}

impl Server {
    /// Opens both sockets, on the same port.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub async fn open(address: SocketAddr, names: Names) -> io::Result<Server> {
        let udp = UdpSocket::bind(address).await?;
        let tcp = TcpListener::bind(udp.local_addr()?).await?;
        Ok(Server {
            names,
            udp: Arc::new(udp),
            tcp,
            is_private: address.ip().to_canonical().is_loopback(),
            questions: Arc::new(Semaphore::new(MAX_QUESTIONS)),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Never while it is open.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Answers for ever.
    pub async fn run(self) {
        let mut packet = vec![0; MAX_QUESTION];
        loop {
            tokio::select! {
                received = self.udp.recv_from(&mut packet) => {
                    // An error belongs to an earlier answer that nobody took.
                    let Ok((read, peer)) = received else { continue };
                    self.take(&packet[..read], peer);
                }
                accepted = self.tcp.accept() => {
                    let Ok((stream, peer)) = accepted else {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    };
                    self.enter(stream, peer);
                }
            }
        }
    }

    /// Strangers get nothing: an answer is longer than its question, and could be sent to whom they name.
    fn serves(&self, peer: IpAddr) -> bool {
        self.is_private || peer.to_canonical().is_loopback()
    }

    fn take(&self, packet: &[u8], peer: SocketAddr) {
        let Some(permit) = self.questions.clone().try_acquire_owned().ok().filter(|_| self.serves(peer.ip())) else { return };
        let (names, socket, packet) = (self.names.clone(), self.udp.clone(), packet.to_vec());
        tokio::spawn(async move {
            if let Some(answer) = names.answer(&packet, false).await {
                // Whoever has gone asks no more.
                let _ = socket.send_to(&answer, peer).await;
            }
            drop(permit);
        });
    }

    fn enter(&self, mut stream: TcpStream, peer: SocketAddr) {
        let Some(permit) = self.connections.clone().try_acquire_owned().ok().filter(|_| self.serves(peer.ip())) else { return };
        let names = self.names.clone();
        tokio::spawn(async move {
            while let Ok(Ok(packet)) = timeout(IDLE, forward::read(&mut stream)).await {
                let Some(answer) = names.answer(&packet, true).await else { break };
                if !matches!(timeout(IDLE, forward::write(&mut stream, &answer)).await, Ok(Ok(()))) {
                    break;
                }
            }
            drop(permit);
        });
    }
}

impl Names {
    async fn answer(&self, packet: &[u8], by_tcp: bool) -> Option<Vec<u8>> {
        match question::plan(packet, &self.namespace, self.kubernetes.as_ref().map(|kubernetes| &*kubernetes.domain)) {
            Plan::Ignore => None,
            Plan::Answer(answer) => Some(answer),
            Plan::Service(question) => {
                let found = self.find(&question.service, clock::now() + WAIT).await;
                question.answer(found)
            }
            Plan::Kubernetes(question) => self.kubernetes(&question, packet, by_tcp).await,
            Plan::Forward => self.forward(packet, by_tcp).await,
        }
    }

    async fn forward(&self, packet: &[u8], by_tcp: bool) -> Option<Vec<u8>> {
        let answer = forward::forward(packet, &self.servers, by_tcp).await;
        answer.or_else(|| question::failure(packet))
    }

    /// The answer to a question for a service of Kubernetes: ours, where it is one of the mesh, else that of others. While nobody can say whether it is one, others are
    /// asked only whether there is such a name: the address that they know would lead to a member in clear.
    async fn kubernetes(&self, question: &Question, packet: &[u8], by_tcp: bool) -> Option<Vec<u8>> {
        let service = &*question.service;
        if self.kubernetes.as_ref().is_none_or(|kubernetes| kubernetes.spared.iter().any(|spared| **spared == *service)) {
            return self.forward(packet, by_tcp).await;
        }
        let now = clock::now();
        let rests = self.demand.rests(Kind::MeshService, service, now);
        let away = self.demand.unheard_since().map_or(now + WAIT, |since| (since + WAIT).clamp(now, now + WAIT));
        let until = if rests { now } else { away };
        let found = self.find(service, until).await;
        match found {
            // One without an address cannot be led to, and what others know of it would lead there in clear.
            Found::Service(None) if self.is_own(service) => question::failure(packet),
            Found::Service(_) if self.is_own(service) => question.answer(found),
            Found::Service(_) | Found::Nobody => self.forward(packet, by_tcp).await,
            Found::Unknown => {
                if until == now + WAIT {
                    self.demand.waited_in_vain(Kind::MeshService, service, clock::now());
                }
                let answer = self.forward(packet, by_tcp).await;
                answer.filter(|answer| !question::exists(answer)).or_else(|| question::failure(packet))
            }
        }
    }

    /// Whether a service is none of a partner's, whose services have names that we have given them and are in no Kubernetes of ours.
    fn is_own(&self, service: &str) -> bool {
        let own = self.kubernetes.as_ref().and_then(|kubernetes| kubernetes.identity.bundles().own_domain().cloned());
        let tables = self.tables.borrow();
        let of = tables.mesh.get(service).and_then(|known| known.domain.as_ref());
        of.is_none_or(|of| own.as_ref() == Some(of))
    }

    /// What is known of a service; its first question waits `until` then for the control plane.
    async fn find(&self, service: &str, until: Instant) -> Found {
        let mut answers = self.demand.answers();
        let mut tables = self.tables.clone();
        loop {
            answers.borrow_and_update();
            let standing = self.demand.want(Kind::MeshService, service, clock::now());
            if let Some(known) = tables.borrow_and_update().mesh.get(service) {
                return Found::Service(known.vip);
            }
            match standing {
                Standing::Absent => return Found::Nobody,
                Standing::Unusable => return Found::Unknown,
                Standing::Asked | Standing::Present => {}
            }
            tokio::select! {
                Ok(()) = tables.changed() => {}
                Ok(()) = answers.changed() => {}
                () = sleep_until(until) => return Found::Unknown,
            }
        }
    }
}
