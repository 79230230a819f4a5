//! The policy routing that carries packets of `tproxy` back into this host, by the tool `ip`. Which packets these are is decided elsewhere.

use super::apply::Tools;
use super::script::{MARKS, is_ours, tables_of_ours};
use super::settings::{CaptureSettings, ROUTING_ID};
use super::tool::run;
use super::trouble::{self, CaptureError};

/// The families of policy routing, as `ip` wants them, and as rules name them.
const FAMILIES: [(&str, &str); 2] = [("-4", "ipv4"), ("-6", "ipv6")];

impl Tools {
    pub(super) fn families(&self) -> impl Iterator<Item = &'static str> {
        FAMILIES.into_iter().map(|(family, _)| family).take(if self.ipv6 { 2 } else { 1 })
    }

    /// The families that have a policy rule of ours.
    pub(super) async fn routed(&self) -> Result<Vec<&'static str>, CaptureError> {
        let mut routed = Vec::new();
        for family in self.families() {
            if !self.rules(family).await?.is_empty() {
                routed.push(family);
            }
        }
        Ok(routed)
    }

    pub(super) async fn route(&self, family: &str) -> Result<(), CaptureError> {
        let id = ROUTING_ID.to_string();
        for arguments in routing(family, &id) {
            match self.ip(&arguments).await {
                // That very rule is there already.
                Err(CaptureError::Failed { said, .. }) if said.contains("File exists") => {}
                // Nobody can listen for it there, and nothing of it may leave in clear once it is switched on.
                Err(CaptureError::Failed { said, .. }) if said.contains("IPv6 is disabled") => {
                    self.ip(&[family, "route", "replace", "unreachable", "default", "table", &id]).await?;
                }
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// Takes the policy routing away of all families but these; of none as long as a capture in force needs it, whatever its table is called.
    pub(super) async fn unroute_but(&self, kept: &[&str]) -> Result<(), CaptureError> {
        let id = ROUTING_ID.to_string();
        for family in self.families().filter(|family| !kept.contains(family)) {
            let rules = self.rules(family).await?;
            if rules.is_empty() || self.marks_packets().await? {
                continue;
            }
            for _ in &rules {
                self.ip(&[family, "rule", "del", "priority", &id]).await?;
            }
            // Before there was a route, there was no such table.
            if self.is_led(family).await? {
                self.ip(&[family, "route", "flush", "table", &id]).await?;
            }
        }
        Ok(())
    }

    /// Whether any capture in force marks packets: then they need their way.
    pub(super) async fn marks_packets(&self) -> Result<bool, CaptureError> {
        Ok(tables_of_ours(&self.ruleset().await?).any(|(_, table)| table.contains(MARKS)))
    }

    /// The families whose packets this table of ours marks, though they have no way back into this host.
    pub(super) async fn unrouted(&self, table: &str) -> Result<Vec<&'static str>, CaptureError> {
        let mut unrouted = Vec::new();
        for (family, name) in FAMILIES.into_iter().take(self.families().count()) {
            let passes = format!("meta nfproto {name} accept");
            if is_ours(table) && table.contains(MARKS) && !table.lines().any(|line| line.trim() == passes) {
                let routed = !self.rules(family).await?.is_empty() && self.is_led(family).await?;
                unrouted.extend((!routed).then_some(family));
            }
        }
        Ok(unrouted)
    }

    /// Whether marked packets are led anywhere.
    async fn is_led(&self, family: &str) -> Result<bool, CaptureError> {
        match self.ip(&[family, "route", "show", "table", &ROUTING_ID.to_string()]).await {
            Ok(routes) => Ok(routes.contains("default")),
            // There is no such table.
            Err(CaptureError::Failed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Our policy rules of one family; none where `ip` is not installed, or the kernel knows no policies: they cannot have been made then.
    pub(super) async fn rules(&self, family: &str) -> Result<Vec<String>, CaptureError> {
        let id = ROUTING_ID.to_string();
        match self.ip(&[family, "rule", "show", "priority", &id]).await {
            Ok(text) => Ok(text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()),
            Err(CaptureError::Missing { .. } | CaptureError::Kernel { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn ip(&self, arguments: &[&str]) -> Result<String, CaptureError> {
        let missing = CaptureError::Missing { tool: "ip", package: "iproute2" };
        run("ip", &self.ip, arguments, String::new(), missing).await?.map_err(|said| trouble::of_ip(&said))
    }
}

/// The families that are captured.
pub(super) fn families(settings: &CaptureSettings) -> impl Iterator<Item = &'static str> {
    [("-4", settings.ipv4), ("-6", settings.ipv6)].into_iter().filter(|(_, on)| *on).map(|(family, _)| family)
}

/// Marked packets come back into this host.
pub(super) fn routing<'a>(family: &'a str, id: &'a str) -> [Vec<&'a str>; 2] {
    [
        vec![family, "rule", "add", "fwmark", id, "lookup", id, "priority", id],
        vec![family, "route", "replace", "local", "default", "dev", "lo", "table", id],
    ]
}
