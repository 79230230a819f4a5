//! Who a request comes from, once authentication knows. It knows no way of proving it.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::http::{FieldName, Fields};

const USERNAME: FieldName = FieldName::of("X-Consumer-Username");
const CREDENTIAL: FieldName = FieldName::of("X-Credential-Identifier");
const CUSTOM_ID: FieldName = FieldName::of("X-Consumer-Custom-ID");

/// What a credential is proven against (a key, a hash), as its plugin has compiled it; shared by all workers.
pub type Proof = Arc<dyn Any + Send + Sync>;

/// Who authentication found.
#[derive(Debug)]
pub struct ConsumerInfo {
    /// Unique name.
    pub username: Arc<str>,
    /// Consumer group, empty when none.
    pub group_id: Arc<str>,
    /// Credential that was used, empty when it stands on the consumer itself.
    pub credential_id: Arc<str>,
    /// Label `custom_id`, empty when none.
    pub custom_id: Arc<str>,
    /// Labels.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Whether filters of its own come with it, or some are switched off for it.
    pub has_filters: bool,
    /// What the credential that led here is proven against; `None` where its unique value proves everything (`key-auth`).
    pub proof: Option<Proof>,
    /// What the upstream is told, laid out once.
    introduction: Fields,
}

impl ConsumerInfo {
    /// A consumer that was identified by this credential.
    pub fn new(
        username: Arc<str>,
        group_id: Arc<str>,
        credential_id: Arc<str>,
        labels: BTreeMap<Arc<str>, Arc<str>>,
        has_filters: bool,
    ) -> ConsumerInfo {
        let custom_id: Arc<str> = labels.get("custom_id").cloned().unwrap_or_default();
        let mut introduction = Fields::new();
        for (name, value) in [(&USERNAME, &username), (&CREDENTIAL, &credential_id), (&CUSTOM_ID, &custom_id)] {
            if !value.is_empty() {
                introduction.append_named(name, &**value);
            }
        }
        ConsumerInfo {
            introduction: introduction.laid_out(),
            username,
            group_id,
            credential_id,
            custom_id,
            labels,
            has_filters,
            proof: None,
        }
    }

    /// The same, for a credential that must be proven against this.
    #[must_use]
    pub fn proven_by(self, proof: Option<Proof>) -> ConsumerInfo {
        ConsumerInfo { proof, ..self }
    }

    /// Tells the upstream who it is, in the fields of a request. What the client claimed in these fields is dropped.
    pub fn introduce(&self, fields: &mut Fields) {
        for name in [&USERNAME, &CREDENTIAL, &CUSTOM_ID] {
            fields.remove_named(name);
        }
        fields.append_all(&self.introduction);
    }
}
