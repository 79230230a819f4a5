//! The pair of units for systemd: a sidecar that is ready before the application starts and ends after it. It does not know whether systemd runs.

use super::super::settings::{Capture, InjectSettings};
use super::{ServiceWishes, Spots};

/// Largest unit; systemd itself stops at a megabyte for a line.
const MOST_BYTES: usize = 1 << 20;
/// How the host is reached to be repaired.
const SSH: u16 = 22;
/// The user that sidecars run as.
const USER: &str = "heddle";

/// What the sidecar may not do.
const HARDENING: &str = "\
# It opens ports above 1023 and needs no rights.
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native

";

/// A file that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitFile {
    /// Below the folder of units (`/etc/systemd/system`), or absolute.
    pub path: String,
    /// What it holds.
    pub text: String,
}

/// The unit of the sidecar, the drop-in of the application and the sidecar's configuration.
///
/// # Errors
/// Why this unit gets no sidecar, and what to do.
pub fn systemd(file: &str, text: &str, wishes: &ServiceWishes, settings: &InjectSettings) -> Result<Vec<UnitFile>, String> {
    let at = |message: String| format!("{file}: {message}");
    let stem = stem_of(file)?;
    if text.len() > MOST_BYTES {
        return Err(at(format!("expected at most {MOST_BYTES} bytes, found {}", text.len())));
    }
    let unit = Unit::read(text);
    possible(&unit, settings).map_err(at)?;
    let port = match unit.of("X-Heddle", "Port") {
        Some(text) => Some(
            text.parse()
                .ok()
                .filter(|port: &u16| *port > 0)
                .ok_or_else(|| at(format!("[X-Heddle] Port=: expected 1 to 65535, found `{text}`")))?,
        ),
        None => None,
    };
    let known = wishes.known(unit.of("X-Heddle", "Service").or(Some(stem)), port).map_err(at)?;
    let sidecar = format!("heddle-{stem}");
    let (node, data) = (format!("{stem}@${{HEDDLE_HOST:-localhost}}"), format!("/var/lib/{sidecar}"));
    // Who reads the file outside of the unit, as `heddle capture` does, has no such variable.
    let proof = format!("${{CREDENTIALS_DIRECTORY:-/run/credentials/{sidecar}.service}}/token");
    let spots =
        Spots { node: &node, proof: &proof, bundle: "/etc/heddle/root.pem", data: &data, advertise: None, spared: Some(&[SSH]) };
    let configuration = known.configuration(settings, spots);
    let [unit, conf, yaml] = paths(stem);
    Ok(vec![
        UnitFile { path: unit, text: sidecar_unit(stem, &sidecar, settings.capture) },
        UnitFile { path: conf, text: drop_in(stem, &sidecar) },
        UnitFile { path: yaml, text: configuration },
    ])
}

/// What [`systemd`] has written for this unit and is to be removed, each with what begins its text when it is ours; of the configuration, nothing does.
///
/// # Errors
/// It is no name of a unit that may have a sidecar.
pub fn without_systemd(file: &str) -> Result<Vec<UnitFile>, String> {
    let stem = stem_of(file)?;
    let [unit, conf, yaml] = paths(stem);
    let (path, text) = (yaml, String::new());
    Ok(vec![
        UnitFile { path: unit, text: written_by(stem) },
        UnitFile { path: conf, text: written_by(stem) },
        UnitFile { path, text },
    ])
}

fn paths(stem: &str) -> [String; 3] {
    [format!("heddle-{stem}.service"), format!("{stem}.service.d/heddle.conf"), format!("/etc/heddle/{stem}.yaml")]
}

/// How the units that we write begin.
fn written_by(stem: &str) -> String {
    format!("# Written by `heddle inject --systemd {stem}.service`.")
}

/// The name of a unit without its ending.
fn stem_of(file: &str) -> Result<&str, String> {
    let at = |message: &str| format!("{file}: {message}");
    let name = file.rsplit('/').next().unwrap_or(file);
    let stem = name.strip_suffix(".service").filter(|stem| !stem.is_empty());
    let stem = stem.ok_or_else(|| at("expected a unit whose name ends in .service"))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    if stem.contains('@') {
        return Err(at(
            "a template unit has many instances, whose sidecars would open the same ports; make a unit of each, with ports of its own",
        ));
    }
    if !stem.bytes().all(plain) {
        return Err(at("expected a name of letters, digits, `.`, `_`, `-`, `:`"));
    }
    Ok(stem)
}

/// Why this unit gets no sidecar.
fn possible(unit: &Unit<'_>, settings: &InjectSettings) -> Result<(), String> {
    if unit.of("X-Heddle", "SidecarOf").is_some() {
        return Err("is the unit of a sidecar itself; give the unit of its application".to_owned());
    }
    if unit.of("Service", "ExecStart").is_none() && unit.of("Service", "ExecStop").is_none() {
        return Err("expected a [Service] section with ExecStart=, found none".to_owned());
    }
    let user = unit.of("Service", "User");
    if user == Some(USER) && settings.capture != Capture::Off {
        return Err(format!(
            "User={USER} is the sidecar's own user, whose traffic is not captured; run the application as another"
        ));
    }
    let own_network = unit.of("Service", "PrivateNetwork").is_some_and(|word| matches!(word, "yes" | "true" | "1" | "on"));
    if own_network {
        return Err("PrivateNetwork= takes the application's loopback away, where its sidecar would be; remove it".to_owned());
    }
    Ok(())
}

/// What sets capture up and takes it away; nothing where it is off. What is captured says the file, but who the sidecar's user is, is known on the machine only.
fn capture_lines(stem: &str, capture: Capture) -> String {
    if capture == Capture::Off {
        return String::new();
    }
    let of_file = format!("-c /etc/heddle/{stem}.yaml");
    format!(
        "# Capture stands once the sidecar listens, and goes with it; after a failure it stays, where the configuration says\n\
         # `capture: {{ fail_closed: true }}`. `+` runs it with full rights, which the sidecar does not have.\n\
         ExecStartPost=+/bin/sh -c 'exec /usr/bin/heddle capture apply {of_file} --expect-agent --uid \"$$(id -u {USER})\"'\n\
         ExecStopPost=+/bin/sh -c 'exec /usr/bin/heddle capture remove {of_file} --service-result \"$$SERVICE_RESULT\"'\n"
    )
}

fn sidecar_unit(stem: &str, sidecar: &str, capture: Capture) -> String {
    let capture = capture_lines(stem, capture);
    // What keeps capture from working is seldom gone in a second, and each time takes the host's connections a moment.
    let pause = if capture.is_empty() { 1 } else { 5 };
    let written = written_by(stem);
    format!(
        "\
{written} It wants a user `{USER}`, a join token in /etc/heddle/{stem}.token
# (`heddle token create`) and the roots in /etc/heddle/root.pem (`heddle ca export`).

[Unit]
Description=Heddle sidecar of {stem}.service
Wants=network-online.target
After=network-online.target
Before={stem}.service
StopWhenUnneeded=yes
StartLimitIntervalSec=0

[Service]
# Ready means: it has an identity and configuration, and listens.
Type=notify
NotifyAccess=main
Environment=HEDDLE_HOST=%H
ExecStart=/usr/bin/heddle agent -c /etc/heddle/{stem}.yaml
{capture}LoadCredential=token:/etc/heddle/{stem}.token
User={USER}
Group={USER}
StateDirectory={sidecar}
StateDirectoryMode=0700
Restart=always
RestartSec={pause}
TimeoutStartSec=120
TimeoutStopSec=45
LimitNOFILE=65536

{HARDENING}[X-Heddle]
SidecarOf={stem}.service

[Install]
WantedBy=multi-user.target
"
    )
}

fn drop_in(stem: &str, sidecar: &str) -> String {
    let written = written_by(stem);
    format!(
        "\
{written} Remove it, and the application starts without its sidecar.

[Unit]
# The application starts when the sidecar is ready, stops before it, and does not run without it.
Requires={sidecar}.service
BindsTo={sidecar}.service
After={sidecar}.service
"
    )
}

/// As much of a unit as is asked for (systemd.syntax(7)).
struct Unit<'t> {
    settings: Vec<(&'t str, &'t str, &'t str)>,
}

impl<'t> Unit<'t> {
    fn read(text: &'t str) -> Unit<'t> {
        let (mut section, mut settings) = ("", Vec::new());
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name;
            } else if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with(['#', ';'])) {
                settings.push((section, key.trim(), value.trim()));
            }
        }
        Unit { settings }
    }

    /// The last value of a setting; an empty one resets it.
    fn of(&self, section: &str, key: &str) -> Option<&'t str> {
        let found = self.settings.iter().rev().find(|(of, name, _)| *of == section && *name == key);
        found.map(|(_, _, value)| *value).filter(|value| !value.is_empty())
    }
}
