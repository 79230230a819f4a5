//! Names of services of the mesh, `namespace/service`, as resources say them. It knows no identity and no instance.

use std::fmt;
use std::sync::Arc;

use heddle_xds::model::MESH_PREFIX;
use serde_json::Value;

use super::super::Key;

/// The namespace of what says none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// What a namespace or a service may be called, as faults say it.
pub(in super::super) const NAME_RULE: &str =
    "1 to 63 lower-case letters, digits, - and _, as it becomes a part of a host name and of an identity";

/// A service of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    full: Arc<str>,
    namespace: usize,
}

impl ServiceId {
    /// The service of this name in a namespace; `None` where one of both has a form that names do not have.
    pub fn new(namespace: &str, service: &str) -> Option<ServiceId> {
        let full = || ServiceId { full: format!("{namespace}/{service}").into(), namespace: namespace.len() };
        (is_mesh_name(namespace) && is_mesh_name(service)).then(full)
    }

    /// Reads `service`, which is one of `namespace`, or `namespace/service`.
    pub fn parse(text: &str, namespace: &str) -> Option<ServiceId> {
        match text.split_once('/') {
            Some((namespace, service)) => ServiceId::new(namespace, service),
            None => ServiceId::new(namespace, text),
        }
    }

    /// The same, behind which the port may stand that is called: `shop/web:9090`.
    pub fn parse_called(text: &str, namespace: &str) -> Option<(ServiceId, Option<u16>)> {
        match text.rsplit_once(':') {
            Some((service, port)) => {
                let port = port.parse().ok().filter(|number: &u16| *number > 0 && number.to_string() == *port)?;
                Some((ServiceId::parse(service, namespace)?, Some(port)))
            }
            None => Some((ServiceId::parse(text, namespace)?, None)),
        }
    }

    /// The service that a `mesh_services` resource speaks of: its `name`, else its id, in its `namespace`.
    pub fn of(key: &Key, value: &Value) -> Option<ServiceId> {
        let text = |field: &str| value.get(field).and_then(Value::as_str);
        ServiceId::new(text("namespace").unwrap_or(DEFAULT_NAMESPACE), text("name").unwrap_or_else(|| key.local_id()))
    }

    /// `namespace/service`.
    pub fn full(&self) -> &Arc<str> {
        &self.full
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.full.get(..self.namespace).unwrap_or_default()
    }

    /// The service, without its namespace.
    pub fn service(&self) -> &str {
        self.full.get(self.namespace + 1..).unwrap_or_default()
    }

    /// The name of its upstream and of its endpoints: `mesh/namespace/service`.
    pub fn upstream(&self) -> Arc<str> {
        format!("{MESH_PREFIX}{}", self.full).into()
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full)
    }
}

/// Whether a namespace or a service may be called so.
pub(in super::super) fn is_mesh_name(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::super::super::ResourceKind;
    use super::*;

    #[test]
    fn services_are_named_within_a_namespace() {
        let near = ServiceId::parse("web", "shop").unwrap();
        assert_eq!(
            (near.namespace(), near.service(), &**near.full(), &*near.upstream()),
            ("shop", "web", "shop/web", "mesh/shop/web")
        );
        assert_eq!(ServiceId::parse("pay/api", "shop").unwrap().to_string(), "pay/api");
        for bad in ["", "/", "a/", "/a", "a/b/c", "A", "a.b", "a b", &"x".repeat(64)] {
            assert_eq!(ServiceId::parse(bad, "shop"), None, "{bad}");
        }
    }

    #[test]
    fn resources_say_their_service_or_are_called_like_it() {
        let of = |id: &str, value| ServiceId::of(&Key::new(ResourceKind::MeshService, id), &value).map(|id| id.to_string());
        assert_eq!(of("web@file", json!({})), Some("default/web".to_owned()));
        assert_eq!(of("shop.web", json!({"namespace": "shop", "name": "web"})), Some("shop/web".to_owned()));
        assert_eq!(of("shop.web", json!({})), None);
    }
}
