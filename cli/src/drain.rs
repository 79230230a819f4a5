//! `heddle drain`: asks the agent on this host to drain. It speaks to loopback only, as the agent answers nobody else.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use heddle_node::token::{self, Token};
use heddle_sidecar::inject::DATA;

use crate::ask::Question;

/// Most of an answer.
const MOST_ANSWER: u64 = 64 * 1024;

/// `heddle drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The agent's admin endpoint
    #[arg(long, default_value = "127.0.0.1:15000", value_name = "ADDRESS")]
    pub agent: SocketAddr,
    /// The node.data_dir of the agent, which a sidecar wants to see that you may read
    #[arg(long, default_value = DATA, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Close only what others call, wait until it has ended, and leave what goes out alone
    #[arg(long)]
    pub inbound: bool,
    /// Longest wait, in seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
}

/// Asks, and waits for the answer.
///
/// # Errors
/// Nobody answers, or it refuses.
pub fn run(args: &DrainArgs) -> Result<String, String> {
    let target = if args.inbound { "/drain?inbound" } else { "/drain" };
    // Gateways, which stand beside nobody, want none; whoever wants one says so.
    let token = Token::read(&args.data_dir);
    let shown = token.as_ref().ok().map(Token::text);
    let patience = Duration::from_secs(args.timeout);
    let question = Question { at: args.agent, method: "POST", target, key: None, token: shown, patience, most: MOST_ANSWER };
    let answer = question.ask().map_err(|error| {
        format!("the agent at {} does not answer: {error}; is it running, and is --agent its agent.admin?", args.agent)
    })?;
    if (200..300).contains(&answer.status) {
        Ok(answer.body)
    } else {
        let unread = token.err().map(|error| format!("; {}: {error}", token::path(&args.data_dir).display())).unwrap_or_default();
        Err(format!("the agent refuses to drain: {} {}{unread}", answer.status, answer.body.trim()))
    }
}
