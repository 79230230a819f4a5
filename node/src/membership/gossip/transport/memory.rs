//! A net in memory: its links can be cut, be lossy and take time. For tests and simulations of fleets in one process.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Serializable};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::super::doorman::{Count, Doorman, Refusal, Verdict};
use super::super::ledger::Peer;
use crate::clock::{self, Instant};

/// Messages that wait at a node; the next one is lost.
const INBOX: usize = 1_024;

/// The net; clones are the same one.
#[derive(Debug, Clone)]
pub struct MemoryNet(Arc<Mutex<Net>>);

#[derive(Debug)]
struct Net {
    nodes: HashMap<SocketAddr, Node>,
    /// Links that carry nothing, by from and to.
    cut: HashSet<(SocketAddr, SocketAddr)>,
    /// Which part of a parted net a node is in; only within a part anything is carried.
    parts: HashMap<SocketAddr, u32>,
    loss: f64,
    latency: Duration,
    dice: fastrand::Rng,
}

#[derive(Debug)]
struct Node {
    inbox: mpsc::Sender<Letter>,
    doorman: Arc<Doorman>,
}

#[derive(Debug)]
struct Letter {
    from: SocketAddr,
    bytes: Bytes,
    due: Instant,
}

impl MemoryNet {
    /// A net that carries everything at once.
    #[must_use]
    pub fn new(dice: fastrand::Rng) -> MemoryNet {
        let net =
            Net { nodes: HashMap::new(), cut: HashSet::new(), parts: HashMap::new(), loss: 0.0, latency: Duration::ZERO, dice };
        MemoryNet(Arc::new(Mutex::new(net)))
    }

    /// The way into it of one node.
    #[must_use]
    pub fn transport(&self, doorman: Arc<Doorman>) -> MemoryTransport {
        MemoryTransport { net: self.clone(), doorman }
    }

    /// This share of all messages is lost from now on, 0 to 1.
    pub fn lose(&self, share: f64) {
        self.0.lock().loss = share;
    }

    /// Every message takes this long from now on.
    pub fn delay(&self, latency: Duration) {
        self.0.lock().latency = latency;
    }

    /// Cuts the way from one node to another, one way.
    pub fn cut(&self, from: SocketAddr, to: SocketAddr) {
        self.0.lock().cut.insert((from, to));
    }

    /// Parts the net: who is in different parts hears nothing of each other.
    pub fn part(&self, part: impl Fn(SocketAddr) -> u32) {
        let mut net = self.0.lock();
        net.parts = net.nodes.keys().map(|address| (*address, part(*address))).collect();
    }

    /// Mends all links.
    pub fn heal(&self) {
        let mut net = self.0.lock();
        net.cut.clear();
        net.parts.clear();
    }
}

impl Net {
    fn open(&mut self, mut address: SocketAddr, node: Node) -> Option<SocketAddr> {
        if address.port() == 0 {
            let mut ports = 1..=u16::MAX;
            address.set_port(ports.find(|port| !self.nodes.contains_key(&SocketAddr::new(address.ip(), *port)))?);
        }
        if self.nodes.contains_key(&address) {
            return None;
        }
        self.nodes.insert(address, node);
        Some(address)
    }

    fn carries(&mut self, from: SocketAddr, to: SocketAddr) -> bool {
        let parted = self.parts.get(&from) != self.parts.get(&to);
        !parted && !self.cut.contains(&(from, to)) && (self.loss == 0.0 || self.dice.f64() >= self.loss)
    }

    fn post(&mut self, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        if !self.carries(from, to) {
            return;
        }
        let due = clock::now() + self.latency;
        if let Some(node) = self.nodes.get(&to)
            && node.inbox.try_send(Letter { from, bytes, due }).is_err()
        {
            node.doorman.counters.add(Count::MessagesDropped, 1);
        }
    }
}

/// The way into a net of one node.
#[derive(Debug)]
pub struct MemoryTransport {
    net: MemoryNet,
    doorman: Arc<Doorman>,
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn open(&self, address: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let (sender, inbox) = mpsc::channel(INBOX);
        let node = Node { inbox: sender, doorman: self.doorman.clone() };
        let opened = self.net.0.lock().open(address, node);
        let address = opened.ok_or_else(|| anyhow::anyhow!("{address} is taken"))?;
        Ok(Box::new(MemorySocket { net: self.net.clone(), doorman: self.doorman.clone(), address, inbox, waiting: None }))
    }
}

struct MemorySocket {
    net: MemoryNet,
    doorman: Arc<Doorman>,
    address: SocketAddr,
    inbox: mpsc::Receiver<Letter>,
    /// Has come, but is not due yet.
    waiting: Option<Letter>,
}

#[async_trait]
impl Socket for MemorySocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let bytes = Bytes::from(message.serialize_to_vec());
        self.doorman.note_out(bytes.len());
        self.net.0.lock().post(self.address, to, bytes);
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            if self.waiting.is_none() {
                self.waiting = self.inbox.recv().await;
            }
            let Some(letter) = &self.waiting else {
                // The net has forgotten this node, which only its end does.
                return std::future::pending().await;
            };
            if letter.due > clock::now() {
                tokio::time::sleep_until(letter.due).await;
            }
            let Some(Letter { from, bytes, .. }) = self.waiting.take() else { continue };
            match self.doorman.judge(known(from), &bytes) {
                Verdict::Take(message) => return Ok((from, message)),
                Verdict::Drop => {}
                Verdict::Full => {
                    let sender = self.net.0.lock().nodes.get(&from).map(|node| node.doorman.clone());
                    if let Some(sender) = sender {
                        sender.refused(self.address, Refusal::Full);
                    }
                }
            }
        }
    }
}

/// Nobody can take another's address here.
fn known(address: SocketAddr) -> Peer {
    let ip = match address.ip() {
        IpAddr::V4(v4) => u64::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6) as u64,
    };
    Peer { witness: ip << 16 | u64::from(address.port()), address, proven: true }
}

impl Drop for MemorySocket {
    fn drop(&mut self) {
        self.net.0.lock().nodes.remove(&self.address);
    }
}
