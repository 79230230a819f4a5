//! Rights that one process has at a time. Who holds one and what for is not known here.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;

/// The rights that say which control planes are there begin with this.
pub const PRESENT: &str = "replica/";

/// Who has a right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// Whoever asked, for the time that was asked for, from the moment of asking.
    Ours,
    /// Somebody else, by name.
    Others(String),
}

/// Rights that end by themselves.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Takes or renews the right `name` for `holder`; the others can have it after `ttl`.
    async fn hold(&self, name: &str, holder: &str, ttl: Duration) -> Result<Hold, StoreError>;
    /// The rights that somebody has and whose names begin with `prefix`, without it.
    async fn held(&self, prefix: &str) -> Result<Vec<String>, StoreError>;
    /// Gives the right up, so that others can have it at once. Nothing happens when it is not held.
    async fn release(&self, name: &str) -> Result<(), StoreError>;
}
