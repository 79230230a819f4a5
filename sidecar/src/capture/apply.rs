//! Puts rules into force, takes them away and shows them, by the tools `nft` and `ip`. What the rules are is decided elsewhere.

use std::path::{Path, PathBuf};

use super::routing::{families, routing};
use super::script::{MARKS, comment, is_ours, removal, script, tables_of_ours};
use super::settings::{CaptureSettings, Mode, NO_TABLE, ROUTING_ID, is_table};
use super::tool::run;
use super::trouble::{self, CaptureError};
use super::turn::Turn;

/// Where a kernel with IPv6 lists its addresses.
const IPV6_ADDRESSES: &str = "/proc/net/if_inet6";

/// The tools of the system that capture works with.
#[derive(Debug, Clone)]
pub struct Tools {
    /// nftables' own.
    pub nft: PathBuf,
    /// iproute2's, for `tproxy`.
    pub ip: PathBuf,
    /// Whether the host has IPv6; without it there is nothing to capture.
    pub ipv6: bool,
}

impl Tools {
    /// Those of this host.
    #[must_use]
    pub fn of_system() -> Tools {
        Tools { nft: "nft".into(), ip: "ip".into(), ipv6: Path::new(IPV6_ADDRESSES).exists() }
    }

    /// Puts the rules of `settings` into force, in place of what was there. Doing it again changes nothing. Nobody looks what they do: [`Tools::establish`] does.
    ///
    /// # Errors
    /// Why not; what was in force before is so still.
    pub async fn apply(&self, settings: &CaptureSettings) -> Result<(), CaptureError> {
        let settings = self.checked(settings)?;
        self.spare_others(&settings.table).await?;
        let routed = self.routed().await?;
        let error = match self.put_into_force(&settings).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match self.unroute_but(&routed).await {
            Ok(()) => Err(error),
            Err(second) => Err(error.leaving(format!(
                "and its policy routing could not be taken back ({second}): `heddle capture remove` takes it away"
            ))),
        }
    }

    async fn put_into_force(&self, settings: &CaptureSettings) -> Result<(), CaptureError> {
        let tproxy = settings.mode == Mode::Tproxy && settings.outbound_port.is_some();
        // A mark without its route would send packets nowhere, a route without its mark does nothing: so it comes first and goes last.
        if tproxy {
            for family in families(settings) {
                self.route(family).await?;
            }
        }
        self.nft(&["-f", "-"], script(settings)).await?;
        if tproxy { Ok(()) } else { self.unroute_but(&[]).await }
    }

    /// Takes our rules away. Doing it again changes nothing.
    ///
    /// # Errors
    /// Why not.
    pub async fn remove(&self, settings: &CaptureSettings) -> Result<(), CaptureError> {
        let _turn = Turn::take().await?;
        self.spare_others(&settings.table).await?;
        self.nft(&["-f", "-"], removal(&settings.table)).await?;
        self.unroute_but(&[]).await
    }

    /// What is in force, for people: our table, the policy routing of `tproxy`, and what was left by others of us.
    ///
    /// # Errors
    /// The tools cannot be asked.
    pub async fn show(&self, settings: &CaptureSettings) -> Result<String, CaptureError> {
        let table = self.table(&settings.table).await?;
        let mut text = match (&table, self.checked(settings)) {
            (None, _) => "no capture is in force\n",
            (Some(table), _) if !is_ours(table) => "# no capture is in force; this table is somebody else's, and left alone\n",
            (Some(table), Ok(wanted)) if table.contains(&comment(&wanted)) => "# in force, as these settings want it\n",
            (Some(_), Ok(_)) => "# in force, but of other settings than these: `heddle capture apply` puts these into force\n",
            (Some(_), Err(_)) => "# in force\n",
        }
        .to_owned();
        let unrouted = self.unrouted(table.as_deref().unwrap_or_default()).await.unwrap_or_default();
        if !unrouted.is_empty() {
            text.push_str(&format!("# but {}: `heddle capture apply` brings it back\n", astray(&unrouted)));
        }
        text.push_str(table.as_deref().unwrap_or_default());
        let mut rules = Vec::new();
        for family in self.families() {
            rules.extend(
                self.rules(family).await.unwrap_or_default().into_iter().map(|rule| format!("ip {family} rule: {rule}\n")),
            );
        }
        let all = self.ruleset().await.unwrap_or_default();
        if !rules.is_empty() && !tables_of_ours(&all).any(|(_, table)| table.contains(MARKS)) {
            text.push_str("# left over from an earlier capture, and without effect: `heddle capture remove` takes it away\n");
        }
        text.extend(rules);
        for (name, _) in tables_of_ours(&all).filter(|(name, _)| *name != settings.table) {
            text.push_str(&format!(
                "# the table `inet {name}` is a capture too: `heddle capture remove --table {name}` takes it away\n"
            ));
        }
        Ok(text)
    }

    /// What [`Tools::apply`] would do, as commands and script; nothing is run.
    ///
    /// # Errors
    /// The settings contradict themselves.
    pub fn rehearse(&self, settings: &CaptureSettings) -> Result<String, CaptureError> {
        let settings = self.checked(settings)?;
        let mut text = String::new();
        if settings.mode == Mode::Tproxy && settings.outbound_port.is_some() {
            let id = ROUTING_ID.to_string();
            for family in families(&settings) {
                for arguments in routing(family, &id) {
                    text.push_str(&format!("# ip {}\n", arguments.join(" ")));
                }
            }
        }
        text.push_str("# nft -f -\n");
        text.push_str(&script(&settings));
        Ok(text)
    }

    /// The settings as they are applied here.
    pub(super) fn checked(&self, settings: &CaptureSettings) -> Result<CaptureSettings, CaptureError> {
        let mut settings = settings.clone();
        settings.ipv6 &= self.ipv6;
        let faults = settings.faults();
        if faults.is_empty() { Ok(settings) } else { Err(CaptureError::Settings(faults.join("\n"))) }
    }

    /// Our table as nft lists it, which is a script of it; none where it is not there.
    pub(super) async fn table(&self, name: &str) -> Result<Option<String>, CaptureError> {
        self.listed(&["list", "table", "inet", name], name).await
    }

    /// Refuses to touch what somebody else has made.
    async fn spare_others(&self, name: &str) -> Result<(), CaptureError> {
        let is_foreign = self.table(name).await?.is_some_and(|table| !is_ours(&table));
        if is_foreign { Err(CaptureError::Foreign { table: name.to_owned() }) } else { Ok(()) }
    }

    /// The number that the kernel has given to our table, which no other table of this network gets; none where it is not there.
    pub(super) async fn handle(&self, name: &str) -> Result<Option<u64>, CaptureError> {
        let table = self.listed(&["-a", "list", "table", "inet", name], name).await?;
        Ok(table.and_then(|table| table.lines().next()?.rsplit_once("# handle ")?.1.trim().parse().ok()))
    }

    async fn listed(&self, arguments: &[&str], name: &str) -> Result<Option<String>, CaptureError> {
        // What nft is told in words is a script to it.
        if !is_table(name) {
            return Err(CaptureError::Settings(NO_TABLE.to_owned()));
        }
        match self.nft(arguments, String::new()).await {
            Ok(table) => Ok(Some(table)),
            Err(CaptureError::Kernel { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All tables that may be ours, without what their sets hold.
    pub(super) async fn ruleset(&self) -> Result<String, CaptureError> {
        self.nft(&["-t", "list", "ruleset", "inet"], String::new()).await
    }

    pub(super) async fn nft(&self, arguments: &[&str], input: String) -> Result<String, CaptureError> {
        let missing = CaptureError::Missing { tool: "nft", package: "nftables" };
        run("nft", &self.nft, arguments, input, missing).await?.map_err(|said| trouble::of_nft(&said))
    }
}

/// That packets of these families are marked and have no way back.
pub(super) fn astray(families: &[&str]) -> String {
    let names: Vec<&str> = families.iter().map(|family| if *family == "-4" { "IPv4" } else { "IPv6" }).collect();
    format!("the policy routing of {} is missing, without which what is marked leaves this host as it is", names.join(" and "))
}
