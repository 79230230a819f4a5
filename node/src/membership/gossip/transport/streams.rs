//! Gossip over streams: mutually authenticated TLS between identities of one trust domain, or cleartext within one host. It knows messages by their
//! outside only.
//!
//! Whoever has something to say opens a stream and keeps it for a while; what it asks is answered on the same stream. So a lying member, which may claim
//! any address, hears the answers to its own messages and nothing that is meant for others.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Serializable};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::super::doorman::{Count, Doorman, Refusal, Verdict};
use super::super::ledger::{MAX_PER_PEER, Peer};
use super::super::wire;
use super::frame::{self, Frame, Hello};
use super::handshakes::Handshakes;
use crate::clock::{self, Instant};
use crate::identity::{ClientAuth, Expect, Identity, nameless, peer_of};
use crate::sockets;

/// The protocol that both sides agree on in the handshake.
const ALPN: &[u8] = b"heddle-gossip/1";
/// The most streams opened by this node; the one not used for longest makes room.
const MAX_OPENED: usize = 256;
/// The most streams opened by others, behind their handshake.
const MAX_ACCEPTED: usize = 1_024;
/// Messages that wait for a stream; the next one is lost, which gossip does not mind.
const OUTBOX: usize = 8;
/// Messages that wait for chitchat. When it is busy, streams wait.
const INBOX: usize = 64;
/// How long is waited before accepting again after a fault, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How streams are protected.
#[derive(Debug, Clone)]
pub enum Security {
    /// By identities; both sides must be of our own trust domain.
    Identity(Identity),
    /// Not at all, and only within this host.
    Loopback,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// To connect.
    pub connect: Duration,
    /// For the handshake, and for the hello after it.
    pub handshake: Duration,
    /// To read or write one frame, once begun.
    pub frame: Duration,
    /// Without a word.
    pub idle: Duration,
    /// Until something is answered: a broken network keeps a stream open long after it has been mended, a new one works at once.
    pub answer: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        let seconds = Duration::from_secs;
        Timing { connect: seconds(3), handshake: seconds(3), frame: seconds(10), idle: seconds(60), answer: seconds(5) }
    }
}

/// The transport of one node.
#[derive(Debug)]
pub struct StreamTransport {
    hello: Hello,
    security: Security,
    timing: Timing,
    doorman: Arc<Doorman>,
    /// Bound already, for the first time that it is opened.
    listener: Mutex<Option<TcpListener>>,
}

impl StreamTransport {
    /// The transport of the node whose gossip is reached at `advertise`.
    #[must_use]
    pub fn new(listener: TcpListener, advertise: SocketAddr, cluster: &str, security: Security, doorman: Arc<Doorman>) -> Self {
        let hello = Hello { address: advertise, cluster: cluster.to_owned() };
        Self { hello, security, timing: Timing::default(), doorman, listener: Mutex::new(Some(listener)) }
    }

    /// With other bounds in time.
    #[must_use]
    pub fn timed(self, timing: Timing) -> Self {
        Self { timing, ..self }
    }
}

#[async_trait]
impl Transport for StreamTransport {
    async fn open(&self, address: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let bound = self.listener.lock().take();
        let listener = match bound {
            Some(listener) => listener,
            None => TcpListener::bind(address).await?,
        };
        let (sender, inbox) = mpsc::channel(INBOX);
        let shared = Arc::new(Shared {
            hello: self.hello.clone(),
            security: self.security.clone(),
            timing: self.timing,
            doorman: self.doorman.clone(),
            inbox: sender,
            opened: Mutex::default(),
            accepted: Arc::default(),
            tasks: Mutex::default(),
        });
        shared.tasks.lock().spawn(accept(shared.clone(), listener));
        Ok(Box::new(StreamSocket { shared, inbox, last: None }))
    }
}

/// Messages on their way into one stream.
type Outbox = mpsc::Sender<Bytes>;

/// A message, and where its answer goes.
struct Delivery {
    from: SocketAddr,
    message: ChitchatMessage,
    answers: Outbox,
}

struct StreamSocket {
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Delivery>,
    /// Where the message came from that chitchat is about to answer.
    last: Option<(SocketAddr, Outbox)>,
}

#[async_trait]
impl Socket for StreamSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let answers = !matches!(message, ChitchatMessage::Syn { .. });
        let bytes = Bytes::from(message.serialize_to_vec());
        self.shared.doorman.note_out(bytes.len());
        let lost = match self.last.take().filter(|(from, _)| answers && *from == to) {
            Some((_, outbox)) => outbox.try_send(bytes).is_err(),
            None => !self.shared.post(to, bytes),
        };
        if lost {
            self.shared.doorman.counters.add(Count::MessagesDropped, 1);
        }
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        match self.inbox.recv().await {
            Some(Delivery { from, message, answers }) => {
                self.last = Some((from, answers));
                Ok((from, message))
            }
            // Cannot be while `shared` holds a sender; and an error would end gossip for good.
            None => std::future::pending().await,
        }
    }
}

impl Drop for StreamSocket {
    fn drop(&mut self) {
        self.shared.tasks.lock().abort_all();
    }
}

struct Shared {
    hello: Hello,
    security: Security,
    timing: Timing,
    doorman: Arc<Doorman>,
    inbox: mpsc::Sender<Delivery>,
    opened: Mutex<HashMap<SocketAddr, Opened>>,
    /// Streams that others have opened, by whose they are.
    accepted: Arc<Mutex<HashMap<u64, usize>>>,
    tasks: Mutex<JoinSet<()>>,
}

struct Opened {
    outbox: Outbox,
    used: Instant,
}

impl Shared {
    /// Hands a message to the stream to a node, opening one if there is none. False: it is lost.
    fn post(self: &Arc<Self>, to: SocketAddr, bytes: Bytes) -> bool {
        let now = clock::now();
        let mut opened = self.opened.lock();
        if let Some(stream) = opened.get_mut(&to).filter(|stream| !stream.outbox.is_closed()) {
            stream.used = now;
            return stream.outbox.try_send(bytes).is_ok();
        }
        opened.retain(|_, stream| !stream.outbox.is_closed());
        if opened.len() >= MAX_OPENED
            && let Some(oldest) = opened.iter().min_by_key(|(_, stream)| stream.used).map(|(address, _)| *address)
        {
            opened.remove(&oldest);
        }
        let (outbox, queue) = mpsc::channel(OUTBOX);
        let posted = outbox.try_send(bytes).is_ok();
        let answers = outbox.downgrade();
        opened.insert(to, Opened { outbox, used: now });
        drop(opened);
        let shared = self.clone();
        self.spawn(async move {
            if let Err(error) = shared.dial(to, queue, answers).await {
                shared.doorman.counters.add(Count::StreamsFailed, 1);
                tracing::debug!(peer = %to, %error, "a gossip stream has failed");
            }
        });
        posted
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work)
    }

    async fn dial(&self, to: SocketAddr, queue: mpsc::Receiver<Bytes>, answers: mpsc::WeakSender<Bytes>) -> std::io::Result<()> {
        if matches!(self.security, Security::Loopback) && !to.ip().is_loopback() {
            return Err(std::io::Error::other("without an identity, gossip does not leave this host"));
        }
        let tcp = timeout(self.timing.connect, sockets::connect(to)).await??;
        let _ = tcp.set_nodelay(true);
        let (mut stream, chain): (Stream, Chain) = match &self.security {
            Security::Loopback => (Box::new(tcp), Chain::default()),
            Security::Identity(identity) => {
                let connector = TlsConnector::from(identity.client_config(Expect::TrustDomain, &[ALPN]));
                let tls = timeout(self.timing.handshake, connector.connect(nameless(), tcp)).await??;
                let chain = owned(tls.get_ref().1.peer_certificates());
                (Box::new(tls), chain)
            }
        };
        timeout(self.timing.frame, frame::write(&mut stream, &Frame::Hello(self.hello.clone()))).await??;
        let peer = Peer { witness: self.witness(&chain, to), address: to, proven: true };
        self.converse(stream, peer, &chain, queue, answers).await
    }

    /// Whose word comes over a stream: that of whoever holds this certificate, however many addresses he has. Replicas of a service have the same identity, but
    /// each its own certificate. Within a host there are none, all are believed to be who they say.
    fn witness(&self, chain: &[CertificateDer<'_>], address: SocketAddr) -> u64 {
        let hash = match chain.first() {
            Some(leaf) => aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf),
            None => aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, address.to_string().as_bytes()),
        };
        hash.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// A stream that another node has opened: handshake, hello, then its messages.
    async fn welcome(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
        greeted: &AtomicBool,
        room: Arc<Semaphore>,
    ) -> std::io::Result<()> {
        let _ = tcp.set_nodelay(true);
        let (mut stream, chain): (Stream, Chain) = match &self.security {
            Security::Loopback if address.ip().is_loopback() => (Box::new(tcp), Chain::default()),
            Security::Loopback => return Ok(()),
            Security::Identity(identity) => {
                let acceptor = TlsAcceptor::from(identity.server_config(ClientAuth::Required, &[ALPN]));
                let tls = timeout(self.timing.handshake, acceptor.accept(tcp)).await??;
                let chain = owned(tls.get_ref().1.peer_certificates());
                if !is_ours(identity, &chain) {
                    return Err(std::io::Error::other("an identity of another trust domain"));
                }
                (Box::new(tls), chain)
            }
        };
        let hello = timeout(self.timing.handshake, async {
            let length = frame::read_length(&mut stream).await?.unwrap_or_default();
            frame::read_body(&mut stream, length).await
        });
        let Frame::Hello(hello) = hello.await?? else { return Err(std::io::Error::other("no hello")) };
        if hello.cluster != self.hello.cluster {
            return timeout(self.timing.frame, frame::write(&mut stream, &Frame::Refused(Refusal::Cluster))).await?;
        }
        greeted.store(true, Ordering::Relaxed);
        let Ok(_permit) = room.try_acquire_owned() else { return Err(std::io::Error::other("there are too many streams")) };
        let witness = self.witness(&chain, hello.address);
        let Some(_place) = Place::take(&self.accepted, witness) else {
            return Err(std::io::Error::other(format!("more than {MAX_PER_PEER} streams of one certificate")));
        };
        let proven = address.ip().to_canonical() == hello.address.ip().to_canonical();
        let peer = Peer { witness, address: hello.address, proven };
        let (outbox, queue) = mpsc::channel(OUTBOX);
        let answers = outbox.downgrade();
        let talk = self.converse(stream, peer, &chain, queue, answers).await;
        drop(outbox);
        talk
    }

    /// Reads and writes until either ends, or the peer is trusted no more.
    async fn converse(
        &self,
        stream: Stream,
        peer: Peer,
        chain: &[CertificateDer<'static>],
        mut queue: mpsc::Receiver<Bytes>,
        answers: mpsc::WeakSender<Bytes>,
    ) -> std::io::Result<()> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let asked = Asked::default();
        let end = tokio::select! {
            end = self.read(&mut reader, peer, answers, &asked) => end,
            end = self.write(&mut writer, &mut queue, &asked) => end.map(|()| None),
            () = asked.too_long(self.timing.answer) => Err(std::io::Error::other("nothing is answered")),
            () = self.distrust(chain) => Ok(None),
        };
        if let Some(refusal) = end? {
            timeout(self.timing.frame, frame::write(&mut writer, &Frame::Refused(refusal))).await??;
        }
        Ok(())
    }

    /// Takes messages in; ends with what the peer has to be told.
    async fn read(
        &self,
        reader: &mut ReadHalf<Stream>,
        peer: Peer,
        answers: mpsc::WeakSender<Bytes>,
        asked: &Asked,
    ) -> std::io::Result<Option<Refusal>> {
        loop {
            let Some(length) = timeout(self.timing.idle, frame::read_length(reader)).await?? else { return Ok(None) };
            let frame = timeout(self.timing.frame, frame::read_body(reader, length)).await??;
            asked.answered();
            let bytes = match frame {
                Frame::Message(bytes) => bytes,
                Frame::Refused(why) => {
                    self.doorman.refused(peer.address, why);
                    return Ok(None);
                }
                Frame::Hello(_) => return Err(std::io::Error::other("a second hello")),
            };
            let message = match self.doorman.judge(peer, &bytes) {
                Verdict::Take(message) => message,
                Verdict::Drop => continue,
                Verdict::Full => return Ok(Some(Refusal::Full)),
            };
            let Some(answers) = answers.upgrade() else { return Ok(None) };
            if self.inbox.send(Delivery { from: peer.address, message, answers }).await.is_err() {
                return Ok(None);
            }
        }
    }

    async fn write(
        &self,
        writer: &mut WriteHalf<Stream>,
        queue: &mut mpsc::Receiver<Bytes>,
        asked: &Asked,
    ) -> std::io::Result<()> {
        while let Some(bytes) = queue.recv().await {
            if wire::wants_answer(&bytes) {
                asked.asked();
            }
            timeout(self.timing.frame, frame::write(writer, &Frame::Message(bytes))).await??;
        }
        Ok(())
    }

    /// Resolves when the peer's root is trusted no more.
    async fn distrust(&self, chain: &[CertificateDer<'static>]) {
        let Security::Identity(identity) = &self.security else { return std::future::pending().await };
        let mut changes = identity.changes();
        while identity.recheck(chain).is_ok() && is_ours(identity, chain) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// One of the streams that the holder of one certificate may have opened.
struct Place {
    accepted: Arc<Mutex<HashMap<u64, usize>>>,
    witness: u64,
}

impl Place {
    fn take(accepted: &Arc<Mutex<HashMap<u64, usize>>>, witness: u64) -> Option<Place> {
        let mut counts = accepted.lock();
        let count = counts.entry(witness).or_default();
        if *count >= MAX_PER_PEER {
            return None;
        }
        *count += 1;
        Some(Place { accepted: accepted.clone(), witness })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.accepted.lock();
        if let Some(count) = counts.get_mut(&self.witness) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.witness);
            }
        }
    }
}

/// Since when an answer is waited for.
#[derive(Default)]
struct Asked(Mutex<Option<Instant>>);

impl Asked {
    fn asked(&self) {
        self.0.lock().get_or_insert_with(clock::now);
    }

    fn answered(&self) {
        *self.0.lock() = None;
    }

    /// Resolves when an answer has been waited for so long.
    async fn too_long(&self, patience: Duration) {
        loop {
            tokio::time::sleep(patience / 4).await;
            let since = *self.0.lock();
            if since.is_some_and(|since| clock::now().saturating_duration_since(since) >= patience) {
                return;
            }
        }
    }
}

/// Accepts until it is aborted. What a peer does or does not do holds up nobody else.
async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let (room, mut handshakes) = (Arc::new(Semaphore::new(MAX_ACCEPTED)), Handshakes::default());
    loop {
        let (tcp, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "gossip cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (welcoming, room, greeted) = (shared.clone(), room.clone(), Arc::new(AtomicBool::new(false)));
        let done = greeted.clone();
        let handshake = shared.spawn(async move {
            if let Err(error) = welcoming.welcome(tcp, address, &greeted, room).await {
                welcoming.doorman.counters.add(Count::StreamsFailed, 1);
                tracing::debug!(peer = %address, %error, "a gossip stream of another node has failed");
            }
        });
        handshakes.begin(address.ip().to_canonical(), done, handshake);
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
type Stream = Box<dyn Duplex>;
type Chain = Vec<CertificateDer<'static>>;

fn owned(chain: Option<&[CertificateDer<'_>]>) -> Chain {
    chain.unwrap_or_default().iter().map(|der| der.clone().into_owned()).collect()
}

/// Whether it is of our own trust domain: federated domains may call services, but are no part of the fleet.
fn is_ours(identity: &Identity, chain: &[CertificateDer<'_>]) -> bool {
    peer_of(chain).is_some_and(|id| identity.bundles().own_domain() == Some(id.trust_domain()))
}
