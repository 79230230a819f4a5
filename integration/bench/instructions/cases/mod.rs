//! Everything that is counted, by name.

mod balance;
mod filters;
mod gateway;
mod heads;
mod http2;
mod plugins;
mod routes;
mod yardstick;

use crate::subject::Subject;

/// One thing that is counted.
pub struct Case {
    /// `group/what`.
    pub name: &'static str,
    /// Rounds that are counted.
    pub rounds: usize,
    /// Another case whose count is taken off: what is around the thing itself.
    pub less: Option<&'static str>,
    /// Makes it; not counted.
    pub make: fn() -> Box<dyn Subject>,
}

/// All cases but the yardsticks, in the order in which they are shown.
pub fn all() -> Vec<Case> {
    [routes::cases(), filters::cases(), plugins::cases(), heads::cases(), balance::cases(), gateway::cases(), http2::cases()]
        .into_iter()
        .flatten()
        .collect()
}

/// Loops of known length, which prove that a worse count is refused.
pub fn yardsticks() -> Vec<Case> {
    yardstick::cases()
}

/// The case of this name.
pub fn find(name: &str) -> Option<Case> {
    all().into_iter().chain(yardsticks()).find(|case| case.name == name)
}
