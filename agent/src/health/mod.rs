//! Health of endpoints: one view of each, from real traffic, probes of our own, discovery and what other nodes say, and what follows from it. It chooses no
//! endpoint.
//!
//! An unknown endpoint counts as healthy. Real traffic ejects it by thresholds (`passive`); probes (`active`) eject it and bring it back. An endpoint that
//! traffic ejected comes back by probes where this node probes it. Otherwise it waits 10 s, twice as long after each further ejection up to 5 min, and is then
//! half open: one request at a time tries it, enough successes in a row bring it back, one failure ejects it again.
//!
//! Probes are shared out among nodes of one role, group and zone; what they find is a hint to the others, who believe most of those who check an endpoint,
//! unless it has just answered themselves, and never for more than a part of an upstream.

mod clamp;
mod evidence;
mod fellows;
mod judge;
mod peers;
mod probe;
mod record;
mod schedule;
#[cfg(test)]
mod tests;

pub use clamp::{Case, admitted};
pub use evidence::{Finding, Reason, Source};
pub use fellows::Fellows;
pub use judge::Judge;
pub use peers::Peers;
pub use probe::Probe;
pub use record::{Change, EndpointHealth, Look, Rules};
pub use schedule::Schedule;
