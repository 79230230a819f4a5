//! `service.consul:`: how an agent registers its service at the Consul of its host, and how its application is asked whether it works. It asks nobody.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use heddle_node::config::Section;
use serde_json::Value;

use super::probes::CheckProtocol;

/// How long Consul believes in silence. Three words fit into it, so that one may be lost.
const DEFAULT_TTL: Duration = Duration::from_secs(15);
/// Consul forgets who was critical for this long: its own least.
const DEFAULT_REAP: Duration = Duration::from_secs(60);
/// Between two questions to the application.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
/// How long an answer of the application may take.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// Failures in a row until the application counts as down: one may be an accident.
const DEFAULT_FAILURES: u32 = 2;
/// Questions to one application.
const MOST_CHECKS: usize = 16;
/// Tags, and names in the meta; Consul takes 64 of the latter, and some are ours.
const MOST_TAGS: usize = 128;
/// See [`MOST_TAGS`].
const MOST_META: usize = 16;
/// Bytes of one tag.
const LONGEST_TAG: usize = 4_096;
/// Bytes of a value of the meta, by Consul's rule.
const LONGEST_VALUE: usize = 512;
/// Bytes of a name in the meta, by Consul's rule.
const LONGEST_NAME: usize = 128;

/// How a service is registered at Consul.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationSettings {
    /// Its id at the agent; `None`: made of the names of the service and of this node.
    pub id: Option<String>,
    /// Where others reach it; `None`: where the agent of Consul is.
    pub address: Option<String>,
    /// Its port; 0 only until the listener is known that stands for it.
    pub port: u16,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its meta, beside what is told of this node in any case.
    pub meta: BTreeMap<String, String>,
    /// Share while it passes and while it warns.
    pub weights: Option<(u32, u32)>,
    /// How long Consul believes in silence.
    pub ttl: Duration,
    /// Consul forgets it after it was critical for this long.
    pub reap_after: Duration,
    /// What the application is asked.
    pub checks: Vec<ApplicationCheck>,
}

/// One question to the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationCheck {
    /// How it is asked.
    pub protocol: CheckProtocol,
    /// Where.
    pub address: SocketAddr,
    /// Path and query.
    pub path: String,
    /// Between two questions.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Failures in a row until it counts as down.
    pub failures: u32,
}

impl RegistrationSettings {
    /// Reads the keys of one section; `None` where nothing is to be registered. `application` is asked where no question says another address.
    pub(super) fn read(section: &mut Section<'_>, application: Option<SocketAddr>) -> Option<Self> {
        let register = section.bool("register").unwrap_or(false);
        let given = section.list("checks", |check| ApplicationCheck::read(check, application));
        let checks = match given {
            Some(checks) => checks.into_iter().flatten().collect(),
            None => application.map(ApplicationCheck::connects).into_iter().collect(),
        };
        let settings = Self {
            id: section.name("id"),
            address: section.name("address"),
            port: section.u16("port").unwrap_or(0),
            tags: read_tags(section),
            meta: read_meta(section),
            weights: section.optional("weights", |weights| {
                let passing = weights.u32("passing", 1..=65_535).unwrap_or(1);
                (passing, weights.u32("warning", 0..=65_535).unwrap_or(1))
            }),
            ttl: bounded(section, "ttl", 1, 24 * 3_600).unwrap_or(DEFAULT_TTL),
            reap_after: bounded(section, "reap_after", 1, 30 * 24 * 3_600).unwrap_or(DEFAULT_REAP),
            checks,
        };
        if settings.checks.len() > MOST_CHECKS {
            section.mistake("checks", format!("expected at most {MOST_CHECKS}, found {}", settings.checks.len()));
        }
        register.then_some(settings)
    }
}

impl ApplicationCheck {
    /// Whether it accepts connections.
    fn connects(address: SocketAddr) -> Self {
        Self {
            protocol: CheckProtocol::Tcp,
            address,
            path: "/".to_owned(),
            interval: DEFAULT_INTERVAL,
            timeout: DEFAULT_TIMEOUT,
            failures: DEFAULT_FAILURES,
        }
    }

    fn read(section: &mut Section<'_>, application: Option<SocketAddr>) -> Option<Self> {
        let choices = [("http", CheckProtocol::Http), ("https", CheckProtocol::Https), ("tcp", CheckProtocol::Tcp)];
        let protocol = section.choice("protocol", &choices).unwrap_or(CheckProtocol::Http);
        let path = section.string("path").unwrap_or_else(|| "/".to_owned());
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            section.mistake("path", "expected a path of visible ASCII characters");
        }
        let address = section.socket_addr("address").or(application);
        if address.is_none() {
            section.mistake("address", "expected where the application is asked, as service.address does not say it");
        }
        let interval = bounded(section, "interval", 1, 3_600).unwrap_or(DEFAULT_INTERVAL);
        let timeout = section.duration("timeout").filter(|timeout| !timeout.is_zero()).unwrap_or(DEFAULT_TIMEOUT);
        let failures = section.u32("failures", 1..=100).unwrap_or(DEFAULT_FAILURES);
        Some(Self { protocol, address: address?, path, interval, timeout, failures })
    }
}

fn read_tags(section: &mut Section<'_>) -> Vec<String> {
    let tags = section.strings("tags").unwrap_or_default();
    let fits = |tag: &String| (1..=LONGEST_TAG).contains(&tag.len()) && !tag.contains(char::is_control);
    if tags.len() > MOST_TAGS || !tags.iter().all(fits) {
        section.mistake("tags", format!("expected at most {MOST_TAGS} texts of 1 to {LONGEST_TAG} bytes"));
    }
    tags
}

fn read_meta(section: &mut Section<'_>) -> BTreeMap<String, String> {
    let Some(written) = section.value("meta") else { return BTreeMap::new() };
    let read = || -> Option<BTreeMap<String, String>> {
        let fields = written.as_object().filter(|fields| fields.len() <= MOST_META)?;
        let one = |(name, value): (&String, &Value)| {
            let text = value.as_str().filter(|text| text.len() <= LONGEST_VALUE)?;
            is_meta_name(name).then(|| (name.clone(), text.to_owned()))
        };
        fields.iter().map(one).collect()
    };
    read().unwrap_or_else(|| {
        let rule = format!("at most {LONGEST_NAME} letters, digits, `-` and `_`, not beginning with consul-");
        section.mistake("meta", format!("expected at most {MOST_META} texts of {LONGEST_VALUE} bytes by name ({rule})"));
        BTreeMap::new()
    })
}

/// Whether Consul takes it as a name in the meta of a service.
pub fn is_meta_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with("consul-")
}

fn bounded(section: &mut Section<'_>, key: &'static str, least: u64, most: u64) -> Option<Duration> {
    let found = section.duration(key)?;
    if !(Duration::from_secs(least)..=Duration::from_secs(most)).contains(&found) {
        section.mistake(key, format!("expected {least}s to {most}s, found {found:?}"));
        return None;
    }
    Some(found)
}
