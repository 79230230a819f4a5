//! A store that keeps secrets encrypted: what goes in is sealed, what comes out is plain. It knows nothing of how the store below keeps it.

use std::sync::Arc;

use async_trait::async_trait;
use heddle_xds::catalog::Catalog;
use serde_json::Value;
use tokio::sync::watch;

use super::{Seal, SealError, visit};
use crate::model::Key;
use crate::store::{Committed, Compare, Revision, Store, StoreError, Txn, Version, Write};

/// A store that keeps secrets encrypted.
pub struct Sealed {
    below: Arc<dyn Store>,
    seal: Arc<Seal>,
    catalog: Arc<dyn Catalog>,
}

impl Sealed {
    /// Seals what goes into `below`.
    pub fn new(below: Arc<dyn Store>, seal: Arc<Seal>, catalog: Arc<dyn Catalog>) -> Sealed {
        Sealed { below, seal, catalog }
    }

    /// Seals what a transaction writes.
    fn sealed(&self, mut txn: Txn) -> Result<Txn, StoreError> {
        for write in &mut txn.writes {
            let mut fault = None;
            if let Some(value) = &mut write.value {
                visit(write.key.kind, value, self.catalog.as_ref(), &mut |text| replace(text, self.seal.seal(text), &mut fault));
            }
            if let Some(error) = fault {
                return Err(StoreError::Io(format!("{}: {error}", write.key)));
            }
        }
        Ok(txn)
    }

    fn plain(&self, mut versions: Vec<Version>) -> Result<Vec<Version>, StoreError> {
        for version in &mut versions {
            let mut fault = None;
            if let Some(value) = &mut version.value {
                every_text(value, &mut |text| replace(text, self.seal.unseal(text), &mut fault));
            }
            if let Some(error) = fault {
                return Err(StoreError::Unusable(format!("{}: {error}", version.key)));
            }
        }
        Ok(versions)
    }
}

/// What was sealed once is found wherever it stands, also when its plugin no longer calls it secret.
fn every_text(value: &mut Value, each: &mut dyn FnMut(&mut String)) {
    match value {
        Value::String(text) => each(text),
        Value::Array(items) => items.iter_mut().for_each(|item| every_text(item, each)),
        Value::Object(map) => map.values_mut().for_each(|item| every_text(item, each)),
        _ => {}
    }
}

fn replace(text: &mut String, with: Result<String, SealError>, fault: &mut Option<SealError>) {
    match with {
        Ok(new) => *text = new,
        Err(error) => *fault = Some(error),
    }
}

#[async_trait]
impl Store for Sealed {
    async fn txn(&self, compare: Vec<Compare>, writes: Vec<Write>, author: Arc<str>) -> Result<Revision, StoreError> {
        let Txn { compare, writes, author, .. } = self.sealed(Txn { upon: None, compare, writes, author })?;
        self.below.txn(compare, writes, author).await
    }

    async fn txns(&self, txns: Vec<Txn>) -> Committed {
        let (mut sealed, mut fault) = (Vec::with_capacity(txns.len()), None);
        for txn in txns {
            match self.sealed(txn) {
                Ok(txn) => sealed.push(txn),
                Err(error) => {
                    fault = Some(error);
                    break;
                }
            }
        }
        let mut committed = self.below.txns(sealed).await;
        committed.failed = committed.failed.or(fault);
        committed
    }

    async fn load(&self) -> Result<(Revision, Vec<Version>), StoreError> {
        let (revision, versions) = self.below.load().await?;
        Ok((revision, self.plain(versions)?))
    }

    async fn at(&self, revision: Revision) -> Result<Vec<Version>, StoreError> {
        self.plain(self.below.at(revision).await?)
    }

    async fn history(&self, key: Option<Key>, before: Option<Revision>, limit: usize) -> Result<Vec<Version>, StoreError> {
        self.plain(self.below.history(key, before, limit).await?)
    }

    async fn since(&self, after: Revision, most: usize) -> Result<Vec<Version>, StoreError> {
        self.plain(self.below.since(after, most).await?)
    }

    fn setbacks(&self) -> u64 {
        self.below.setbacks()
    }

    fn unknown(&self) -> Vec<String> {
        self.below.unknown()
    }

    fn newest(&self) -> watch::Receiver<Revision> {
        self.below.newest()
    }

    async fn compact(&self, keep_revisions: u64, keep_ms: u64) -> Result<Revision, StoreError> {
        self.below.compact(keep_revisions, keep_ms).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use heddle_xds::catalog::{ConfigFault, Descriptor, Place, PluginKind};
    use serde_json::json;

    use super::*;
    use crate::model::ResourceKind;
    use crate::store::Memory;

    struct KeyAuth([Descriptor; 1]);

    impl Catalog for KeyAuth {
        fn descriptors(&self) -> &[Descriptor] {
            &self.0
        }

        fn schema(&self, _: &str, _: Place) -> Option<Value> {
            None
        }

        fn check(&self, _: &str, _: Place, _: &Value) -> Result<(), Vec<ConfigFault>> {
            Ok(())
        }
    }

    fn catalog() -> Arc<dyn Catalog> {
        Arc::new(KeyAuth([Descriptor {
            name: "key-auth",
            priority: 2500,
            version: "0.1",
            kind: PluginKind::Auth,
            unique_consumer_field: Some("key"),
            encrypt_fields: &["key"],
            prefer_route: false,
        }]))
    }

    #[tokio::test]
    async fn secrets_lie_encrypted_and_are_read_plain() {
        let below: Arc<dyn Store> = Arc::new(Memory::new(Arc::new(|| 1)));
        let seal = |byte| Arc::new(Seal::new(&[byte; 32]).unwrap());
        let store = Sealed::new(below.clone(), seal(1), catalog());
        let consumer = json!({"username": "jack", "plugins": {"key-auth": {"key": "hush"}}});
        let key = Key::new(ResourceKind::Consumer, "jack");
        let write = Write { key: key.clone(), value: Some(consumer.clone()), expires_at_ms: None };
        store.txn(vec![], vec![write], "ops".into()).await.unwrap();

        let raw = below.load().await.unwrap().1[0].value.clone().unwrap().to_string();
        assert!(!raw.contains("hush") && raw.contains("jack"), "{raw}");
        assert_eq!(store.load().await.unwrap().1[0].value, Some(consumer.clone()));
        assert_eq!(store.history(Some(key), None, 9).await.unwrap()[0].value, Some(consumer));
        let other = Sealed::new(below, seal(2), catalog());
        assert!(
            matches!(other.load().await, Err(StoreError::Unusable(why)) if why.contains("restore the key that belongs to this store"))
        );
    }
}
