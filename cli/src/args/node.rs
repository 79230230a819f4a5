//! What a single node can be asked: its members and its endpoints. It only describes; nothing is done here.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};

/// `heddle members`.
#[derive(Debug, Args)]
pub struct MembersArgs {
    /// Whom to ask: an agent's admin endpoint, or the Admin API of a control plane (127.0.0.1:9180)
    #[arg(long, default_value = "127.0.0.1:15000", value_name = "ADDRESS")]
    pub at: SocketAddr,
    /// Admin key, which a control plane wants
    #[arg(long, env = "HEDDLE_ADMIN_KEY", value_name = "KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Shape,
}

/// `heddle endpoints`.
#[derive(Debug, Args)]
pub struct EndpointsArgs {
    /// Name of an upstream (`web`, `upstreams/web`, `mesh/shop/cart`); all when absent
    pub upstream: Option<String>,
    /// The agent's admin endpoint
    #[arg(long, default_value = "127.0.0.1:15000", value_name = "ADDRESS")]
    pub agent: SocketAddr,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Shape,
}

/// How what a node says is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// For people
    Table,
    /// For programs
    Json,
}
