//! What can be said about identities: the authority and the tokens by which services join. It only describes.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Output, ServerArgs};

/// `heddle ca`.
#[derive(Debug, Args)]
pub struct CaArgs {
    /// What to do
    #[command(subcommand)]
    pub command: CaCommand,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// What to do with the authority.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Show the roots, who holds them, and what a rotation waits for
    Show {
        /// How to print
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
    /// Replace the root without an outage: the new one signs once every connected node has it
    Rotate {
        /// Take a rotation back that has not begun to sign with the new root
        #[arg(long, conflicts_with = "force")]
        cancel: bool,
        /// Sign with the new root now, although nodes do not have it: they refuse what it signs until they do
        #[arg(long)]
        force: bool,
    },
    /// Print the roots of the trust domain as PEM: for `controlplane.bundle` of agents, `--bundle` of this command, and partners
    Export,
    /// Show which identities were signed and which were refused, newest first
    Audit {
        /// Most entries
        #[arg(short = 'n', long, default_value_t = 20)]
        limit: u32,
        /// Only refusals
        #[arg(long)]
        refused: bool,
        /// How to print
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
}

/// `heddle token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// What to do
    #[command(subcommand)]
    pub command: TokenCommand,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// What to do with join tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a one-time token by which one service joins, and print it; it is shown only this once
    Create {
        /// Service whose identity the token gives
        #[arg(long, value_name = "NAME", required_unless_present = "gateway")]
        service: Option<String>,
        /// The same for a gateway, under the name that it has as a service
        #[arg(long, value_name = "NAME", conflicts_with = "service")]
        gateway: Option<String>,
        /// Namespace of the service
        #[arg(long, default_value = "default")]
        namespace: String,
        /// How long the token can be used, for example 10m; the control plane's `identity.token_ttl` when absent
        #[arg(long, value_parser = duration)]
        ttl: Option<Duration>,
    },
    /// Show tokens, without what proves them
    List {
        /// How to print
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
    /// Make a token worthless; who joined with it keeps its identity until that expires
    Revoke {
        /// Id of the token, as `heddle token list` shows it
        id: String,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    heddle_node::config::parse_duration(text).ok_or_else(|| "expected a duration such as 90s, 10m or 2h".to_owned())
}
