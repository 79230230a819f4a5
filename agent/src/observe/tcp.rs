//! What is counted of connections whose bytes nobody looks into, by the listener that took them.

use std::sync::Arc;

use super::{Counter, Sharded, TextWriter};
use crate::exchange::Reason;

/// One worker's share; only that worker adds.
#[derive(Debug)]
pub struct TcpShard {
    /// Connections that were led to an upstream, or refused.
    pub connections: Counter,
    /// Those that are open.
    pub active: Counter,
    /// Bytes from clients.
    pub bytes_in: Counter,
    /// Bytes to clients.
    pub bytes_out: Counter,
    /// Endpoints that were tried after the first.
    pub retries: Counter,
    /// Those that ended badly, by reason.
    reasons: Box<[Counter]>,
}

impl Default for TcpShard {
    fn default() -> TcpShard {
        TcpShard {
            connections: Counter::default(),
            active: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            retries: Counter::default(),
            reasons: Reason::ALL.iter().map(|_| Counter::default()).collect(),
        }
    }
}

impl TcpShard {
    /// Counts how one ended.
    pub fn ended(&self, reason: Reason) {
        self.reasons[reason as usize].inc();
    }
}

/// What is counted of one listener; it outlives changes of the listener.
pub type TcpStats = Sharded<TcpShard>;

/// Writes the families of these listeners.
pub fn expose(page: &mut TextWriter, listeners: &[(&Arc<str>, &TcpStats)]) {
    if listeners.is_empty() {
        return;
    }
    let sum = |stats: &TcpStats, of: fn(&TcpShard) -> &Counter| {
        stats.iter().map(|shard| of(shard).get()).fold(0, u64::wrapping_add) as f64
    };
    let mut family = |name: &str, kind: &str, help: &str, of: fn(&TcpShard) -> &Counter| {
        page.family(name, kind, help);
        for (listener, stats) in listeners {
            page.sample(name, &[("listener", listener)], sum(stats, of));
        }
    };
    family("heddle_tcp_connections_total", "counter", "Connections of TCP listeners.", |shard| &shard.connections);
    family("heddle_tcp_connections_open", "gauge", "Connections of TCP listeners that are open.", |shard| &shard.active);
    family("heddle_tcp_retries_total", "counter", "Endpoints that were tried after the first.", |shard| &shard.retries);
    page.family("heddle_tcp_bytes_total", "counter", "Bytes of TCP listeners by direction.");
    for (listener, stats) in listeners {
        page.sample(
            "heddle_tcp_bytes_total",
            &[("listener", listener), ("direction", "in")],
            sum(stats, |shard| &shard.bytes_in),
        );
        page.sample(
            "heddle_tcp_bytes_total",
            &[("listener", listener), ("direction", "out")],
            sum(stats, |shard| &shard.bytes_out),
        );
    }
    page.family("heddle_tcp_reasons_total", "counter", "Connections of TCP listeners that ended badly, by reason flag.");
    for (listener, stats) in listeners {
        for reason in Reason::ALL.iter().filter(|reason| **reason != Reason::None) {
            let count = stats.iter().map(|shard| shard.reasons[*reason as usize].get()).fold(0, u64::wrapping_add);
            if count > 0 {
                page.sample("heddle_tcp_reasons_total", &[("listener", listener), ("reason", reason.flag())], count as f64);
            }
        }
    }
}
