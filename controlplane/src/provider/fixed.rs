//! Resources that are known when the process starts: the listeners of `heddle.yaml`. It reads no file.

use std::sync::Arc;

use async_trait::async_trait;
use heddle_node::config::Position;
use heddle_node::drain::DrainWatch;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{Batch, Provider, ProviderError};
use crate::model::{Key, ResourceKind};
use crate::settings::ListenerSetting;
use crate::state::{Content, Locate, Places, Update};

/// The name of this provider.
const NAME: &str = "config";

/// Reports the same resources once.
pub struct FixedProvider {
    source: Arc<str>,
    resources: Vec<(Key, Value)>,
    places: Places,
}

struct Lines {
    file: Arc<str>,
    at: Vec<(Key, Option<Position>)>,
}

impl Locate for Lines {
    fn place(&self, key: &Key, _path: &str) -> Option<String> {
        let at = self.at.iter().find(|(known, _)| known == key)?.1?;
        Some(format!("{}:{at}", self.file))
    }
}

impl FixedProvider {
    /// The listeners of `file`, as resources `name@config`.
    pub fn listeners(file: &str, listeners: Vec<ListenerSetting>) -> FixedProvider {
        let source: Arc<str> = file.into();
        let (mut resources, mut at) = (Vec::new(), Vec::new());
        for ListenerSetting { name, mut value, at: place } in listeners {
            let key = Key::new(ResourceKind::Listener, name.as_str());
            if let Some(fields) = value.as_object_mut() {
                fields.insert("id".into(), format!("{name}@{NAME}").into());
            }
            at.push((key.clone(), place));
            resources.push((key, value));
        }
        let places = Places::new(Arc::new(Lines { file: source.clone(), at }));
        FixedProvider { source, resources, places }
    }

    /// What it reports.
    pub fn update(&self) -> Update {
        Update {
            provider: NAME.into(),
            source: self.source.clone(),
            content: Content::Whole(self.resources.clone()),
            places: self.places.clone(),
        }
    }
}

#[async_trait]
impl Provider for FixedProvider {
    fn name(&self) -> &str {
        NAME
    }

    async fn run(&mut self, updates: mpsc::Sender<Batch>, mut shutdown: DrainWatch) -> Result<(), ProviderError> {
        // A closed channel means that nobody wants reports any more.
        let _ = updates.send(vec![self.update()]).await;
        shutdown.draining().await;
        Ok(())
    }
}
