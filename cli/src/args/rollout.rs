//! How new versions spread over groups of nodes. It only describes; nothing is done here.

use clap::{Args, Subcommand};

use super::{Output, ServerArgs};

/// `heddle rollout`.
#[derive(Debug, Args)]
pub struct RolloutArgs {
    /// What to do
    #[command(subcommand)]
    pub command: RolloutCommand,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// What is asked of it.
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// Show groups of nodes, their canaries, and what is held from them since a node refused it
    Status {
        /// For example `gateway/envoy`; all when absent
        group: Option<String>,
        /// How to print
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
    /// Give all nodes of a group what is held from them, although a node refused it
    Resume {
        /// For example `gateway/envoy`
        group: String,
    },
}
