//! What a member says of itself, and the members together as they were known at one moment. Values only.

use std::net::SocketAddr;
use std::sync::Arc;

/// What a member says of itself. Everything in it is bounded by those who publish and again by those who read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// What it is: `controlplane`, `gateway` or `sidecar`.
    pub role: Arc<str>,
    /// Nodes of one role and group have the same configuration and share work.
    pub group: Arc<str>,
    /// Locality zone, empty when unknown.
    pub zone: Arc<str>,
    /// The cell in which this is said, empty where there is one only.
    pub cell: Arc<str>,
    /// Where its gossip is reached.
    pub address: Option<SocketAddr>,
    /// Version of its program.
    pub version: Arc<str>,
    /// Version of the configuration that it holds, empty before the first.
    pub config_version: Arc<str>,
    /// How busy it is.
    pub load: NodeLoad,
    /// Whether it is about to leave.
    pub draining: bool,
    /// Whether it sees the store that it shares with others, of a control plane that shares one.
    pub sees_store: Option<bool>,
    /// Ports of its own address at which it takes requests.
    pub ports: Arc<[u16]>,
    /// When its checks of endpoints were last known to run, Unix seconds by its own clock in steps; 0 while it has none to run.
    pub checked_s: u64,
    /// What it has found out about endpoints by checks of its own.
    pub observations: Arc<[Observation]>,
    /// Its requests in flight at the busiest endpoints.
    pub loads: Arc<[EndpointLoad]>,
    /// What it has let through of limits that the fleet shares.
    pub uses: Arc<[LimitUse]>,
    /// Other cells that it is a member of, in short.
    pub cells: Arc<[Cell]>,
}

/// A cell in short, as a control plane sees it that is a member of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    /// Its name.
    pub name: Arc<str>,
    /// Members that are heard.
    pub alive: u32,
    /// Members that are suspected.
    pub suspect: u32,
    /// Members that are taken for dead.
    pub dead: u32,
    /// Members that have said good-bye.
    pub left: u32,
    /// Some of its members, those that are not well first.
    pub members: Arc<[CellMember]>,
}

/// A member of another cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellMember {
    /// Id of its node.
    pub id: Arc<str>,
    /// What it is.
    pub role: Arc<str>,
    /// Its zone, empty when unknown.
    pub zone: Arc<str>,
    /// How it stands.
    pub state: MemberState,
}

/// How busy a node is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeLoad {
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests a second, of late.
    pub requests_per_second: u32,
}

/// What a check has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Seen {
    /// It answers as it should.
    Up,
    /// It does not.
    Down,
}

/// What a member has found out about one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Observation {
    /// Name of the upstream.
    pub upstream: Arc<str>,
    /// The endpoint.
    pub endpoint: SocketAddr,
    /// What was found.
    pub seen: Seen,
    /// Since when that holds, Unix milliseconds by the observer's clock.
    pub since_ms: u64,
}

/// Requests of one member in flight at one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointLoad {
    /// Name of the upstream.
    pub upstream: Arc<str>,
    /// The endpoint.
    pub endpoint: SocketAddr,
    /// How many.
    pub in_flight: u32,
}

/// What one member has let through of one shared limit in one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LimitUse {
    /// Hash of the limit and its key: keys are addresses and names of users, which are nobody else's business.
    pub key: u64,
    /// Start of the window, Unix milliseconds.
    pub window_ms: u64,
    /// How many requests were let through.
    pub used: u32,
}

/// How a member stands, as seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// It is heard.
    Alive,
    /// It has not been heard for longer than it usually takes.
    Suspect,
    /// It is taken for dead.
    Dead,
    /// It said good-bye.
    Left,
}

impl MemberState {
    /// All of them.
    pub const ALL: [MemberState; 4] = [MemberState::Alive, MemberState::Suspect, MemberState::Dead, MemberState::Left];

    /// Its name for people and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            MemberState::Alive => "alive",
            MemberState::Suspect => "suspect",
            MemberState::Dead => "dead",
            MemberState::Left => "left",
        }
    }
}

/// One member.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Id of its node, unique in the fleet.
    pub id: Arc<str>,
    /// What it said last.
    pub facts: Arc<Facts>,
    /// How it stands.
    pub state: MemberState,
    /// When it was heard last, Unix milliseconds by our clock.
    pub last_seen_ms: u64,
}

impl Member {
    /// Whether it can be counted on: heard of late, and not about to leave.
    pub fn is_serving(&self) -> bool {
        matches!(self.state, MemberState::Alive | MemberState::Suspect) && !self.facts.draining
    }
}

/// All members, as they were known at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fleet {
    /// Id of this node.
    pub own: Arc<str>,
    /// Every member, this node too, by id.
    pub members: Vec<Member>,
}

impl Fleet {
    /// Members of a role and group that can be counted on, this node too when it is one of them.
    pub fn serving<'a>(&'a self, role: &'a str, group: &'a str) -> impl Iterator<Item = &'a Member> {
        self.members
            .iter()
            .filter(move |member| member.is_serving() && &*member.facts.role == role && &*member.facts.group == group)
    }

    /// The member of this id.
    pub fn get(&self, id: &str) -> Option<&Member> {
        self.members.iter().find(|member| &*member.id == id)
    }
}
