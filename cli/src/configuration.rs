//! `heddle.yaml` as a whole: every floor reads its own sections, and all mistakes are told at once.

use std::path::Path;

use heddle_agent::settings::AgentSettings;
use heddle_controlplane::settings::ControlPlaneSettings;
use heddle_node::config::{Document, Expansion, Format, Mistakes};
use heddle_node::settings::Settings;

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
    let whole = document.read(|root| Configuration {
        file: file.clone(),
        node: Settings::read(root, &environment::hostname()),
        agent: AgentSettings::read(root, environment::cores()),
        control_plane: ControlPlaneSettings::read(root),
    });
    whole.map_err(ConfigurationError::Mistakes)
}
