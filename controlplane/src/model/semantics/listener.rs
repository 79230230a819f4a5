//! What the schema of a listener cannot say.

use super::super::Fault;
use super::super::resources::{Limits, Listener};

/// A head smaller than this serves no browser.
const SMALLEST_HEAD: u64 = 512;
/// Largest request head that may be allowed.
const LARGEST_HEAD: u64 = 16 << 20;

/// Limits that contradict each other or would let nobody in.
pub(super) fn check(listener: &Listener, faults: &mut Vec<Fault>) {
    let limits = &listener.limits;
    sizes(limits, faults);
    for (name, span) in [
        ("header_timeout", limits.header_timeout),
        ("idle_timeout", limits.idle_timeout),
        ("body_timeout", limits.body_timeout),
        ("send_timeout", limits.send_timeout),
        ("handshake_timeout", limits.handshake_timeout),
    ] {
        if span.is_some_and(|span| span.0.is_zero()) {
            faults.push(Fault::new(
                format!("limits.{name}"),
                "expected a time above 0: a client that may stall forever holds memory forever",
            ));
        }
    }
}

fn sizes(limits: &Limits, faults: &mut Vec<Fault>) {
    for (name, size) in [
        ("max_header_bytes", limits.max_header_bytes),
        ("max_field_bytes", limits.max_field_bytes),
        ("max_uri_bytes", limits.max_uri_bytes),
    ] {
        if let Some(size) = size.filter(|size| !(SMALLEST_HEAD..=LARGEST_HEAD).contains(&size.0)) {
            faults.push(Fault::new(format!("limits.{name}"), format!("expected {SMALLEST_HEAD} bytes to 16MiB, got {}", size.0)));
        }
    }
}
