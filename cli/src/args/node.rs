//! What a single node can be asked: its members and its endpoints. It only describes; nothing is done here.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

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

/// `heddle mesh`.
#[derive(Debug, Args)]
pub struct MeshArgs {
    /// What to show
    #[command(subcommand)]
    pub command: MeshCommand,
    /// The Admin API of a control plane
    #[arg(long, default_value = "127.0.0.1:9180", value_name = "ADDRESS", global = true)]
    pub at: SocketAddr,
    /// Admin key; without it the one generated below --data-dir is read
    #[arg(long, env = "HEDDLE_ADMIN_KEY", value_name = "KEY", hide_env_values = true, global = true)]
    pub key: Option<String>,
    /// Where a control plane on this machine keeps its data
    #[arg(long, env = "HEDDLE_DATA_DIR", default_value = "./heddle-data", value_name = "DIR", global = true)]
    pub data_dir: PathBuf,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table", global = true)]
    pub output: Shape,
}

/// What of the mesh is shown. All filters must hold.
#[derive(Debug, Subcommand)]
pub enum MeshCommand {
    /// Services: their protocol, the address of their name, instances, and what is wrong with them
    Services {
        /// `cart` in any namespace, or `shop/cart`; all when absent
        service: Option<String>,
        /// Only of this namespace
        #[arg(short, long, value_name = "NS")]
        namespace: Option<String>,
        /// Only those with a fault, or without any instance that is live
        #[arg(long)]
        faulty: bool,
    },
    /// Instances of services: where they are, their zone, version, labels, state and since when
    Instances {
        /// `cart` in any namespace, or `shop/cart`; all when absent
        service: Option<String>,
        /// Only of this namespace
        #[arg(short, long, value_name = "NS")]
        namespace: Option<String>,
        /// Only in this zone
        #[arg(long)]
        zone: Option<String>,
        /// Only of the sidecar with this node id
        #[arg(long, value_name = "ID")]
        node: Option<String>,
        /// Only in this state
        #[arg(long, value_enum)]
        state: Option<InstanceState>,
    },
}

/// How an instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InstanceState {
    /// Its sidecar is connected
    Live,
    /// It takes no new requests
    Draining,
    /// Its sidecar was lost a moment ago
    Missing,
    /// Many were lost at once, so it is kept
    Doubted,
    /// Known from before the control plane restarted
    Remembered,
}

impl InstanceState {
    /// As the Admin API has it.
    pub fn name(self) -> &'static str {
        match self {
            InstanceState::Live => "live",
            InstanceState::Draining => "draining",
            InstanceState::Missing => "missing",
            InstanceState::Doubted => "doubted",
            InstanceState::Remembered => "remembered",
        }
    }
}

/// How what a node says is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// For people
    Table,
    /// For programs
    Json,
}
