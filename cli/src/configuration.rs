//! `heddle.yaml` as a whole: every floor reads its own sections, and all mistakes are told at once.

use std::path::Path;

use heddle_agent::filters::Registry;
use heddle_agent::settings::AgentSettings;
use heddle_controlplane::model::{ResourceKind, validate};
use heddle_controlplane::settings::{ControlPlaneSettings, ListenerSetting};
use heddle_node::config::{Data, Document, Expansion, Format, Mistake, Mistakes};
use heddle_node::settings::Settings;
use heddle_sidecar::capture::CaptureSettings;
use heddle_sidecar::webhook::WebhookSettings;

use crate::environment;

/// Everything that `heddle.yaml` says.
#[derive(Debug)]
pub struct Configuration {
    /// Its name, for messages.
    pub file: String,
    /// Node, log, tracing.
    pub node: Settings,
    /// The agent.
    pub agent: AgentSettings,
    /// The control plane.
    pub control_plane: ControlPlaneSettings,
    /// The admission webhook beside it.
    pub webhook: Option<WebhookSettings>,
    /// How an application's traffic is turned to the agent.
    pub capture: CaptureSettings,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The file cannot be read.
    #[error("{path}: {source}; give the configuration file with -c FILE, or none for all defaults")]
    Unreadable {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It has mistakes; one a line.
    #[error("{0}")]
    Mistakes(Mistakes),
}

/// Reads the file, or all defaults without one.
///
/// # Errors
/// All mistakes at once, each with file, line, column, path and what was expected.
pub fn read(path: Option<&Path>) -> Result<Configuration, ConfigurationError> {
    let (file, text) = match path {
        Some(path) => {
            let unreadable = |source| ConfigurationError::Unreadable { path: path.display().to_string(), source };
            (path.display().to_string(), std::fs::read(path).map_err(unreadable)?)
        }
        None => ("(defaults)".to_owned(), b"{}".to_vec()),
    };
    let format = path.and_then(Format::of).unwrap_or(Format::Yaml);
    let variables = environment::variables();
    let document = Document::parse(&file, &text, format, Expansion::All(&*variables)).map_err(ConfigurationError::Mistakes)?;
    let mut faults = Mistakes::default();
    let whole = document.read(|root| {
        let node = Settings::read(root, &environment::hostname());
        let agent = AgentSettings::read(root, environment::cores());
        let control_plane = ControlPlaneSettings::read(root);
        let webhook = root.optional("webhook", WebhookSettings::read);
        let capture = CaptureSettings::read(root);
        faults = listener_faults(&document, &control_plane.listeners);
        Configuration { file: file.clone(), node, agent, control_plane, webhook, capture }
    });
    match whole {
        Ok(configuration) => faults.or(configuration),
        Err(mistakes) => {
            faults.append(mistakes);
            Err(faults.sorted())
        }
    }
    .map_err(ConfigurationError::Mistakes)
}

/// What is wrong with the listeners themselves. They are resources, so their own rules judge them; here it is told where in the file.
fn listener_faults(document: &Document, listeners: &[ListenerSetting]) -> Mistakes {
    let items = match document.root.get("listeners").map(|node| &node.data) {
        Some(Data::List(items)) => items.as_slice(),
        _ => &[],
    };
    let mut faults = Mistakes::default();
    for listener in listeners {
        let Some(index) = items.iter().position(|item| Some(item.at) == listener.at) else { continue };
        let found =
            validate(ResourceKind::Listener, &listener.name, &listener.value, &Registry::default()).err().unwrap_or_default();
        for fault in found {
            let path =
                if fault.path.is_empty() { format!("listeners[{index}]") } else { format!("listeners[{index}].{}", fault.path) };
            faults.push(Mistake { file: document.file.clone(), at: document.locate(&path), path, message: fault.message });
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn faults_of_settings_and_of_listeners_are_told_together_with_their_places() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heddle.yaml");
        let text = "listeners:\n  - { name: a, address: \"127.0.0.1:0\", protocol: htp }\n  - name: b\n    address: nowhere\n    protocol: http\nbogus: 1\n";
        std::fs::write(&path, text).unwrap();
        let told = read(Some(&path)).unwrap_err().to_string();
        for part in [
            "yaml:2:50: listeners[0].protocol: ",
            "yaml:4:14: listeners[1].address: expected an address with port",
            "yaml:6:1: bogus: unknown key",
        ] {
            assert!(told.contains(part), "{part} is not in:\n{told}");
        }
    }
}
