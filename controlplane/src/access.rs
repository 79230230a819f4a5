//! Whose an admin key is and what it allows, for both Admin APIs. Keys are kept and compared as digests; how a request carries one it does not know.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

use crate::settings::{AdminKey, Role};

/// All admin keys.
#[derive(Clone)]
pub struct Keys(Vec<Digested>);

#[derive(Clone)]
struct Digested {
    name: Arc<str>,
    digest: [u8; 32],
    role: Role,
}

impl Keys {
    /// Keeps digests only.
    pub fn new(keys: &[AdminKey]) -> Keys {
        Keys(
            keys.iter()
                .map(|key| Digested { name: key.name.as_str().into(), digest: sha256(key.key.reveal()), role: key.role })
                .collect(),
        )
    }

    /// Whose key it is. The time taken depends neither on the key nor on whose it is.
    pub(crate) fn find(&self, key: &str) -> Option<(Arc<str>, Role)> {
        let wanted = sha256(key);
        let mut found = None;
        for known in &self.0 {
            if bool::from(known.digest.ct_eq(&wanted)) {
                found = Some((known.name.clone(), known.role));
            }
        }
        found
    }
}

fn sha256(text: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use heddle_node::config::Secret;

    use super::*;

    #[test]
    fn keys_have_owners_and_roles() {
        let key = |name: &str, key: &str, role| AdminKey { name: name.to_owned(), key: Secret::new(key), role };
        let keys = Keys::new(&[key("ops", "aaaa", Role::Admin), key("eyes", "bbbb", Role::Viewer)]);
        assert_eq!(keys.find("bbbb"), Some(("eyes".into(), Role::Viewer)));
        assert_eq!(keys.find("aaa"), None);
        assert_eq!(keys.find(""), None);
    }
}
