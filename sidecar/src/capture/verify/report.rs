//! What was found when capture was tried, in words. It tries nothing.

use std::fmt;
use std::net::SocketAddr;

use super::kernel::Transport;
use super::places::Family;

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct What {
    pub(super) family: Family,
    pub(super) kind: Kind,
}

/// What is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Connection,
    Question,
    QuestionByTcp,
}

impl Kind {
    pub(super) fn transport(self) -> Transport {
        match self {
            Kind::Question => Transport::Udp,
            Kind::Connection | Kind::QuestionByTcp => Transport::Tcp,
        }
    }
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It arrived where it should: at a door that somebody has, or at one of our own where an agent will be.
    Arrived { to: SocketAddr, door: SocketAddr, is_taken: bool },
    /// It did not.
    Failed { to: SocketAddr, door: SocketAddr, why: String },
    /// Nobody listens where an agent should.
    NoAgent { door: SocketAddr },
    /// There was nothing to be tried.
    NotTried(&'static str),
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) what: What,
    pub(super) outcome: Outcome,
}

/// All of them; one a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub(super) findings: Vec<Finding>,
    /// The port for what comes in, where an agent should listen and nobody does.
    pub(super) closed: Option<u16>,
    /// What can be said of what comes in, which only another host can try.
    pub(super) inbound: Option<&'static str>,
}

impl Report {
    /// What is not as it should be.
    pub(in crate::capture) fn failures(&self) -> Vec<String> {
        let failed =
            self.findings.iter().filter(|finding| matches!(finding.outcome, Outcome::Failed { .. } | Outcome::NoAgent { .. }));
        let closed = self.closed.map(|port| {
            format!(
                "inbound: no agent listens at port {port}: start it, with `service.address`, and let its `inbound.address` have the port that capture.inbound_port names (`off` where nobody calls this host)"
            )
        });
        failed.map(ToString::to_string).chain(closed).collect()
    }

    /// Whether anything that was sent did not arrive as it should: then others may have a hand in it.
    pub(in crate::capture) fn is_defeated(&self) -> bool {
        self.findings.iter().any(|finding| matches!(finding.outcome, Outcome::Failed { .. }))
    }

    /// What was seen; one a line.
    #[must_use]
    pub fn seen(&self) -> String {
        let found = self.findings.iter().map(|finding| format!("{finding}\n"));
        found.chain(self.inbound.map(|said| format!("inbound: {said}\n"))).collect()
    }

    /// What whoever relies on it should know, if nothing that goes out was tried.
    #[must_use]
    pub fn warning(&self) -> Option<&'static str> {
        let is_untried = |finding: &Finding| matches!(finding.outcome, Outcome::NotTried(_));
        let nothing = !self.findings.is_empty() && self.findings.iter().all(is_untried);
        nothing.then_some(
            "nothing outbound was tried: whether what goes out is captured is not known; `heddle capture verify` tries again, once this host has a way out that is captured",
        )
    }

    /// Says of what comes in what is known.
    pub(in crate::capture) fn inbound(&mut self, is_in_force: bool) {
        self.inbound = Some(if is_in_force {
            "its rules are in force; more can be seen by a call from another host only, as what this host sends to itself is never captured"
        } else {
            "not tried: its rules cannot be seen by this user, and what this host sends to itself is never captured"
        });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.seen())?;
        self.warning().map_or(Ok(()), |said| writeln!(out, "warning: {said}"))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.what;
        match &self.outcome {
            Outcome::Arrived { to, door, is_taken } => {
                let by = match (is_taken, what.kind) {
                    (false, _) => "",
                    (true, Kind::Question) => ", where somebody answers as an agent does",
                    (true, _) => ", where somebody listens already",
                };
                write!(out, "{what} to {to} arrived at {door}{by}")
            }
            Outcome::Failed { to, door, why } => write!(out, "{what} to {to} should have arrived at {door}, but {why}"),
            Outcome::NoAgent { door } => write!(
                out,
                "{what}: no agent listens at {door}: start it, with `outbound.capture` on, and let its `outbound.capture_address` and `outbound.dns` have the ports that capture.outbound_port and capture.dns_port name"
            ),
            Outcome::NotTried(why) => write!(out, "{what}: not tried: {why}"),
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        let kind = match self.kind {
            Kind::Connection => "a connection",
            Kind::Question => "a question for a name (UDP)",
            Kind::QuestionByTcp => "a question for a name (TCP)",
        };
        write!(out, "{family}: {kind}")
    }
}
