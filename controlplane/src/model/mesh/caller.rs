//! Who calls, as authorization policies name it: a service in short, or a SPIFFE id. It knows no certificate and judges nobody.

use heddle_node::identity::SpiffeId;

use super::service_id::{NAME_RULE, is_mesh_name};

/// What begins a SPIFFE id.
const SCHEME: &str = "spiffe://";

/// Callers of one sort.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Whoever has proved any identity: `*`.
    Anybody,
    /// Services of a namespace; the service may end with `*`.
    Service {
        /// The namespace.
        namespace: String,
        /// The service.
        service: String,
    },
    /// A SPIFFE id, which may end with `*`.
    Spiffe(String),
}

impl Caller {
    /// Reads `web` (a service of `namespace`), `shop/web`, `shop/*`, `*`, and SPIFFE ids.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str, namespace: &str) -> Result<Caller, String> {
        if text == "*" {
            return Ok(Caller::Anybody);
        }
        if text.starts_with(SCHEME) {
            return spiffe(text).map(|()| Caller::Spiffe(text.to_owned()));
        }
        let (namespace, service) = text.split_once('/').unwrap_or((namespace, text));
        let stem = service.strip_suffix('*').unwrap_or(service);
        if is_mesh_name(namespace) && (is_mesh_name(stem) || service == "*") {
            return Ok(Caller::Service { namespace: namespace.to_owned(), service: service.to_owned() });
        }
        Err(format!(
            "expected a service (\"web\", \"shop/web\", \"shop/*\"), a SPIFFE id, or \"*\" for whoever has an identity, got \"{text}\" \
             (names are {NAME_RULE})"
        ))
    }

    /// The SPIFFE id, or the beginning of SPIFFE ids with a `*` behind it.
    pub fn pattern(&self, trust_domain: &str) -> String {
        match self {
            Caller::Anybody => format!("{SCHEME}*"),
            Caller::Service { namespace, service } => format!("{SCHEME}{trust_domain}/ns/{namespace}/svc/{service}"),
            Caller::Spiffe(id) => id.clone(),
        }
    }
}

/// A SPIFFE id, or one cut off by `*` behind the name of its trust domain: else it would mean foreign domains that begin alike.
fn spiffe(text: &str) -> Result<(), String> {
    let Some(stem) = text.strip_suffix('*') else { return SpiffeId::parse(text).map(drop).map_err(|error| error.to_string()) };
    let whole = match stem.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/')) {
        Some(_) if stem.ends_with('/') => format!("{stem}x"),
        Some(_) => stem.to_owned(),
        None => {
            return Err(format!(
                "expected a * behind the whole name of a trust domain (\"spiffe://example.org/*\"), got \"{text}\""
            ));
        }
    };
    SpiffeId::parse(&whole).map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_become_ids_of_the_trust_domain() {
        let pattern = |text: &str| Caller::parse(text, "shop").map(|caller| caller.pattern("example.org"));
        for (text, id) in [
            ("web", "spiffe://example.org/ns/shop/svc/web"),
            ("web*", "spiffe://example.org/ns/shop/svc/web*"),
            ("pay/api", "spiffe://example.org/ns/pay/svc/api"),
            ("pay/*", "spiffe://example.org/ns/pay/svc/*"),
            ("*", "spiffe://*"),
            ("spiffe://other.org/any/path", "spiffe://other.org/any/path"),
            ("spiffe://other.org/ns/x/*", "spiffe://other.org/ns/x/*"),
            ("spiffe://other.org/*", "spiffe://other.org/*"),
            ("spiffe://other.org/ns/x*", "spiffe://other.org/ns/x*"),
        ] {
            assert_eq!(pattern(text).as_deref(), Ok(id), "{text}");
        }
        for bad in [
            "",
            "*/*",
            "*/web",
            "a*b",
            "Web",
            "pay/",
            "a/b/c",
            "spiffe://",
            "spiffe://other*",
            "spiffe://Other/*",
            "spiffe://o/a b",
        ] {
            assert!(pattern(bad).is_err(), "{bad}");
        }
    }
}
