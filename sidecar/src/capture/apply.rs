//! Puts rules into force, takes them away and shows them, by the tools `nft` and `ip`. What the rules are is decided elsewhere.

use std::path::{Path, PathBuf};

use super::routing::{families, routing};
use super::script::{COMMENT, comment, removal, script};
use super::settings::{CaptureSettings, Mode, ROUTING_ID};
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
        let tproxy = settings.mode == Mode::Tproxy && settings.outbound_port.is_some();
        // A mark without its route would send packets nowhere, a route without its mark does nothing: so it comes first and goes last.
        if tproxy {
            for (family, _) in families(&settings) {
                self.route(family).await?;
            }
        }
        let applied = self.nft(&["-f", "-"], script(&settings)).await;
        let unused = if applied.is_ok() { !tproxy } else { !matches!(self.table(&settings.table).await, Ok(Some(_))) };
        if unused {
            self.unroute().await?;
        }
        applied.map(drop)
    }

    /// Takes our rules away. Doing it again changes nothing.
    ///
    /// # Errors
    /// Why not.
    pub async fn remove(&self, settings: &CaptureSettings) -> Result<(), CaptureError> {
        let _turn = Turn::take().await?;
        self.take_away(settings).await
    }

    pub(super) async fn take_away(&self, settings: &CaptureSettings) -> Result<(), CaptureError> {
        self.nft(&["-f", "-"], removal(&settings.table)).await?;
        self.unroute().await
    }

    /// What is in force, for people: our table, the policy routing of `tproxy`, and what was left by others of us.
    ///
    /// # Errors
    /// The tools cannot be asked.
    pub async fn show(&self, settings: &CaptureSettings) -> Result<String, CaptureError> {
        let table = self.table(&settings.table).await?;
        let mut text = match (&table, self.checked(settings)) {
            (None, _) => "no capture is in force\n",
            (Some(table), Ok(wanted)) if table.contains(&comment(&wanted)) => "# in force, as these settings want it\n",
            (Some(_), Ok(_)) => "# in force, but of other settings than these: `heddle capture apply` puts these into force\n",
            (Some(_), Err(_)) => "# in force\n",
        }
        .to_owned();
        text.push_str(table.as_deref().unwrap_or_default());
        let mut rules = Vec::new();
        for family in self.families() {
            rules.extend(
                self.rules(family).await.unwrap_or_default().into_iter().map(|rule| format!("ip {family} rule: {rule}\n")),
            );
        }
        if !rules.is_empty() && !table.is_some_and(|table| table.contains("type route ")) {
            text.push_str("# left over from an earlier capture, and without effect: `heddle capture remove` takes it away\n");
        }
        text.extend(rules);
        let all = self.nft(&["list", "ruleset", "inet"], String::new()).await.unwrap_or_default();
        for name in ours(&all).filter(|name| *name != settings.table) {
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
            for (family, _) in families(&settings) {
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
        match self.nft(&["list", "table", "inet", name], String::new()).await {
            Ok(table) => Ok(Some(table)),
            Err(CaptureError::Kernel { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The number that the kernel has given to our table, which no other table of this network gets; none where it is not there.
    pub(super) async fn handle(&self, name: &str) -> Result<Option<u64>, CaptureError> {
        match self.nft(&["-a", "list", "table", "inet", name], String::new()).await {
            Ok(table) => Ok(table.lines().next().and_then(|line| line.rsplit_once("# handle ")?.1.trim().parse().ok())),
            Err(CaptureError::Kernel { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn nft(&self, arguments: &[&str], input: String) -> Result<String, CaptureError> {
        let missing = CaptureError::Missing { tool: "nft", package: "nftables" };
        run("nft", &self.nft, arguments, input, missing).await?.map_err(|said| trouble::of_nft(&said))
    }
}

/// The tables that we have made, by what they say of themselves, of all that nft lists.
fn ours(ruleset: &str) -> impl Iterator<Item = &str> {
    let mut lines = ruleset.lines().peekable();
    std::iter::from_fn(move || {
        loop {
            let line = lines.next()?;
            let name = line.strip_prefix("table inet ").and_then(|rest| rest.strip_suffix(" {"));
            if let Some(name) = name.filter(|_| lines.peek().is_some_and(|next| next.contains(COMMENT))) {
                return Some(name);
            }
        }
    })
}
