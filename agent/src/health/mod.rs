//! Health of endpoints: what real traffic and probes of our own say, and what follows from it. It chooses no endpoint.
//!
//! An unknown endpoint counts as healthy. Real traffic ejects it by thresholds (`passive`); probes (`active`) eject it and bring it back. An endpoint that
//! traffic ejected comes back by probes where they are configured. Otherwise it waits 10 s, twice as long after each further ejection up to 5 min, and is then
//! half open: one request at a time tries it, enough successes in a row bring it back, one failure ejects it again.

mod judge;
mod probe;
mod record;
mod schedule;
#[cfg(test)]
mod tests;

pub use judge::Judge;
pub use probe::Probe;
pub use record::{Change, EndpointHealth, Finding, Rules};
pub use schedule::Schedule;
