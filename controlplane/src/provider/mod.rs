//! Where configuration comes from besides the Admin API. A provider reports what its sources hold; it knows neither the store nor what becomes of it.

mod consul;
mod feed;
mod file;
mod fixed;
mod metrics;
mod supervise;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use heddle_node::drain::DrainWatch;
use tokio::sync::mpsc;

use crate::state::Update;

pub use consul::{ConsulProvider, Memory, check_constraints};
pub use feed::{Providers, start};
pub use file::{FileProvider, Timing, check_files};
pub use fixed::FixedProvider;
pub use metrics::SourceMetrics;

/// Updates that must be judged together: resources of one may refer to resources of another, or have moved between them.
pub type Batch = Vec<Update>;

/// Why a provider cannot go on for now; it is started again after a while. What it reported before stays.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ProviderError(pub String);

/// One place where configuration comes from.
#[async_trait]
pub trait Provider: Send {
    /// Its name, the part behind `@` of its resources.
    fn name(&self) -> &str;

    /// Reports what its sources hold, first everything (even when that is nothing), then what changes, until `shutdown` drains or `updates` closes.
    ///
    /// # Errors
    /// It cannot go on; it will be run again.
    async fn run(&mut self, updates: mpsc::Sender<Batch>, shutdown: DrainWatch) -> Result<(), ProviderError>;
}
