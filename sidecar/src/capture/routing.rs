//! The policy routing that carries packets of `tproxy` back into this host, by the tool `ip`. Which packets these are is decided elsewhere.

use super::apply::Tools;
use super::settings::{CaptureSettings, ROUTING_ID};
use super::tool::run;
use super::trouble::{self, CaptureError};

/// The families of policy routing, as `ip` wants them.
const FAMILIES: [&str; 2] = ["-4", "-6"];

impl Tools {
    pub(super) fn families(&self) -> impl Iterator<Item = &'static str> {
        FAMILIES.into_iter().take(if self.ipv6 { 2 } else { 1 })
    }

    pub(super) async fn route(&self, family: &str) -> Result<(), CaptureError> {
        let id = ROUTING_ID.to_string();
        for arguments in routing(family, &id) {
            match self.ip(&arguments).await {
                // That very rule is there already.
                Err(CaptureError::Failed { said, .. }) if said.contains("File exists") => {}
                other => drop(other?),
            }
        }
        Ok(())
    }

    pub(super) async fn unroute(&self) -> Result<(), CaptureError> {
        let id = ROUTING_ID.to_string();
        for family in self.families() {
            let rules = self.rules(family).await?;
            for _ in &rules {
                self.ip(&[family, "rule", "del", "priority", &id]).await?;
            }
            if !rules.is_empty() {
                self.ip(&[family, "route", "flush", "table", &id]).await?;
            }
        }
        Ok(())
    }

    /// Our policy rules of one family; none where `ip` is not installed, since only it could have made them.
    pub(super) async fn rules(&self, family: &str) -> Result<Vec<String>, CaptureError> {
        let id = ROUTING_ID.to_string();
        match self.ip(&[family, "rule", "show", "priority", &id]).await {
            Ok(text) => Ok(text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()),
            Err(CaptureError::Missing { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn ip(&self, arguments: &[&str]) -> Result<String, CaptureError> {
        let missing = CaptureError::Missing { tool: "ip", package: "iproute2" };
        run("ip", &self.ip, arguments, String::new(), missing).await?.map_err(|said| trouble::of_ip(&said))
    }
}

/// The families that are captured.
pub(super) fn families(settings: &CaptureSettings) -> impl Iterator<Item = (&'static str, bool)> {
    [("-4", settings.ipv4), ("-6", settings.ipv6)].into_iter().filter(|(_, on)| *on)
}

/// Marked packets come back into this host.
pub(super) fn routing<'a>(family: &'a str, id: &'a str) -> [Vec<&'a str>; 2] {
    [
        vec![family, "rule", "add", "fwmark", id, "lookup", id, "priority", id],
        vec![family, "route", "replace", "local", "default", "dev", "lo", "table", id],
    ]
}
