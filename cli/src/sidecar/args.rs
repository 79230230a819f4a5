//! What `heddle capture` and `heddle sidecar` can be told. Nothing is done here but to lay flags over the settings of the file.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Subcommand};
use heddle_node::config::parse_duration;
use heddle_sidecar::capture::{CaptureSettings, Mark, Mode, Port, Ports};
use heddle_sidecar::wrapper::User;
use ipnet::IpNet;

/// `heddle capture`.
#[derive(Debug, Args)]
pub struct CaptureArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CaptureCommand,
}

/// What to do about capture.
#[derive(Debug, Subcommand)]
pub enum CaptureCommand {
    /// Put the rules into force, in place of what was there, and see by real connections that they capture; doing it again changes nothing
    Apply(ApplyCaptureArgs),
    /// Take the rules away; doing it again changes nothing
    Remove(RemoveCaptureArgs),
    /// See by real connections that what is in force captures and arrives at an agent that listens; change nothing
    Verify(CaptureFlags),
    /// Show what is in force
    Show(ShowCaptureArgs),
}

/// `heddle capture apply`.
#[derive(Debug, Args)]
pub struct ApplyCaptureArgs {
    /// Print what would be done; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The agent listens already: that it does not is a failure
    #[arg(long)]
    pub expect_agent: bool,
    #[command(flatten)]
    pub flags: CaptureFlags,
}

/// `heddle capture show`.
#[derive(Debug, Args)]
pub struct ShowCaptureArgs {
    /// Print what would be done; change nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub flags: CaptureFlags,
}

/// `heddle capture remove`.
#[derive(Debug, Args)]
pub struct RemoveCaptureArgs {
    /// How the service has ended, as systemd says it ($SERVICE_RESULT): after anything but `success`, rules of `fail_closed` stay in force
    #[arg(long, value_name = "RESULT")]
    pub service_result: Option<String>,
    #[command(flatten)]
    pub flags: CaptureFlags,
}

/// Settings of capture; each comes before what the file says.
#[derive(Debug, Args)]
pub struct CaptureFlags {
    /// The agent's configuration file, with a section `capture`
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How traffic is turned to the agent: redirect or tproxy
    #[arg(long, value_parser = mode)]
    pub mode: Option<Mode>,
    /// Where the agent takes what comes in: a port, or off
    #[arg(long, value_name = "PORT")]
    pub inbound_port: Option<Port>,
    /// Where the agent takes what goes out: a port, or off
    #[arg(long, value_name = "PORT")]
    pub outbound_port: Option<Port>,
    /// Where the agent answers questions for names: a port, or off
    #[arg(long, value_name = "PORT")]
    pub dns_port: Option<Port>,
    /// User that the agent runs as; what it sends passes
    #[arg(long, visible_alias = "proxy-uid", value_name = "UID")]
    pub uid: Option<u32>,
    /// Firewall mark of what the agent sends, which passes
    #[arg(long, visible_alias = "proxy-mark", value_name = "MARK")]
    pub mark: Option<Mark>,
    /// Users whose traffic passes too
    #[arg(long, value_name = "UIDS", value_delimiter = ',')]
    pub exclude_uids: Option<Vec<u32>>,
    /// Only these ports of this host
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub include_inbound_ports: Option<Vec<Ports>>,
    /// Not these ports of this host
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub exclude_inbound_ports: Option<Vec<Ports>>,
    /// Only these ports of others
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub include_outbound_ports: Option<Vec<Ports>>,
    /// Not these ports of others
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub exclude_outbound_ports: Option<Vec<Ports>>,
    /// Only these networks
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    pub include_outbound_cidrs: Option<Vec<IpNet>>,
    /// Not these networks
    #[arg(long, value_name = "CIDRS", value_delimiter = ',')]
    pub exclude_outbound_cidrs: Option<Vec<IpNet>>,
    /// Not what comes or goes by these interfaces; `docker*` stands for all that begin so
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub exclude_interfaces: Option<Vec<String>>,
    /// Whether IPv4 is captured
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    pub ipv4: Option<bool>,
    /// Whether IPv6 is captured
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    pub ipv6: Option<bool>,
    /// Name of the table
    #[arg(long, value_name = "NAME")]
    pub table: Option<String>,
    /// Whether it is seen by real connections that the rules capture, and they are not left in force where they do not
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    pub verify: Option<bool>,
    /// Whether rules that were seen not to capture stay in force all the same
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    pub fail_closed: Option<bool>,
}

impl CaptureFlags {
    /// The settings of the file with these flags over them.
    pub fn over(self, mut settings: CaptureSettings) -> CaptureSettings {
        fn set<T>(place: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *place = value;
            }
        }
        set(&mut settings.mode, self.mode);
        set(&mut settings.inbound_port, self.inbound_port.map(|Port(port)| port));
        set(&mut settings.outbound_port, self.outbound_port.map(|Port(port)| port));
        set(&mut settings.dns_port, self.dns_port.map(|Port(port)| port));
        set(&mut settings.proxy_uid, self.uid.map(Some));
        set(&mut settings.proxy_mark, self.mark.map(|Mark(mark)| Some(mark)));
        set(&mut settings.exclude_uids, self.exclude_uids);
        set(&mut settings.include_inbound_ports, self.include_inbound_ports);
        set(&mut settings.exclude_inbound_ports, self.exclude_inbound_ports);
        set(&mut settings.include_outbound_ports, self.include_outbound_ports);
        set(&mut settings.exclude_outbound_ports, self.exclude_outbound_ports);
        set(&mut settings.include_outbound_cidrs, self.include_outbound_cidrs);
        set(&mut settings.exclude_outbound_cidrs, self.exclude_outbound_cidrs);
        set(&mut settings.exclude_interfaces, self.exclude_interfaces);
        set(&mut settings.ipv4, self.ipv4);
        set(&mut settings.ipv6, self.ipv6);
        set(&mut settings.table, self.table);
        set(&mut settings.verify, self.verify);
        set(&mut settings.fail_closed, self.fail_closed);
        settings
    }
}

/// `heddle sidecar`.
#[derive(Debug, Args)]
pub struct SidecarArgs {
    /// The agent's configuration file
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
    /// Capture traffic while the application runs (section `capture` of the file)
    #[arg(long)]
    pub capture: bool,
    /// Run the application as this user: UID or UID:GID
    #[arg(long, value_name = "USER", value_parser = user)]
    pub user: Option<User>,
    /// How long the agent may take to become ready
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub ready_timeout: Duration,
    /// How long requests in flight may take before the application is told to stop
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub drain: Duration,
    /// How long the application may take to stop before it is killed
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub grace: Duration,
    /// The application with its arguments, behind `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

fn mode(text: &str) -> Result<Mode, &'static str> {
    Mode::CHOICES.into_iter().find(|(name, _)| *name == text).map(|(_, mode)| mode).ok_or("expected redirect or tproxy")
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).ok_or("expected a duration with its unit, such as 30s")
}

fn user(text: &str) -> Result<User, &'static str> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    match (uid.parse(), gid.parse()) {
        (Ok(uid), Ok(gid)) => Ok(User { uid, gid }),
        _ => Err("expected numbers: UID or UID:GID, such as 1000:1000"),
    }
}
