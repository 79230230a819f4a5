//! A circuit breaker as Traefik's: a condition over the last ten seconds opens it, and it closes by and by. It knows no requests and no clock.

mod condition;
mod machine;
mod window;

pub(super) use condition::Condition;
pub(super) use machine::{Machine, Spans};
pub(super) use window::Seen;
