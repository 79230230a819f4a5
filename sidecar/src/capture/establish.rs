//! Capture that is seen to work before anybody relies on it: rules are put into force and tried, and where they fail what was there before is put back. What
//! the rules are and how they are tried is decided elsewhere.

use std::pin::pin;

use super::apply::{Tools, astray};
use super::script::{comment, is_ours};
use super::settings::{CaptureSettings, Mode};
use super::trouble::CaptureError;
use super::turn::Turn;
use super::verify::{self, Doors, Report};

/// Most tables of others that are named.
const MOST_OTHERS: usize = 8;
/// Where packets that are captured come by.
const HOOKS: [&str; 4] = ["output", "postrouting", "prerouting", "input"];
/// What can be done where it is known better.
const SWITCHES: &str = "`verify: false` (--verify false) puts rules into force without trying them, `fail_closed: true` (--fail-closed true) leaves them in force\n";

/// What was in force.
struct Before {
    table: Option<String>,
    handle: Option<u64>,
    /// The families that have a policy rule of ours.
    routed: Vec<&'static str>,
}

impl Tools {
    /// Puts the rules of `settings` into force, as [`Tools::apply`] does, and sees that they capture; says what it saw. It must run in the network whose traffic is
    /// captured. Who wants it stopped lets `stop` end: rules that were not seen to capture yet are taken for such as do not.
    ///
    /// # Errors
    /// Why not; what was in force before is so again, unless the settings want rules to stay.
    pub async fn establish(
        &self,
        settings: &CaptureSettings,
        doors: Doors,
        stop: impl Future<Output = ()>,
    ) -> Result<Report, CaptureError> {
        let settings = &self.checked(settings)?;
        let mut stop = pin!(stop);
        let _turn = tokio::select! {
            biased;
            () = &mut stop => return Err(CaptureError::Interrupted),
            turn = Turn::take() => turn?,
        };
        let before = self.before(settings).await?;
        tokio::select! {
            biased;
            () = &mut stop => return Err(CaptureError::Interrupted),
            () = std::future::ready(()) => {}
        }
        if let Err(error) = self.apply(settings).await {
            return Err(self.unapplied(settings, &before, error).await);
        }
        let own = match self.own(settings, &before).await {
            Ok(own) => own,
            Err(error) => return Err(error.leaving(format!(
                "the rules of the table `inet {0}` are in force, and nobody has seen what they do: `heddle capture verify` tries them, `heddle capture remove --table {0}` takes them away",
                settings.table
            ))),
        };
        let tried = tokio::select! {
            biased;
            () = &mut stop => Err(stopped(settings)),
            tried = self.tried_if_wanted(settings, doors) => tried,
        };
        match tried {
            Err(CaptureError::Unproven { failures, advice, .. }) => {
                let after = self.take_back(settings, &before, own).await;
                Err(CaptureError::Unproven { failures, advice, after })
            }
            other => other,
        }
    }

    /// What is told when rules could not be applied: the tool may have been ended after the kernel had taken what it said.
    async fn unapplied(&self, settings: &CaptureSettings, before: &Before, error: CaptureError) -> CaptureError {
        match self.own(settings, before).await {
            // Nothing was changed; of the routing `apply` has spoken.
            Ok(None) => error,
            Ok(own) => error.leaving(self.take_back(settings, before, own).await),
            Err(unseen) => error.leaving(format!(
                "whether its rules are in force could not be seen ({unseen}): `heddle capture show` tells it, `heddle capture remove --table {}` takes them away",
                settings.table
            )),
        }
    }

    async fn take_back(&self, settings: &CaptureSettings, before: &Before, own: Option<u64>) -> String {
        if settings.fail_closed {
            "the rules stay in force (capture.fail_closed)".to_owned()
        } else {
            self.put_back(settings, before, own).await
        }
    }

    /// Tries the capture that is in force, with an agent that listens; changes nothing.
    ///
    /// # Errors
    /// What is not captured.
    pub async fn verify(&self, settings: &CaptureSettings) -> Result<Report, CaptureError> {
        let settings = &self.checked(settings)?;
        let _turn = Turn::take().await?;
        self.tried(settings, Doors::OfAgent).await
    }

    /// The number of the table that we have just put into force; none where it is somebody else's. What depends on it is asked for twice before it is given up.
    async fn own(&self, settings: &CaptureSettings, before: &Before) -> Result<Option<u64>, CaptureError> {
        match self.own_at_once(settings, before).await {
            Ok(own) => Ok(own),
            Err(_) => self.own_at_once(settings, before).await,
        }
    }

    async fn own_at_once(&self, settings: &CaptureSettings, before: &Before) -> Result<Option<u64>, CaptureError> {
        let handle = self.handle(&settings.table).await?.filter(|handle| Some(*handle) != before.handle);
        let table = self.table(&settings.table).await?.unwrap_or_default();
        Ok(handle.filter(|_| table.contains(&comment(settings))))
    }

    async fn tried_if_wanted(&self, settings: &CaptureSettings, doors: Doors) -> Result<Report, CaptureError> {
        if !settings.verify {
            return Ok(Report::default());
        }
        self.tried(settings, doors).await.map_err(|error| match error {
            CaptureError::Unproven { failures, advice, after } => {
                CaptureError::Unproven { failures, advice: advice + SWITCHES, after }
            }
            other => other,
        })
    }

    async fn tried(&self, settings: &CaptureSettings, doors: Doors) -> Result<Report, CaptureError> {
        let mut failures: Vec<String> = Vec::new();
        let mut report = verify::verify(settings, doors).await.unwrap_or_else(|why| {
            failures.push(why);
            Report::default()
        });
        // Who may not see the rules, as any user, sees by what arrives what they do.
        let listed = self.table(&settings.table).await;
        let missing = match &listed {
            Ok(table) => self.missing(settings, table.as_deref()).await,
            Err(_) => None,
        };
        if settings.inbound_port.is_some() {
            report.inbound(listed.is_ok());
        }
        let mut advice = String::new();
        if report.is_defeated()
            && missing.is_none()
            && let Ok(chains) = self.nft(&["list", "chains"], String::new()).await
        {
            advice = seen_by(&others(&chains, &settings.table));
        }
        failures.extend(report.failures());
        failures.extend(missing);
        if failures.is_empty() {
            return Ok(report);
        }
        Err(CaptureError::Unproven { failures: failures.join("\n"), advice, after: "nothing was changed".to_owned() })
    }

    /// What our table lacks, or its policy routing.
    async fn missing(&self, settings: &CaptureSettings, table: Option<&str>) -> Option<String> {
        if let Some(missing) = missing(settings, table) {
            return Some(missing);
        }
        let unrouted = self.unrouted(table?).await.ok().filter(|families| !families.is_empty())?;
        Some(format!("{}: `heddle capture apply` brings it back", astray(&unrouted)))
    }

    async fn before(&self, settings: &CaptureSettings) -> Result<Before, CaptureError> {
        let (table, handle) = (self.table(&settings.table).await?, self.handle(&settings.table).await?);
        Ok(Before { table, handle, routed: self.routed().await? })
    }

    /// In one transaction with the removal of the table that is `own`: what somebody else has put in its place meanwhile is his.
    async fn put_back(&self, settings: &CaptureSettings, before: &Before, own: Option<u64>) -> String {
        let others =
            || "somebody else has put other rules into force meanwhile, or taken them away: that was left as it is".to_owned();
        let Some(own) = own else { return others() };
        let done = async {
            let removal = format!("delete table inet handle {own}\n");
            let Some(table) = &before.table else {
                self.nft(&["-f", "-"], removal).await?;
                self.unroute_but(&before.routed).await?;
                return Ok::<_, CaptureError>("the rules were taken away again");
            };
            for family in &before.routed {
                self.route(family).await?;
            }
            self.nft(&["-f", "-"], removal + table).await?;
            self.unroute_but(&before.routed).await?;
            Ok("what was in force before is in force again")
        };
        match done.await {
            Ok(done) => done.to_owned(),
            Err(_) if self.handle(&settings.table).await.is_ok_and(|now| now != Some(own)) => others(),
            Err(error) => format!("the rules are still in force, as they could not be taken away: {error}"),
        }
    }
}

/// Why rules that may well be right are taken back.
fn stopped(settings: &CaptureSettings) -> CaptureError {
    let before = if settings.verify { " before it was seen to work" } else { "" };
    CaptureError::Unproven {
        failures: format!("it was stopped by a signal{before}"),
        advice: String::new(),
        after: String::new(),
    }
}

/// What our table lacks, if it is not as these settings want it.
fn missing(settings: &CaptureSettings, table: Option<&str>) -> Option<String> {
    let name = &settings.table;
    let Some(table) = table else {
        return Some(format!("the table `inet {name}` is not there: nothing was applied, or somebody has taken it away"));
    };
    if !is_ours(table) {
        return Some(format!("the table `inet {name}` is somebody else's: give capture another name (capture.table, --table)"));
    }
    if !table.contains(&comment(settings)) {
        return Some(format!(
            "the table `inet {name}` has rules of other settings than these: `heddle capture apply` puts these into force"
        ));
    }
    let port = settings.inbound_port?;
    let wanted = match settings.mode {
        Mode::Redirect => format!("redirect to :{port}"),
        Mode::Tproxy => format!(":{port} accept"),
    };
    (!table.contains(&wanted)).then(|| {
        format!("the table `inet {name}` has no rule any more that takes what comes in to port {port}: somebody has emptied it")
    })
}

/// The chains of others that see what is captured, from what `nft list chains` says.
fn others(chains: &str, own: &str) -> Vec<String> {
    let (mut table, mut chain, mut found) = (None, "", Vec::new());
    for line in chains.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            ["table", family, name, "{"] => table = Some(format!("{family} {name}")).filter(|_| (family, name) != ("inet", own)),
            ["chain", name, ..] => chain = name,
            ["type", kind, "hook", hook, "priority", ref priority @ ..] if HOOKS.contains(&hook) => {
                let Some(table) = &table else { continue };
                let priority = priority.join(" ");
                let priority = priority.split(';').next().unwrap_or_default();
                found.push(format!("`{table}` chain {chain} ({kind}, {hook}, priority {priority})"));
            }
            _ => {}
        }
    }
    found
}

fn seen_by(others: &[String]) -> String {
    let named = others.iter().take(MOST_OTHERS).map(String::as_str).collect::<Vec<_>>().join(", ");
    match others.len() {
        0 => "no other table of nftables sees these packets: the kernel lacks a module (modprobe nft_redir, nft_tproxy), or rules that nft does not list (iptables-legacy, eBPF) take them\n".to_owned(),
        count => format!(
            "other rules see these packets too, and may take or refuse them first: {named}{}; let them leave alone what is captured\n",
            if count > MOST_OTHERS { " and more" } else { "" }
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::script::{removal, script};
    use super::*;

    /// As nft lists it.
    fn listed(settings: &CaptureSettings) -> String {
        script(settings).replacen(&removal(&settings.table), "", 1)
    }

    /// As nft 1.0.6 says it.
    const CHAINS: &str = "table inet heddle {\n\tchain outbound {\n\t\ttype nat hook output priority -105; policy accept;\n\t}\n}\n\
        table ip nat {\n\tchain OUTPUT {\n\t\ttype nat hook output priority dstnat - 5; policy accept;\n\t}\n}\n\
        table inet foreign {\n\tchain mine {\n\t}\n\tchain late {\n\t\ttype filter hook postrouting priority raw; policy accept;\n\t}\n}\n";

    #[test]
    fn who_else_sees_the_packets_is_named() {
        assert_eq!(
            others(CHAINS, "heddle"),
            [
                "`ip nat` chain OUTPUT (nat, output, priority dstnat - 5)",
                "`inet foreign` chain late (filter, postrouting, priority raw)",
            ]
        );
        assert_eq!(others(CHAINS, "mesh").len(), 3, "a table of this name is another one now");
        assert!(seen_by(&others(CHAINS, "heddle")).contains("`ip nat` chain OUTPUT"));
        assert!(seen_by(&[]).contains("modprobe"));
        assert!(seen_by(&vec!["x".to_owned(); 9]).contains("x and more"));
        for odd in
            ["table", "table inet", "type nat hook output priority", "}", "", "table inet x {\ntype nat hook output priority"]
        {
            others(odd, "heddle");
        }
    }

    #[test]
    fn what_the_table_lacks_is_told() {
        for mode in [Mode::Redirect, Mode::Tproxy] {
            let settings = CaptureSettings { mode, proxy_uid: Some(7), ..CaptureSettings::default() };
            assert_eq!(missing(&settings, Some(&listed(&settings))), None);
            assert!(missing(&settings, None).unwrap().contains("is not there"));
            let other = CaptureSettings { exclude_uids: vec![8], ..settings.clone() };
            assert!(missing(&settings, Some(&listed(&other))).unwrap().contains("other settings"));
            let emptied: String =
                listed(&settings).lines().filter(|line| !line.contains(":15006")).map(|line| format!("{line}\n")).collect();
            assert!(missing(&settings, Some(&emptied)).unwrap().contains("15006"));
            assert!(missing(&settings, Some("table inet heddle {\n}\n")).unwrap().contains("somebody else's"));
        }
    }
}
