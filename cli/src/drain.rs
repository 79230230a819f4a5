//! `heddle drain`: asks the agent on this host to drain. It speaks to loopback only, as the agent answers nobody else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clap::Args;

/// How long the agent may not answer at all before this gives up; draining itself may take as long as the agent lets it.
const CONNECT: Duration = Duration::from_secs(5);
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
    let failed = |error: std::io::Error| {
        format!("the agent at {} does not answer: {error}; is it running, and is --agent its agent.admin?", args.agent)
    };
    let mut stream = TcpStream::connect_timeout(&args.agent, CONNECT).map_err(failed)?;
    stream.set_read_timeout(Some(Duration::from_secs(args.timeout))).map_err(failed)?;
    let target = if args.inbound { "/drain?inbound" } else { "/drain" };
    let request = format!("POST {target} HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", args.agent);
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(MOST_ANSWER).read_to_end(&mut answer).map_err(failed)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status.starts_with('2') {
        Ok(body.to_owned())
    } else {
        Err(format!("the agent refuses to drain: {status} {}", body.trim()))
    }
}
