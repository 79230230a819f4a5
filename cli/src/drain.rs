//! `heddle drain`: asks the agent on this host to drain. It speaks to loopback only, as the agent answers nobody else.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use crate::ask::Question;

/// Most of an answer.
const MOST_ANSWER: u64 = 64 * 1024;

/// `heddle drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The agent's admin endpoint
    #[arg(long, default_value = "127.0.0.1:15000", value_name = "ADDRESS")]
    pub agent: SocketAddr,
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
    let patience = Duration::from_secs(args.timeout);
    let question = Question { at: args.agent, method: "POST", target, key: None, patience, most: MOST_ANSWER };
    let answer = question.ask().map_err(|error| {
        format!("the agent at {} does not answer: {error}; is it running, and is --agent its agent.admin?", args.agent)
    })?;
    if (200..300).contains(&answer.status) {
        Ok(answer.body)
    } else {
        Err(format!("the agent refuses to drain: {} {}", answer.status, answer.body.trim()))
    }
}
