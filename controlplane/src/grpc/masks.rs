//! What of a resource is shown to whom. It knows which fields are secret from the seal, and nothing of messages.

use std::sync::Arc;

use heddle_xds::catalog::Catalog;
use serde_json::Value;

use crate::model::ResourceKind;
use crate::seal;

/// What stands where a secret is not shown.
const MASK: &str = "******";

/// Hides secrets as far as the reader's role demands.
#[derive(Clone)]
pub(super) struct Masks {
    pub(super) catalog: Arc<dyn Catalog>,
    /// The reader may change everything, and reads what it changes; private keys of certificates it does not.
    pub(super) reader_is_admin: bool,
}

impl Masks {
    /// The value as its reader sees it.
    pub(super) fn shown(&self, kind: ResourceKind, value: &Value) -> Value {
        let mut value = if self.reader_is_admin { value.clone() } else { self.hidden(kind, value) };
        if let Some(fields) = value.as_object_mut().filter(|_| kind == ResourceKind::Ssl) {
            fields.shift_remove("key");
            fields.shift_remove("keys");
        }
        value
    }

    /// The value as everybody may see it.
    pub(super) fn hidden(&self, kind: ResourceKind, value: &Value) -> Value {
        let mut value = value.clone();
        seal::visit(kind, &mut value, &*self.catalog, &mut |text| MASK.clone_into(text));
        value
    }

    /// The configuration of one plugin as everybody may see it.
    pub(super) fn hidden_plugin(&self, name: &str, config: Value) -> Value {
        let mut holder = serde_json::json!({ "plugins": { name: config } });
        seal::visit(ResourceKind::Route, &mut holder, &*self.catalog, &mut |text| MASK.clone_into(text));
        holder["plugins"][name].take()
    }
}
