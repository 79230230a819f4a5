//! `heddle sidecar -- app`: an application and the agent beside it as one process to whoever started it. What life they have is decided in `life.rs`, a
//! function of values; the rest does it.

mod agent;
mod life;
mod orphans;
mod run;

#[cfg(test)]
mod tests;

pub use agent::ADMIN;
pub use life::Times;
pub use run::{Captured, Plan, User, WrapperError, run};
