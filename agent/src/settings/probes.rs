//! `agent.probes:`: where those who may only ask are answered, and what they may ask the application.

use std::net::IpAddr;
use std::time::Duration;

use heddle_node::config::Section;

/// Most checks: three for each of the containers of a pod, generously.
const MAX_CHECKS: usize = 256;
/// How long a check takes at most when nothing is said; the kubelet's own default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

/// An endpoint that answers and changes nothing, so that it may listen beyond loopback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeSettings {
    /// Its port, on all addresses of this host.
    pub port: u16,
    /// Where the application is.
    pub application: IpAddr,
    /// What is asked of the application, and by which path.
    pub checks: Vec<CheckSettings>,
}

/// One question to the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckSettings {
    /// The path here.
    pub path: String,
    /// What the application speaks.
    pub protocol: CheckProtocol,
    /// Its port.
    pub port: u16,
    /// Path and query there.
    pub target: String,
    /// Header fields.
    pub headers: Vec<(String, String)>,
    /// How long the whole may take.
    pub timeout: Duration,
}

/// How the application is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckProtocol {
    /// `GET`.
    Http,
    /// `GET` over TLS; the certificate is not verified, as the kubelet does not.
    Https,
    /// Whether it accepts a connection.
    Tcp,
}

impl ProbeSettings {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let port = section.require("port").u16("port");
        let application = section.parsed("application", "an IP address").unwrap_or(IpAddr::from([127, 0, 0, 1]));
        let checks: Vec<_> = section.list("checks", CheckSettings::read).into_iter().flatten().flatten().collect();
        if checks.len() > MAX_CHECKS {
            section.mistake("checks", format!("expected at most {MAX_CHECKS}, found {}", checks.len()));
        }
        Some(Self { port: port?, application, checks })
    }
}

impl CheckSettings {
    fn read(section: &mut Section<'_>) -> Option<Self> {
        let path = section.require("path").string("path");
        if path.as_ref().is_some_and(|path| !path.starts_with("/app/")) {
            section.mistake("path", "expected a path below /app/");
        }
        let choices = [("http", CheckProtocol::Http), ("https", CheckProtocol::Https), ("tcp", CheckProtocol::Tcp)];
        let protocol = section.choice("protocol", &choices).unwrap_or(CheckProtocol::Http);
        let port = section.require("port").u16("port");
        let target = section.string("target").unwrap_or_else(|| "/".to_owned());
        if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            section.mistake("target", "expected a path of visible ASCII characters");
        }
        let headers: Vec<_> = section.list("headers", header).into_iter().flatten().flatten().collect();
        let timeout = section.duration("timeout").unwrap_or(DEFAULT_TIMEOUT);
        Some(Self { path: path?, protocol, port: port?, target, headers, timeout })
    }
}

fn header(section: &mut Section<'_>) -> Option<(String, String)> {
    let name = section.require("name").string("name");
    let value = section.string("value").unwrap_or_default();
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.as_ref().is_some_and(|name| name.is_empty() || !name.bytes().all(token)) {
        section.mistake("name", "expected the name of a header field");
    }
    if value.bytes().any(|byte| byte.is_ascii_control()) {
        section.mistake("value", "expected a text without control characters");
    }
    Some((name?, value))
}
