//! Consumers and their credentials, found by name or by the value that an authentication plugin has read.

use std::sync::Arc;

use foldhash::quality::RandomState;
use hashbrown::HashMap;
use heddle_xds::model;

use crate::exchange::ConsumerInfo;
use crate::filters::{Chain, Credential};

/// All consumers of one moment.
#[derive(Debug, Default)]
pub struct Consumers {
    by_name: HashMap<Arc<str>, Consumer, RandomState>,
    /// By plugin, of which there are few.
    by_credential: Vec<(&'static str, Credentials)>,
}

/// Who has which value.
type Credentials = HashMap<Box<[u8]>, Arc<ConsumerInfo>, RandomState>;

/// A consumer and what has been compiled of it.
pub struct Known<'a> {
    /// The consumer.
    pub consumer: &'a model::Consumer,
    /// Filters that apply once it is known.
    pub chain: &'a Arc<Chain>,
    /// Its credentials.
    pub credentials: &'a [Credential],
}

/// One consumer.
#[derive(Debug)]
struct Consumer {
    info: Arc<ConsumerInfo>,
    chain: Arc<Chain>,
}

impl Consumers {
    /// Indexes consumers with the filters that apply once they are known, and with their credentials.
    ///
    /// The tables of values are keyed with a random seed, so that the time of a look-up says nothing about how much of a guess was right.
    pub fn new<'a>(all: impl Iterator<Item = Known<'a>>) -> Consumers {
        let mut consumers = Consumers::default();
        for Known { consumer, chain, credentials } in all {
            let named = Arc::new(info(consumer, &Arc::default(), chain));
            consumers.by_name.insert(consumer.username.clone(), Consumer { info: named, chain: chain.clone() });
            for credential in credentials {
                let found = info(consumer, &credential.id, chain).proven_by(credential.proof.clone());
                consumers.credentials_of(credential.plugin).insert(credential.value.clone(), Arc::new(found));
            }
        }
        consumers
    }

    fn credentials_of(&mut self, plugin: &'static str) -> &mut Credentials {
        let place = self.by_credential.iter().position(|(name, _)| *name == plugin).unwrap_or_else(|| {
            self.by_credential.push((plugin, HashMap::default()));
            self.by_credential.len() - 1
        });
        &mut self.by_credential[place].1
    }

    /// Number of consumers.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Who has this value in the unique field of an authentication plugin.
    pub fn find_credential(&self, plugin: &str, value: &[u8]) -> Option<Arc<ConsumerInfo>> {
        let (_, table) = self.by_credential.iter().find(|(name, _)| *name == plugin)?;
        table.get(value).cloned()
    }

    /// The consumer of this name.
    pub fn consumer(&self, username: &str) -> Option<Arc<ConsumerInfo>> {
        Some(self.by_name.get(username)?.info.clone())
    }

    /// Filters that apply once this consumer is known; `None` when it neither brings any nor switches any off.
    pub fn chain(&self, consumer: &ConsumerInfo) -> Option<&Arc<Chain>> {
        if !consumer.has_filters {
            return None;
        }
        self.by_name.get(&consumer.username).map(|consumer| &consumer.chain)
    }
}

fn info(consumer: &model::Consumer, credential_id: &Arc<str>, chain: &Chain) -> ConsumerInfo {
    let model::Consumer { username, group_id, labels, .. } = consumer;
    ConsumerInfo::new(username.clone(), group_id.clone(), credential_id.clone(), labels.clone(), !chain.changes_nothing())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::filters::testing::REFERENCES;
    use crate::filters::{Keep, Parts, credentials};
    use crate::outbound::Outbound;
    use heddle_xds::model::{PluginConf, PluginOrigin};
    use serde_json::json;

    #[test]
    fn who_only_switches_plugins_off_has_a_chain_too() {
        let off = PluginConf {
            name: "limit-count".into(),
            config: Arc::new(json!({"_meta": {"disable": true}})),
            origin: PluginOrigin("consumer/jack".into()),
        };
        let keep = Keep::default();
        let parts = Parts { metadata: &|_| None, keep: &keep, outbound: &Outbound::default(), references: &REFERENCES };
        let chain = Arc::new(Chain::compile(&[off], &parts).unwrap());
        let jack = model::Consumer {
            username: "jack".into(),
            group_id: "".into(),
            credentials: vec![],
            plugins: vec![],
            labels: [].into(),
        };
        let consumers = Consumers::new([Known { consumer: &jack, chain: &chain, credentials: &[] }].into_iter());
        assert!(consumers.chain(&consumers.consumer("jack").unwrap()).is_some());
    }

    #[test]
    fn a_credential_leads_to_its_consumer_and_says_which_one_it_was() {
        let credential = |id: &str, key: &str| model::Credential {
            id: id.into(),
            plugin: "key-auth".into(),
            config: Arc::new(json!({ "key": key })),
        };
        let jack = model::Consumer {
            username: "jack".into(),
            group_id: "".into(),
            credentials: vec![credential("", "k1"), credential("c2", "k2")],
            plugins: vec![],
            labels: [("custom_id".into(), "42".into())].into(),
        };
        let known = Known { consumer: &jack, chain: &Arc::default(), credentials: &credentials(&jack.credentials).unwrap() };
        let consumers = Consumers::new([known].into_iter());
        let found = consumers.find_credential("key-auth", b"k2").unwrap();
        assert_eq!((&*found.username, &*found.credential_id, &*found.custom_id), ("jack", "c2", "42"));
        assert!(consumers.find_credential("key-auth", b"k3").is_none());
        assert!(consumers.find_credential("basic-auth", b"k1").is_none());
        assert!(consumers.chain(&found).is_none());
    }
}
