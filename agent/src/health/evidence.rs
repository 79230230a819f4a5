//! What is known of one endpoint, from whom, and what follows from it: values only, no locks and no clocks.
//!
//! Whoever takes an endpoint out is believed in this order: discovery, since it knows what is meant to be there; this node's own traffic and probes; and
//! last what other nodes say, which never outweighs what this node has seen for itself.

use std::sync::Arc;

use heddle_xds::model::EndpointStatus;
use tokio::time::Instant;

use crate::balance::State;

/// What a request or a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// It answered with this status.
    Status(u16),
    /// A connection stood (TCP probes).
    Connected,
    /// It could not be connected to, cut the connection or answered with nonsense.
    Broken,
    /// It did not answer in time.
    TimedOut,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Finding::Status(status) => write!(f, "status {status}"),
            Finding::Connected => f.write_str("connected"),
            Finding::Broken => f.write_str("connection failed"),
            Finding::TimedOut => f.write_str("timed out"),
        }
    }
}

/// Why a state changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Real traffic.
    Traffic,
    /// A probe.
    Probe,
    /// The wait after an ejection is over.
    Waited,
    /// Checks were switched off.
    Unchecked,
    /// What discovery says.
    Discovery,
    /// What other nodes have found.
    Fleet,
}

impl Cause {
    /// Its name for people and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Traffic => "traffic",
            Cause::Probe => "probe",
            Cause::Waited => "waited",
            Cause::Unchecked => "unchecked",
            Cause::Discovery => "discovery",
            Cause::Fleet => "fleet",
        }
    }
}

/// What this node has found out itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own {
    /// What follows from it alone.
    pub state: State,
    /// What it is.
    pub cause: Cause,
    /// What was found last before it changed.
    pub finding: Option<Finding>,
    /// Since when.
    pub since: Instant,
}

/// What enough of those who check it say: that it is down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// Ids of the nodes that say so.
    pub by: Arc<[Arc<str>]>,
    /// Since when they are believed.
    pub since: Instant,
}

/// All that is known of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// What this node has found out itself.
    pub own: Own,
    /// What discovery says.
    pub told: EndpointStatus,
    /// Since when it says so.
    pub told_since: Instant,
    /// What other nodes say, where it counts.
    pub doubt: Option<Doubt>,
    /// The member of the fleet that it is has said that it is about to leave: its id, and since when that is known.
    pub leaving: Option<(Arc<str>, Instant)>,
}

/// Who gives a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// Discovery says that it does not work.
    Discovery,
    /// Discovery says that it is about to leave.
    Drain,
    /// Probes of this node.
    Probe,
    /// Requests of this node.
    Traffic,
    /// Probes of other nodes.
    Fleet,
}

impl Source {
    /// Its name for people and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Discovery => "discovery",
            Source::Drain => "drain",
            Source::Probe => "probe",
            Source::Traffic => "traffic",
            Source::Fleet => "fleet",
        }
    }
}

/// One reason why an endpoint is not simply up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Who gives it.
    pub source: Source,
    /// What was found, where this node found it.
    pub finding: Option<Finding>,
    /// Since when.
    pub since: Instant,
    /// Ids of the nodes that say so, where others do.
    pub by: Arc<[Arc<str>]>,
}

impl Evidence {
    /// Healthy, as everything unknown.
    pub fn new(now: Instant) -> Evidence {
        let own = Own { state: State::Up, cause: Cause::Unchecked, finding: None, since: now };
        Evidence { own, told: EndpointStatus::Unknown, told_since: now, doubt: None, leaving: None }
    }

    /// What balancing is to do.
    pub fn verdict(&self) -> State {
        if self.told == EndpointStatus::Unhealthy || self.doubt.is_some() { State::Down } else { self.own.state }
    }

    /// Whether it is about to leave: it gets nothing new, but keeps what it has.
    pub fn is_draining(&self) -> bool {
        self.told == EndpointStatus::Draining || self.leaving.is_some()
    }

    /// All reasons, those that weigh most first; none for an endpoint that is up.
    pub fn reasons(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let nobody: Arc<[Arc<str>]> = Arc::default();
        let mut add = |source, finding, since, by| reasons.push(Reason { source, finding, since, by });
        match self.told {
            EndpointStatus::Unhealthy => add(Source::Discovery, None, self.told_since, nobody.clone()),
            EndpointStatus::Draining => add(Source::Drain, None, self.told_since, nobody.clone()),
            EndpointStatus::Unknown | EndpointStatus::Healthy => {}
        }
        if let Some((id, since)) = &self.leaving {
            add(Source::Drain, None, *since, [id.clone()].into());
        }
        if self.own.state != State::Up {
            let source = if self.own.cause == Cause::Probe { Source::Probe } else { Source::Traffic };
            add(source, self.own.finding, self.own.since, nobody);
        }
        if let Some(doubt) = &self.doubt {
            add(Source::Fleet, None, doubt.since, doubt.by.clone());
        }
        reasons
    }
}
