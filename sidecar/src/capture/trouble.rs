//! What can go wrong when rules are put into force, and what an operator can do about it. It reads what the tools said and runs none.

/// Why capture is not as it was wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// The settings contradict themselves; one a line.
    #[error("{0}")]
    Settings(String),
    /// A tool is not there.
    #[error(
        "`{tool}` is not installed: capture needs it; install the package `{package}` (Debian, Alpine, Fedora: the same name, `iproute` for ip on Fedora)"
    )]
    Missing {
        /// Its name.
        tool: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// The process may not change the firewall.
    #[error(
        "not permitted to {what}: run it as root or with CAP_NET_ADMIN (Docker: --cap-add NET_ADMIN; Kubernetes: securityContext.capabilities.add: [NET_ADMIN]; systemd: AmbientCapabilities=CAP_NET_ADMIN)"
    )]
    NotPermitted {
        /// What was tried.
        what: &'static str,
    },
    /// The kernel lacks something.
    #[error("the kernel has no {feature}: {remedy}")]
    Kernel {
        /// What it lacks.
        feature: &'static str,
        /// What can be done.
        remedy: &'static str,
    },
    /// A tool did not end.
    #[error("`{tool}` did not end within {seconds} s and was stopped; something else may hold the firewall's lock, try again")]
    TimedOut {
        /// Its name.
        tool: &'static str,
        /// How long it was given.
        seconds: u64,
    },
    /// A table of this name is there, and somebody else's.
    #[error(
        "the table `inet {table}` is somebody else's, as it does not say of itself that it is a capture: it is neither replaced nor taken away, and nothing was changed; give capture another name (capture.table, --table), or take that table away yourself if nobody needs it (`nft delete table inet {table}`)"
    )]
    Foreign {
        /// Its name.
        table: String,
    },
    /// It went wrong, and something of it is there still.
    #[error("{error}\n{left}")]
    Leaving {
        /// What went wrong.
        error: Box<CaptureError>,
        /// What is there still, and how it goes.
        left: String,
    },
    /// Rules are in force, but what they should capture is not captured.
    #[error("capture is not as it should be:\n{failures}\n{advice}{after}")]
    Unproven {
        /// What was tried, what should have come of it and what did; one a line.
        failures: String,
        /// What may be the cause, and what can be done.
        advice: String,
        /// What is in force now.
        after: String,
    },
    /// Somebody else changes or tries capture for too long.
    #[error(
        "somebody else changes capture in this network, or tries it: {path} was not free within {seconds} s; nothing was changed, try again when he is done (`fuser {path}` names the process)"
    )]
    Occupied {
        /// The lock.
        path: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// There is no safe place for a lock.
    #[error(
        "{path}: {why}; it keeps two who change capture at once apart, so root alone may own and write it: remove it, nothing was changed"
    )]
    NoTurn {
        /// What is wrong.
        path: String,
        /// Why.
        why: String,
    },
    /// Somebody has stopped it before anything was changed.
    #[error("stopped by a signal; nothing was changed")]
    Interrupted,
    /// A tool said something else.
    #[error("`{tool}` failed: {said}")]
    Failed {
        /// Its name.
        tool: &'static str,
        /// What it said.
        said: String,
    },
}

impl CaptureError {
    /// The same, with what is there still.
    pub(super) fn leaving(self, left: String) -> CaptureError {
        CaptureError::Leaving { error: Box::new(self), left }
    }
}

/// Longest text of a tool that is repeated.
const MAX_SAID: usize = 2000;
/// What the kernel needs for each word of a rule.
const FEATURES: [(&str, &str, &str); 6] = [
    ("tproxy", "nft_tproxy", "load it (modprobe nft_tproxy), or use mode: redirect"),
    ("redirect", "nft_redir", "load it (modprobe nft_redir)"),
    ("fib ", "nft_fib_inet", "load it (modprobe nft_fib_inet)"),
    ("ct ", "nft_ct", "load it (modprobe nft_ct)"),
    ("reject", "nft_reject_inet", "load it (modprobe nft_reject_inet)"),
    ("type nat", "nft_chain_nat", "load it (modprobe nft_chain_nat)"),
];

/// What `nft` meant by failing.
pub(super) fn of_nft(said: &str) -> CaptureError {
    if said.contains("Operation not permitted") || said.contains("Permission denied") {
        return CaptureError::NotPermitted { what: "change the firewall" };
    }
    // The kernel answers ENOENT to a rule that it has no module for; nft shows the rule below its complaint.
    let unknown =
        ["No such file or directory", "Operation not supported", "Protocol not supported"].iter().any(|text| said.contains(text));
    if unknown {
        for (word, feature, remedy) in FEATURES {
            if said.contains(word) {
                return CaptureError::Kernel { feature, remedy };
            }
        }
        return CaptureError::Kernel {
            feature: "nftables",
            remedy: "it needs CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET (Linux 5.10 or newer)",
        };
    }
    CaptureError::Failed { tool: "nft", said: shortened(said) }
}

/// What `ip` meant by failing.
pub(super) fn of_ip(said: &str) -> CaptureError {
    if said.contains("Operation not permitted") || said.contains("Permission denied") {
        return CaptureError::NotPermitted { what: "change the routing" };
    }
    if said.contains("not supported") {
        return CaptureError::Kernel {
            feature: "policy routing for this family",
            remedy: "use mode: redirect, or switch the family off (ipv6: false)",
        };
    }
    CaptureError::Failed { tool: "ip", said: shortened(said) }
}

fn shortened(said: &str) -> String {
    let said = said.trim();
    if said.is_empty() { "it said nothing".to_owned() } else { said.chars().take(MAX_SAID).collect() }
}
