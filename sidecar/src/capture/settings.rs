//! What capture is told, from the section `capture:` of the agent's file or from flags, and what is wrong with it. It knows no rule of any firewall.

use std::fmt;
use std::str::FromStr;

use heddle_node::config::Section;
use ipnet::IpNet;

/// Where the agent takes what others send to this host.
pub const INBOUND_PORT: u16 = 15_006;
/// Where the agent takes what the application sends to others.
pub const OUTBOUND_PORT: u16 = 15_001;
/// Where the agent answers the application's questions for names.
pub const DNS_PORT: u16 = 15_053;
/// The mark that carries the application's packets back into this host (`tproxy` only), and the id of the policy rule and the routing table that see to it:
/// "HE" in ASCII, which nobody else is likely to use.
pub const ROUTING_ID: u32 = 0x4845;
/// SSH: whoever turns capture on from afar should not be locked out by it.
const SPARED_INBOUND: u16 = 22;
/// Most entries of one list: the script stays small enough for one transaction.
pub const MAX_ENTRIES: usize = 1024;
/// Longest name of an interface (`IFNAMSIZ` without its end).
const MAX_INTERFACE: usize = 15;
/// Longest name of a table (`NFT_TABLE_MAXNAMELEN` is 256); a longer one is a slip.
const MAX_TABLE: usize = 64;

/// What is said of the name of a table that is none.
pub(super) const NO_TABLE: &str = "capture.table: expected a name of letters, digits and `_`, beginning with a letter";

/// How packets are turned to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// By address translation: works everywhere, the proxy needs no rights.
    #[default]
    Redirect,
    /// By TPROXY and policy routing: nothing is translated; the proxy needs `CAP_NET_ADMIN`.
    Tproxy,
}

impl Mode {
    /// Its words in files and flags.
    pub const CHOICES: [(&'static str, Mode); 2] = [("redirect", Mode::Redirect), ("tproxy", Mode::Tproxy)];
}

/// A port of the agent, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port(pub Option<u16>);

impl FromStr for Port {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Port, &'static str> {
        match text {
            "off" => Ok(Port(None)),
            number => number
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .map(|port| Port(Some(port)))
                .ok_or("expected a port (1 to 65535) or `off`"),
        }
    }
}

/// Ports of applications: one, or `first-last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last, not below the first.
    pub last: u16,
}

impl From<u16> for Ports {
    fn from(port: u16) -> Ports {
        Ports { first: port, last: port }
    }
}

impl FromStr for Ports {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Ports, &'static str> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(Ports { first, last }),
            _ => Err("expected a port (1 to 65535) or a range such as 8000-8010"),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(out, "{}", self.first) } else { write!(out, "{}-{}", self.first, self.last) }
    }
}

/// A firewall mark: decimal, or hexadecimal after `0x`; never 0, which is no mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(pub u32);

impl FromStr for Mark {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Mark, &'static str> {
        let parsed = text.strip_prefix("0x").map_or_else(|| text.parse(), |digits| u32::from_str_radix(digits, 16));
        parsed.ok().filter(|mark| *mark != 0).map(Mark).ok_or("expected a firewall mark such as 0x48 (not 0)")
    }
}

/// What capture is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureSettings {
    /// How packets are turned to the proxy.
    pub mode: Mode,
    /// Where the agent takes what comes in; `None` leaves it alone.
    pub inbound_port: Option<u16>,
    /// Where the agent takes what goes out; `None` leaves it alone.
    pub outbound_port: Option<u16>,
    /// Where the agent answers for names; `None` leaves questions alone.
    pub dns_port: Option<u16>,
    /// The user that the agent runs as: what it sends passes.
    pub proxy_uid: Option<u32>,
    /// The mark of what the agent sends: it passes.
    pub proxy_mark: Option<u32>,
    /// Users whose traffic passes as well, for example that of the host's own resolver.
    pub exclude_uids: Vec<u32>,
    /// Only these ports of this host are captured; all when empty.
    pub include_inbound_ports: Vec<Ports>,
    /// These ports of this host are not.
    pub exclude_inbound_ports: Vec<Ports>,
    /// Only these ports of others are captured; all when empty.
    pub include_outbound_ports: Vec<Ports>,
    /// These ports of others are not.
    pub exclude_outbound_ports: Vec<Ports>,
    /// Only these networks are captured; all when empty.
    pub include_outbound_cidrs: Vec<IpNet>,
    /// These networks are not.
    pub exclude_outbound_cidrs: Vec<IpNet>,
    /// What comes or goes by these interfaces passes; a `*` at the end stands for anything.
    pub exclude_interfaces: Vec<String>,
    /// Whether IPv4 is captured.
    pub ipv4: bool,
    /// Whether IPv6 is captured.
    pub ipv6: bool,
    /// The name of our table.
    pub table: String,
    /// Whether it is tried before anybody relies on it.
    pub verify: bool,
    /// Whether rules that do not do what they say stay in force.
    pub fail_closed: bool,
}

impl Default for CaptureSettings {
    fn default() -> CaptureSettings {
        CaptureSettings {
            mode: Mode::Redirect,
            inbound_port: Some(INBOUND_PORT),
            outbound_port: Some(OUTBOUND_PORT),
            dns_port: Some(DNS_PORT),
            proxy_uid: None,
            proxy_mark: None,
            exclude_uids: Vec::new(),
            include_inbound_ports: Vec::new(),
            exclude_inbound_ports: vec![SPARED_INBOUND.into()],
            include_outbound_ports: Vec::new(),
            exclude_outbound_ports: Vec::new(),
            include_outbound_cidrs: Vec::new(),
            exclude_outbound_cidrs: Vec::new(),
            exclude_interfaces: Vec::new(),
            ipv4: true,
            ipv6: true,
            table: "heddle".to_owned(),
            verify: true,
            fail_closed: false,
        }
    }
}

impl CaptureSettings {
    /// Reads `capture:`, and what follows from the agent's own sections: `outbound.capture` is the mode, where `off`, a sidecar's default, leaves
    /// what goes out and questions for names alone; a `service` without an address takes nothing in; and the port of `inbound.address` is where it takes what
    /// comes in. What is wrong with the whole ([`CaptureSettings::faults`]) is judged once flags have had their say.
    pub fn read(root: &mut Section<'_>) -> CaptureSettings {
        let mut usual = CaptureSettings::default();
        let choices = [("off", None), ("redirect", Some(Mode::Redirect)), ("tproxy", Some(Mode::Tproxy))];
        let is_sidecar = root.has("service");
        match root.nested("outbound", |outbound| outbound.choice("capture", &choices)) {
            Some(Some(mode)) => usual.mode = mode,
            None if !is_sidecar => {}
            // The agent opens no door for it.
            Some(None) | None => (usual.outbound_port, usual.dns_port) = (None, None),
        }
        if is_sidecar && !root.nested("service", |service| service.has("address")) {
            usual.inbound_port = None;
        }
        if let Some(address) = root.nested("inbound", |inbound| inbound.socket_addr("address")) {
            usual.inbound_port = Some(address.port()).filter(|port| *port != 0);
        }
        root.nested("capture", |section| CaptureSettings::section(section, usual))
    }

    fn section(section: &mut Section<'_>, usual: CaptureSettings) -> CaptureSettings {
        let mut port = |key, usual| section.parsed(key, "a port (1 to 65535) or `off`").map_or(usual, |Port(port)| port);
        let inbound_port = port("inbound_port", usual.inbound_port);
        let outbound_port = port("outbound_port", usual.outbound_port);
        let dns_port = port("dns_port", usual.dns_port);
        CaptureSettings {
            mode: section.choice("mode", &Mode::CHOICES).unwrap_or(usual.mode),
            inbound_port,
            outbound_port,
            dns_port,
            proxy_uid: section.parsed("proxy_uid", "a user id"),
            proxy_mark: section.parsed("proxy_mark", "a firewall mark such as 0x48 (not 0)").map(|Mark(mark)| mark),
            exclude_uids: numbers(section, "exclude_uids", "a user id").unwrap_or_default(),
            include_inbound_ports: ports(section, "include_inbound_ports").unwrap_or_default(),
            exclude_inbound_ports: ports(section, "exclude_inbound_ports").unwrap_or(usual.exclude_inbound_ports),
            include_outbound_ports: ports(section, "include_outbound_ports").unwrap_or_default(),
            exclude_outbound_ports: ports(section, "exclude_outbound_ports").unwrap_or_default(),
            include_outbound_cidrs: section.networks("include_outbound_cidrs").unwrap_or_default(),
            exclude_outbound_cidrs: section.networks("exclude_outbound_cidrs").unwrap_or_default(),
            exclude_interfaces: section.strings("exclude_interfaces").unwrap_or_default(),
            ipv4: section.bool("ipv4").unwrap_or(usual.ipv4),
            ipv6: section.bool("ipv6").unwrap_or(usual.ipv6),
            table: section.name("table").unwrap_or(usual.table),
            verify: section.bool("verify").unwrap_or(usual.verify),
            fail_closed: section.bool("fail_closed").unwrap_or(usual.fail_closed),
        }
    }

    /// What is wrong, each with what to do; none when the settings can be applied.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |wrong: bool, message: &str| {
            if wrong {
                faults.push(message.to_owned());
            }
        };
        let sends = self.outbound_port.is_some() || self.dns_port.is_some();
        fault(
            sends && self.proxy_uid.is_none() && self.proxy_mark.is_none(),
            "capture: what the agent itself sends could not be told from what the application sends, and would run in a circle: say which user the agent runs as (proxy_uid, --uid), or which firewall mark its packets have (proxy_mark, --mark)",
        );
        fault(
            !sends && self.inbound_port.is_none(),
            "capture: inbound_port, outbound_port and dns_port are all off: nothing would be captured",
        );
        fault(!self.ipv4 && !self.ipv6, "capture: ipv4 and ipv6 are both off: nothing would be captured");
        fault(
            self.proxy_mark == Some(0) || self.proxy_mark == Some(ROUTING_ID),
            "capture.proxy_mark: 0 is no mark, and 0x4845 carries the application's packets; take another one",
        );
        fault(
            self.fail_closed && !self.verify,
            "capture: fail_closed leaves rules in force that were seen not to capture, and with verify: false nobody looks: leave out one of the two",
        );
        let mut own: Vec<u16> = [self.inbound_port, self.outbound_port, self.dns_port].into_iter().flatten().collect();
        own.sort_unstable();
        fault(own.contains(&0), "capture: 0 is no port that could be captured to");
        fault(own.windows(2).any(|pair| pair[0] == pair[1]), "capture: inbound_port, outbound_port and dns_port must differ");
        fault(!is_table(&self.table), NO_TABLE);
        for interface in self.exclude_interfaces.iter().filter(|name| !is_interface(name)) {
            fault(
                true,
                &format!(
                    "capture.exclude_interfaces: {interface:?} is no name of an interface (such as eth0, or docker* for all that begin so)"
                ),
            );
        }
        let lists = [
            ("exclude_uids", self.exclude_uids.len()),
            ("include_inbound_ports", self.include_inbound_ports.len()),
            ("exclude_inbound_ports", self.exclude_inbound_ports.len()),
            ("include_outbound_ports", self.include_outbound_ports.len()),
            ("exclude_outbound_ports", self.exclude_outbound_ports.len()),
            ("include_outbound_cidrs", self.include_outbound_cidrs.len()),
            ("exclude_outbound_cidrs", self.exclude_outbound_cidrs.len()),
            ("exclude_interfaces", self.exclude_interfaces.len()),
        ];
        for (name, len) in lists {
            fault(len > MAX_ENTRIES, &format!("capture.{name}: {len} entries, at most {MAX_ENTRIES}"));
        }
        faults
    }
}

fn ports(section: &mut Section<'_>, key: &'static str) -> Option<Vec<Ports>> {
    numbers(section, key, "a port or a range such as 8000-8010")
}

/// A list whose items are numbers, or text around them.
fn numbers<T: FromStr>(section: &mut Section<'_>, key: &'static str, expected: &str) -> Option<Vec<T>> {
    let mut values = Vec::new();
    for (i, (_, value)) in section.values(key)?.into_iter().enumerate() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match text.parse() {
            Ok(value) => values.push(value),
            Err(_) => section.mistake(key, format!("item {i}: expected {expected}")),
        }
    }
    Some(values)
}

/// Whether nftables and we take this for the name of a table.
pub(super) fn is_table(name: &str) -> bool {
    name.len() <= MAX_TABLE
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn is_interface(name: &str) -> bool {
    let stem = name.strip_suffix('*').unwrap_or(name);
    !stem.is_empty()
        && name.len() <= MAX_INTERFACE
        && stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-:@".contains(&byte))
}
