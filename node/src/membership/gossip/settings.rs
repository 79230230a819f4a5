//! `gossip:` in `heddle.yaml`: where this node gossips, with whom it begins, and how soon who is silent is taken for dead.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::codec::MAX_CELLS;
use crate::config::Section;

/// The most nodes that flat gossip carries, the dead that are not forgotten yet among them: a digest names them all and has to fit one message of 64 KiB.
pub const MAX_MEMBERS: usize = 1_000;
/// The port that gossip has unless told otherwise.
pub const DEFAULT_PORT: u16 = 7_946;
/// A round a second: what is said is known everywhere within a few seconds, and costs little.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// Silent for eight times as long as usual: in a fleet that loses 5 % of its messages nobody alive is taken for dead.
const DEFAULT_PHI: f64 = 8.0;
/// Long enough to see in `heddle members` what has happened, short enough for fleets whose nodes come and go.
const DEFAULT_FORGET_AFTER: Duration = Duration::from_secs(600);
/// The shortest and the longest interval.
const INTERVALS: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(60)];
/// The fewest intervals after which the dead may be forgotten: all have to know that they are dead.
const FORGET_INTERVALS: u32 = 30;
/// The longest name of a cluster, a cell or a group.
const MAX_NAME: usize = 128;
/// The most seeds.
pub const MAX_SEEDS: usize = 64;

/// How a node gossips.
#[derive(Debug, Clone, PartialEq)]
pub struct GossipSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where others reach it; `None`: where it listens, or the address by which it reaches others.
    pub advertise: Option<SocketAddr>,
    /// Whom it asks first, `host:port` each.
    pub seeds: Vec<String>,
    /// Between two rounds.
    pub interval: Duration,
    /// How many times as long as usual a member may be silent before it is taken for dead; half of it before it is suspected.
    pub phi_threshold: f64,
    /// After this the dead are forgotten.
    pub forget_after: Duration,
    /// Name of the fleet: others are not let in.
    pub cluster: String,
    /// Name of the cell: only nodes of one cell gossip with each other.
    pub cell: String,
    /// Nodes of one role and group have the same configuration and share work.
    pub group: String,
    /// The most members.
    pub max_members: usize,
    /// Further cells that a control plane is a member of.
    pub bridges: Vec<BridgeSettings>,
}

/// A further cell that a control plane is a member of.
#[derive(Debug, Clone, PartialEq)]
pub struct BridgeSettings {
    /// Its name.
    pub cell: String,
    /// Where this node listens for it.
    pub listen: SocketAddr,
    /// Where its members reach this node, as in the settings themselves.
    pub advertise: Option<SocketAddr>,
    /// Members of it to begin with.
    pub seeds: Vec<String>,
}

impl Default for GossipSettings {
    fn default() -> GossipSettings {
        GossipSettings {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), DEFAULT_PORT),
            advertise: None,
            seeds: Vec::new(),
            interval: DEFAULT_INTERVAL,
            phi_threshold: DEFAULT_PHI,
            forget_after: DEFAULT_FORGET_AFTER,
            cluster: "default".into(),
            cell: String::new(),
            group: "default".into(),
            max_members: MAX_MEMBERS,
            bridges: Vec::new(),
        }
    }
}

impl GossipSettings {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> GossipSettings {
        let usual = GossipSettings::default();
        let interval = section.duration("interval").unwrap_or(usual.interval);
        if !(INTERVALS[0]..=INTERVALS[1]).contains(&interval) {
            section.mistake("interval", "expected 50ms to 60s");
        }
        let forget_after = section.duration("forget_after").unwrap_or(usual.forget_after);
        if forget_after < interval * FORGET_INTERVALS {
            section.mistake("forget_after", format!("expected at least {FORGET_INTERVALS} times `interval`"));
        }
        let (cell, bridges) = (name(section, "cell").unwrap_or(usual.cell), bridges(section));
        let cells: BTreeSet<&str> = bridges.iter().map(|bridge| bridge.cell.as_str()).chain([cell.as_str()]).collect();
        if cells.len() <= bridges.len() {
            section.mistake("bridges", "expected other cells than the own one, each of them once");
        }
        GossipSettings {
            listen: section.socket_addr("listen").unwrap_or(usual.listen),
            advertise: advertise(section),
            seeds: seeds(section),
            interval,
            phi_threshold: section.float("phi_threshold", 2.0..=64.0).unwrap_or(usual.phi_threshold),
            forget_after,
            cluster: name(section, "cluster").unwrap_or(usual.cluster),
            cell,
            group: name(section, "group").unwrap_or(usual.group),
            max_members: section.count("max_members", 2..=MAX_MEMBERS as u32).unwrap_or(usual.max_members),
            bridges,
        }
    }

    /// The same in a further cell.
    #[must_use]
    pub fn in_cell(&self, bridge: &BridgeSettings) -> GossipSettings {
        let BridgeSettings { cell, listen, advertise, seeds } = bridge.clone();
        GossipSettings { cell, listen, advertise, seeds, bridges: Vec::new(), ..self.clone() }
    }

    /// What nodes must have in common to gossip with each other.
    #[must_use]
    pub fn cluster_id(&self) -> String {
        if self.cell.is_empty() { self.cluster.clone() } else { format!("{}/{}", self.cluster, self.cell) }
    }
}

fn advertise(section: &mut Section<'_>) -> Option<SocketAddr> {
    let advertise = section.socket_addr("advertise");
    if advertise.is_some_and(|address| address.ip().is_unspecified() || address.port() == 0) {
        section.mistake("advertise", "expected the address and port at which other nodes reach this one");
    }
    advertise
}

fn bridges(section: &mut Section<'_>) -> Vec<BridgeSettings> {
    let read = |section: &mut Section<'_>| {
        section.require("cell").require("listen");
        BridgeSettings {
            cell: name(section, "cell").unwrap_or_default(),
            listen: section.socket_addr("listen").unwrap_or(GossipSettings::default().listen),
            advertise: advertise(section),
            seeds: seeds(section),
        }
    };
    let bridges = section.list("bridges", read).unwrap_or_default();
    if bridges.len() > MAX_CELLS {
        section.mistake("bridges", format!("at most {MAX_CELLS} further cells for one control plane"));
    }
    bridges
}

fn seeds(section: &mut Section<'_>) -> Vec<String> {
    let seeds = section.strings("seeds").unwrap_or_default();
    if seeds.len() > MAX_SEEDS {
        section.mistake("seeds", format!("at most {MAX_SEEDS}; a few are enough, the rest is heard of"));
    }
    if let Some(odd) = seeds.iter().find(|seed| !is_seed(seed)) {
        section.mistake("seeds", format!("{odd:?}: expected host:port, such as gw-1.example.org:{DEFAULT_PORT}"));
    }
    seeds
}

/// Whether it is a host or an address, with a port.
#[must_use]
pub fn is_seed(seed: &str) -> bool {
    let host_and_port = seed.rsplit_once(':');
    let named = host_and_port.is_some_and(|(host, port)| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        !host.is_empty() && host.len() <= 253 && host.chars().all(plain) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    named || seed.parse::<SocketAddr>().is_ok_and(|address| address.port() > 0)
}

fn name(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    let name = section.string(key)?;
    if name.len() > MAX_NAME || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
        section.mistake(key, format!("expected a name of at most {MAX_NAME} bytes without spaces and slashes"));
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::{Document, Expansion, Format};

    fn read(text: &str) -> Result<GossipSettings, String> {
        let document = Document::parse("heddle.yaml", text, Format::Yaml, Expansion::Off).map_err(|m| m.to_string())?;
        document.read(GossipSettings::read).map_err(|m| m.to_string())
    }

    #[test]
    fn nothing_said_is_all_defaults() {
        assert_eq!(read("{}").unwrap(), GossipSettings::default());
    }

    #[test]
    fn everything_can_be_said() {
        let text = "listen: \"10.0.0.1:7000\"\nadvertise: \"192.0.2.1:7000\"\nseeds: [\"gw-1:7946\", \"[::1]:1\"]\ninterval: 200ms\nphi_threshold: 6\nforget_after: 1m\ncluster: prod\ncell: eu-1\ngroup: edge\nmax_members: 50";
        let settings = read(text).unwrap();
        assert_eq!((settings.cluster_id().as_str(), settings.max_members, settings.group.as_str()), ("prod/eu-1", 50, "edge"));
        assert_eq!(settings.seeds, ["gw-1:7946", "[::1]:1"]);
        assert_eq!(settings.interval, Duration::from_millis(200));
    }

    #[test]
    fn a_control_plane_may_be_in_several_cells() {
        let text = "cell: eu\nlisten: \"10.0.0.1:7000\"\ngroup: edge\nbridges:\n  - { cell: us, listen: \"10.0.0.1:7001\", seeds: [\"us-1:7946\"] }";
        let settings = read(text).unwrap();
        let other = settings.in_cell(&settings.bridges[0]);
        assert_eq!((other.cluster_id().as_str(), other.listen.port(), other.group.as_str()), ("default/us", 7_001, "edge"));
        assert_eq!((other.seeds, other.bridges), (vec!["us-1:7946".to_owned()], Vec::new()));
        for (bridges, mistake) in [("[ { cell: eu, listen: \"1.1.1.1:1\" } ]", "bridges:"), ("[ { cell: us } ]", "bridges[0]")] {
            let told = read(&format!("cell: eu\nbridges: {bridges}")).unwrap_err();
            assert!(told.contains(mistake), "{told}");
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let text = read(
            "seeds: [gw-1]\ninterval: 1ms\nforget_after: 1ms\ncell: a/b\nmax_members: 5000\nadvertise: \"0.0.0.0:1\"\nsead: x",
        )
        .unwrap_err();
        for part in ["seeds: \"gw-1\"", "interval: expected 50ms", "forget_after", "cell:", "max_members", "advertise", "sead"] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }
}
