//! One suite for every transport, and what streams must stand besides.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatId, ChitchatMessage, Deserializable, Serializable};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::super::doorman::{Count, Doorman};
use super::*;
use crate::identity::Identity;
use crate::identity::tests::Authority;

const SOON: Duration = Duration::from_secs(10);
const SHORTLY: Duration = Duration::from_millis(100);

/// A message that names these nodes.
fn syn(addresses: &[SocketAddr]) -> ChitchatMessage {
    let mut bytes = vec![83, 176, 0, 0];
    bytes.extend(u16::try_from(addresses.len()).unwrap().to_le_bytes());
    for address in addresses {
        ChitchatId::new("nodenodenod", 1, *address).serialize(&mut bytes);
        bytes.extend([0; 24]);
    }
    "fleet".serialize(&mut bytes);
    ChitchatMessage::deserialize(&mut &bytes[..]).unwrap()
}

/// One that answers.
fn ack() -> ChitchatMessage {
    ChitchatMessage::deserialize(&mut &[83, 176, 0, 2, 0][..]).unwrap()
}

/// One node of a transport under test.
struct Node {
    address: SocketAddr,
    transport: Box<dyn Transport>,
    doorman: Arc<Doorman>,
    socket: Box<dyn Socket>,
}

impl Node {
    async fn open(address: SocketAddr, transport: impl Transport, doorman: Arc<Doorman>) -> Node {
        let socket = transport.open(address).await.unwrap();
        Node { address, transport: Box::new(transport), doorman, socket }
    }

    async fn receive(&mut self) -> (SocketAddr, ChitchatMessage) {
        timeout(SOON, self.socket.recv()).await.expect("nothing comes").unwrap()
    }

    async fn hears_nothing(&mut self) {
        assert!(timeout(SHORTLY, self.socket.recv()).await.is_err());
    }

    async fn sees(&self, what: Count) {
        let counted = async {
            while self.doorman.counters.get(what) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, counted).await.unwrap_or_else(|_| panic!("no {what:?}"));
    }
}

enum Net {
    Memory(MemoryNet),
    Streams(fn() -> Security),
}

impl Net {
    async fn node(&self, limit: usize) -> Node {
        let doorman = Arc::new(Doorman::new(limit));
        match self {
            Net::Memory(net) => {
                let address = SocketAddr::from(([10, 0, 0, 1], fastrand::u16(1..)));
                Node::open(address, net.transport(doorman.clone()), doorman).await
            }
            Net::Streams(security) => streams(security(), "fleet", doorman).await,
        }
    }
}

async fn streams(security: Security, cluster: &str, doorman: Arc<Doorman>) -> Node {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let timing = Timing { handshake: Duration::from_secs(5), answer: Duration::from_secs(2), ..Timing::default() };
    let transport = StreamTransport::new(listener, address, cluster, security, doorman.clone()).timed(timing);
    Node::open(address, transport, doorman).await
}

fn secure() -> Security {
    static AUTHORITY: std::sync::OnceLock<Authority> = std::sync::OnceLock::new();
    Security::Identity(AUTHORITY.get_or_init(|| Authority::new("fleet.test")).member("/ns/default/svc/gateway"))
}

async fn suite(net: Net) {
    carries_both_ways(&net).await;
    carries_large_ones(&net).await;
    minds_no_silence(&net).await;
    can_be_asked_in_pieces(&net).await;
    is_open_once(&net).await;
    tells_who_is_too_many(&net).await;
}

async fn carries_both_ways(net: &Net) {
    let (mut a, mut b) = (net.node(9).await, net.node(9).await);
    a.socket.send(b.address, syn(&[a.address])).await.unwrap();
    let (from, message) = b.receive().await;
    assert_eq!((from, message), (a.address, syn(&[a.address])));
    b.socket.send(from, ack()).await.unwrap();
    let (from, message) = a.receive().await;
    assert_eq!((from, message), (b.address, ack()));
    // And unasked the other way.
    b.socket.send(a.address, syn(&[b.address])).await.unwrap();
    assert_eq!(a.receive().await.0, b.address);
}

async fn carries_large_ones(net: &Net) {
    let (mut a, mut b) = (net.node(1_000).await, net.node(1_000).await);
    let many: Vec<SocketAddr> = (1..=1_000).map(|port| SocketAddr::from(([10, 1, 1, 1], port))).collect();
    b.doorman.refresh(many.iter().map(|address| super::super::wire::Named {
        name: *b"nodenodenod",
        generation: 1,
        address: *address,
    }));
    a.socket.send(b.address, syn(&many)).await.unwrap();
    assert_eq!(b.receive().await.1, syn(&many));
}

async fn minds_no_silence(net: &Net) {
    let mut a = net.node(9).await;
    let nobody = SocketAddr::new(a.address.ip(), 1);
    for _ in 0..20 {
        a.socket.send(nobody, syn(&[a.address])).await.unwrap();
    }
    a.hears_nothing().await;
    let mut b = net.node(9).await;
    a.socket.send(b.address, syn(&[a.address])).await.unwrap();
    b.receive().await;
}

async fn can_be_asked_in_pieces(net: &Net) {
    let (mut a, mut b) = (net.node(9).await, net.node(9).await);
    for _ in 0..5 {
        assert!(timeout(Duration::from_millis(1), b.socket.recv()).await.is_err());
    }
    a.socket.send(b.address, syn(&[a.address])).await.unwrap();
    let mut tries = 0;
    let got = loop {
        if let Ok(got) = timeout(Duration::from_millis(1), b.socket.recv()).await {
            break got.unwrap();
        }
        tries += 1;
        assert!(tries < 10_000, "lost on the way");
    };
    assert_eq!(got.1, syn(&[a.address]));
}

async fn is_open_once(net: &Net) {
    let node = net.node(9).await;
    assert!(node.transport.open(node.address).await.is_err());
    drop(node.socket);
    let again = async {
        while node.transport.open(node.address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, again).await.expect("the address is not free again");
}

async fn tells_who_is_too_many(net: &Net) {
    let (mut a, mut b) = (net.node(9).await, net.node(1).await);
    b.doorman.refresh([super::super::wire::Named { name: *b"b          ", generation: 1, address: b.address }]);
    a.socket.send(b.address, syn(&[a.address])).await.unwrap();
    b.hears_nothing().await;
    b.sees(Count::TurnedAway).await;
    a.sees(Count::Refused).await;
}

#[tokio::test]
async fn memory_is_a_transport() {
    suite(Net::Memory(MemoryNet::new(fastrand::Rng::with_seed(1)))).await;
}

#[tokio::test]
async fn clear_streams_are_a_transport() {
    suite(Net::Streams(|| Security::Loopback)).await;
}

#[tokio::test]
async fn secure_streams_are_a_transport() {
    suite(Net::Streams(secure)).await;
}

#[tokio::test]
async fn links_can_be_cut_lossy_and_slow() {
    let net = Net::Memory(MemoryNet::new(fastrand::Rng::with_seed(1)));
    let (mut a, mut b) = (net.node(9).await, net.node(9).await);
    let Net::Memory(memory) = &net else { unreachable!() };
    memory.cut(a.address, b.address);
    a.socket.send(b.address, syn(&[a.address])).await.unwrap();
    b.hears_nothing().await;
    b.socket.send(a.address, syn(&[b.address])).await.unwrap();
    a.receive().await;
    memory.part(|address| u32::from(address == a.address));
    b.socket.send(a.address, syn(&[b.address])).await.unwrap();
    a.hears_nothing().await;
    memory.heal();
    memory.lose(1.0);
    a.socket.send(b.address, syn(&[a.address])).await.unwrap();
    b.hears_nothing().await;
    memory.lose(0.0);
    memory.delay(Duration::from_millis(300));
    a.socket.send(b.address, syn(&[a.address])).await.unwrap();
    b.hears_nothing().await;
    b.receive().await;
}

#[tokio::test]
async fn another_trust_domain_is_no_member() {
    let mut a = streams(secure(), "fleet", Arc::new(Doorman::new(9))).await;
    let stranger = Security::Identity(Authority::new("elsewhere.test").member("/ns/default/svc/gateway"));
    let mut b = streams(stranger, "fleet", Arc::new(Doorman::new(9))).await;
    b.socket.send(a.address, syn(&[b.address])).await.unwrap();
    b.sees(Count::StreamsFailed).await;
    a.hears_nothing().await;
}

#[tokio::test]
async fn a_federated_domain_is_no_member() {
    let (ours, theirs) = (Authority::new("ours.test"), Authority::new("theirs.test"));
    let trusting = |own: &Authority, other: &Authority| {
        let identity: Identity = own.member("/ns/default/svc/gateway");
        identity.set_bundles(own.bundles().with_federated(other.bundle()));
        Security::Identity(identity)
    };
    let mut a = streams(trusting(&ours, &theirs), "fleet", Arc::new(Doorman::new(9))).await;
    let mut b = streams(trusting(&theirs, &ours), "fleet", Arc::new(Doorman::new(9))).await;
    b.socket.send(a.address, syn(&[b.address])).await.unwrap();
    b.sees(Count::StreamsFailed).await;
    a.hears_nothing().await;
}

#[tokio::test]
async fn another_cluster_is_told() {
    let mut a = streams(secure(), "fleet", Arc::new(Doorman::new(9))).await;
    let mut b = streams(secure(), "other", Arc::new(Doorman::new(9))).await;
    b.socket.send(a.address, syn(&[b.address])).await.unwrap();
    b.sees(Count::Refused).await;
    a.hears_nothing().await;
}

#[tokio::test]
async fn the_silent_hold_up_nobody() {
    let mut a = streams(secure(), "fleet", Arc::new(Doorman::new(9))).await;
    let mut silent = Vec::new();
    for _ in 0..1_100 {
        silent.push(TcpStream::connect(a.address).await.unwrap());
    }
    let mut b = streams(secure(), "fleet", Arc::new(Doorman::new(9))).await;
    b.socket.send(a.address, syn(&[b.address])).await.unwrap();
    a.receive().await;
    // They are not waited for without end either.
    let mut byte = [0];
    let end = timeout(Duration::from_secs(20), silent[0].read(&mut byte)).await.expect("the silent one is kept");
    assert!(matches!(end, Ok(0) | Err(_)));
}

#[tokio::test]
async fn one_certificate_has_not_all_streams_however_many_addresses_there_are() {
    let (one, mut other) = (secure(), streams(secure(), "fleet", Arc::new(Doorman::new(9))).await);
    let mut a = streams(secure(), "fleet", Arc::new(Doorman::new(9))).await;
    let mut greedy = Vec::new();
    for _ in 0..=super::super::ledger::MAX_PER_PEER {
        let mut b = streams(one.clone(), "fleet", Arc::new(Doorman::new(9))).await;
        b.socket.send(a.address, syn(&[b.address])).await.unwrap();
        greedy.push(b);
    }
    let (address, doorman) = (a.address, a.doorman.clone());
    let taken = tokio::spawn(async move { while a.socket.recv().await.is_ok() {} });
    // On a busy machine a handshake may take too long, so all say it again.
    let heard = async {
        while doorman.counters.get(Count::StreamsFailed) == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            for b in &mut greedy {
                b.socket.send(address, syn(&[b.address])).await.unwrap();
            }
        }
        // What they have said last comes first.
        let (mut before, mut now) = (0, doorman.counters.get(Count::MessagesIn));
        while before < now {
            tokio::time::sleep(Duration::from_millis(200)).await;
            (before, now) = (now, doorman.counters.get(Count::MessagesIn));
        }
        // Another one, of the same identity, is heard.
        while doorman.counters.get(Count::MessagesIn) == before {
            other.socket.send(address, syn(&[other.address])).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), heard).await.expect("another one is heard");
    taken.abort();
}

#[tokio::test]
async fn who_is_trusted_no_more_is_cut_off() {
    let (old, new) = (Authority::new("fleet.test"), Authority::new("fleet.test"));
    let identity = old.member("/ns/default/svc/a");
    let mut a = streams(Security::Identity(identity.clone()), "fleet", Arc::new(Doorman::new(9))).await;
    let mut b = streams(Security::Identity(old.member("/ns/default/svc/b")), "fleet", Arc::new(Doorman::new(9))).await;
    b.socket.send(a.address, syn(&[b.address])).await.unwrap();
    a.receive().await;
    identity.set_bundles(new.bundles());
    let refused = async {
        while b.doorman.counters.get(Count::StreamsFailed) == 0 {
            b.socket.send(a.address, syn(&[b.address])).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, refused).await.expect("it goes on as before");
}

#[tokio::test]
async fn a_stream_on_which_nothing_is_answered_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let mut a = streams(Security::Loopback, "fleet", Arc::new(Doorman::new(9))).await;
    a.socket.send(address, syn(&[a.address])).await.unwrap();
    let (kept, _) = silent.accept().await.unwrap();
    a.sees(Count::StreamsFailed).await;
    drop(kept);
    a.socket.send(address, syn(&[a.address])).await.unwrap();
    timeout(SOON, silent.accept()).await.expect("no new stream is opened").unwrap();
}

#[tokio::test]
async fn clear_streams_stay_within_the_host() {
    let mut a = streams(Security::Loopback, "fleet", Arc::new(Doorman::new(9))).await;
    a.socket.send("192.0.2.1:7946".parse().unwrap(), syn(&[a.address])).await.unwrap();
    a.sees(Count::StreamsFailed).await;
}
