//! What a sidecar counts where connections come in: callers in clear, protocols found out, callers refused. Once for each connection, never for a request.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::TextWriter;

/// Ports that are counted apart; beyond them they are counted under 0.
const MAX_PORTS: usize = 256;
/// Callers in clear of one port that are remembered, those that were seen last.
const MAX_PEERS: usize = 32;

/// The most refusals of a second that are written to the log.
const MAX_TOLD: u32 = 10;

/// What a sidecar counts where connections come in.
#[derive(Debug, Default)]
pub struct MeshStats {
    clear: Mutex<BTreeMap<u16, Clear>>,
    spoken: Spoken,
    spoken_outbound: Spoken,
    refused: Mutex<BTreeMap<&'static str, u64>>,
    /// The second of the last refusals that were told, and how many.
    told: Mutex<(u64, u32)>,
}

/// Callers in clear of one port.
#[derive(Debug, Default)]
struct Clear {
    connections: u64,
    /// Who, with the Unix milliseconds of the last time; the latest last.
    peers: VecDeque<(IpAddr, u64)>,
}

impl MeshStats {
    /// Somebody called in clear and was let in.
    pub fn plaintext(&self, port: u16, peer: IpAddr, now_ms: u64) {
        let mut clear = self.clear.lock();
        let known = clear.contains_key(&port) || clear.len() < MAX_PORTS;
        let seen = clear.entry(if known { port } else { 0 }).or_default();
        seen.connections += 1;
        seen.peers.retain(|(other, _)| *other != peer);
        if seen.peers.len() >= MAX_PEERS {
            seen.peers.pop_front();
        }
        seen.peers.push_back((peer, now_ms));
    }

    /// It was found out what a connection speaks.
    pub fn detected(&self, port: u16, protocol: &'static str) {
        count(&self.spoken, port, protocol);
    }

    /// It was found out what a connection of the application speaks, by the port that it has called.
    pub fn detected_outbound(&self, port: u16, protocol: &'static str) {
        count(&self.spoken_outbound, port, protocol);
    }

    /// A connection was not let in, or was closed, for this. Whether that should be written to the log, where refusals must not drown everything else.
    #[must_use]
    pub fn refused(&self, why: &'static str, now_ms: u64) -> bool {
        *self.refused.lock().entry(why).or_default() += 1;
        let mut told = self.told.lock();
        if told.0 != now_ms / 1_000 {
            *told = (now_ms / 1_000, 0);
        }
        told.1 += 1;
        told.1 <= MAX_TOLD
    }

    /// Writes the families.
    pub fn expose(&self, page: &mut TextWriter) {
        let name = "heddle_mesh_plaintext_connections_total";
        page.family(name, "counter", "Connections in clear that were let in, by port of the application.");
        for (port, seen) in &*self.clear.lock() {
            page.sample(name, &[("port", &port.to_string())], seen.connections as f64);
        }
        let name = "heddle_mesh_protocol_detected_total";
        page.family(name, "counter", "Connections whose protocol was found out by their first bytes.");
        by_port(page, name, &self.spoken);
        let name = "heddle_mesh_outbound_protocol_detected_total";
        page.family(
            name,
            "counter",
            "Connections of the application whose protocol was found out by their first bytes, by the port that it has called.",
        );
        by_port(page, name, &self.spoken_outbound);
        let name = "heddle_mesh_refused_connections_total";
        page.family(name, "counter", "Inbound connections that were refused or closed, by reason.");
        for (why, count) in &*self.refused.lock() {
            page.sample(name, &[("reason", why)], *count as f64);
        }
    }

    /// Who still calls in clear, by port, the latest first.
    pub fn callers_in_clear(&self) -> Value {
        let peers = |seen: &Clear| {
            let peers = seen.peers.iter().rev();
            peers.map(|(peer, at)| json!({ "address": peer.to_string(), "last_seen_ms": at })).collect::<Vec<_>>()
        };
        let clear = self.clear.lock();
        let ports =
            clear.iter().map(|(port, seen)| (port.to_string(), json!({ "connections": seen.connections, "peers": peers(seen) })));
        Value::Object(ports.collect())
    }
}

/// Protocols that were found out, by port.
type Spoken = Mutex<BTreeMap<(u16, &'static str), u64>>;

fn count(spoken: &Spoken, port: u16, protocol: &'static str) {
    let mut spoken = spoken.lock();
    let known = spoken.contains_key(&(port, protocol)) || spoken.len() < MAX_PORTS;
    *spoken.entry((if known { port } else { 0 }, protocol)).or_default() += 1;
}

fn by_port(page: &mut TextWriter, name: &str, spoken: &Spoken) {
    for ((port, protocol), count) in &*spoken.lock() {
        page.sample(name, &[("port", &port.to_string()), ("protocol", protocol)], *count as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_in_clear_are_counted_and_the_last_of_them_remembered() {
        let stats = MeshStats::default();
        for nth in 0..MAX_PEERS as u8 + 3 {
            stats.plaintext(80, IpAddr::from([10, 0, 0, nth]), u64::from(nth));
        }
        stats.plaintext(80, IpAddr::from([10, 0, 0, 20]), 99);
        let told = stats.callers_in_clear();
        assert_eq!(told["80"]["connections"], MAX_PEERS as u64 + 4);
        let peers = told["80"]["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
        assert_eq!((peers.len(), &peers[0]), (MAX_PEERS, &json!({ "address": "10.0.0.20", "last_seen_ms": 99 })));
        for port in 1..2 * MAX_PORTS as u16 {
            stats.plaintext(port, IpAddr::from([10, 0, 0, 1]), 0);
            stats.detected(port, "http1");
            stats.detected_outbound(port, "http1");
        }
        assert_eq!((0..100).filter(|_| stats.refused("plaintext", 5_000)).count(), MAX_TOLD as usize);
        assert!(stats.refused("plaintext", 6_000));
        let mut page = TextWriter::new();
        stats.expose(&mut page);
        let text = page.finish();
        assert!(text.contains("heddle_mesh_refused_connections_total{reason=\"plaintext\"} 101"), "{text}");
        assert!(
            text.contains("heddle_mesh_plaintext_connections_total{port=\"0\"}") && text.lines().count() < 3 * MAX_PORTS + 20
        );
    }
}
