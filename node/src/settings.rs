//! What every node is told in `heddle.yaml`: who it is, where it keeps things, how it logs, traces and gossips. It knows no setting of agents or control planes.

use std::path::PathBuf;

use crate::config::Section;
pub use crate::membership::gossip::GossipSettings;
pub use crate::telemetry::{LogFormat, LogLevel, LogSettings, TracingSettings};

/// Below the working directory, so that a first try needs no rights.
pub const DEFAULT_DATA_DIR: &str = "./heddle-data";
/// Longest id and zone: they become metric labels and xDS fields.
const MAX_NAME: usize = 128;

/// What every node is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `node:`
    pub node: NodeSettings,
    /// `log:`
    pub log: LogSettings,
    /// `tracing:`; `None` is off.
    pub tracing: Option<TracingSettings>,
    /// `gossip:`; `None` is off.
    pub gossip: Option<GossipSettings>,
}

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSettings {
    /// Unique in the fleet.
    pub id: String,
    /// Where the store, the last snapshot and generated keys are kept.
    pub data_dir: PathBuf,
    /// Where it runs, for locality; free text such as `eu-1a`.
    pub zone: Option<String>,
}

impl Settings {
    /// Reads `node:`, `log:`, `tracing:` and `gossip:`. `hostname` is the default id.
    pub fn read(root: &mut Section<'_>, hostname: &str) -> Settings {
        Settings {
            node: root.nested("node", |section| NodeSettings::read(section, hostname)),
            log: root.nested("log", LogSettings::read),
            tracing: root.optional("tracing", TracingSettings::read).flatten(),
            gossip: root.optional("gossip", GossipSettings::read),
        }
    }
}

impl NodeSettings {
    fn read(section: &mut Section<'_>, hostname: &str) -> NodeSettings {
        NodeSettings {
            id: short(section, "id").unwrap_or_else(|| hostname.to_owned()),
            data_dir: section.path("data_dir").unwrap_or_else(|| DEFAULT_DATA_DIR.into()),
            zone: short(section, "zone"),
        }
    }
}

/// A name without white space or control characters.
fn short(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    let name = section.name(key)?;
    match named(&name) {
        Ok(()) => Some(name),
        Err(expected) => {
            section.mistake(key, expected);
            None
        }
    }
}

/// Whether a node or a zone may be called this.
///
/// # Errors
/// What was expected.
pub fn named(name: &str) -> Result<(), String> {
    if name.len() > MAX_NAME || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("expected a name of at most {MAX_NAME} bytes without spaces"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;
    use crate::config::{Document, Expansion, Format};

    fn read(text: &str) -> Result<Settings, String> {
        let document = Document::parse("heddle.yaml", text, Format::Yaml, Expansion::Off).map_err(|m| m.to_string())?;
        document.read(|root| Settings::read(root, "host-1")).map_err(|m| m.to_string())
    }

    #[test]
    fn nothing_said_is_all_defaults() {
        let settings = read("").unwrap();
        assert_eq!(settings.node, NodeSettings { id: "host-1".into(), data_dir: "./heddle-data".into(), zone: None });
        assert_eq!(settings.log, LogSettings { level: LogLevel::Info, format: LogFormat::Text });
        assert_eq!((settings.tracing, settings.gossip), (None, None));
    }

    #[test]
    fn everything_can_be_said() {
        let text = "node: { id: gw-1, data_dir: /var/lib/heddle, zone: eu-1a }\nlog: { level: debug, format: json }\ntracing: { otlp: \"http://c:4317\", sample: 1, timeout: 2s }";
        let settings = read(text).unwrap();
        assert_eq!(settings.node.id, "gw-1");
        assert_eq!(settings.node.zone.as_deref(), Some("eu-1a"));
        assert_eq!(settings.log.format, LogFormat::Json);
        let tracing = TracingSettings { otlp: "http://c:4317".into(), sample: 1.0, timeout: Duration::from_secs(2) };
        assert_eq!(settings.tracing, Some(tracing));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let text = read("node: { id: a b, datadir: x }\nlog: { level: loud }\ntracing: { sample: 2 }").unwrap_err();
        for part in ["node.id", "did you mean `data_dir`", "log.level", "tracing: the key `otlp` is missing", "tracing.sample"] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }
}
