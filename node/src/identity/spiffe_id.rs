//! Names of workloads by the SPIFFE ID specification: parsed, printed, put together. It knows no certificates.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What a SPIFFE id starts with.
const SCHEME: &str = "spiffe://";

/// The longest id that everybody must support (SPIFFE-ID section 2.3).
pub const MAX_ID_BYTES: usize = 2_048;

/// The longest name of a trust domain (SPIFFE-ID section 2.3).
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// Why a text is no SPIFFE id or no trust domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// Another scheme, or none.
    #[error("{0:?} is no SPIFFE id: it has to start with spiffe://")]
    Scheme(String),
    /// Longer than [`MAX_ID_BYTES`].
    #[error("a SPIFFE id of {0} bytes is too long: at most {MAX_ID_BYTES}")]
    TooLong(usize),
    /// Empty, too long, or with a character that trust domains do not have.
    #[error(
        "{0:?} is no trust domain: expected 1 to {MAX_TRUST_DOMAIN_BYTES} lower-case letters, digits, '.', '-' or '_', such as mesh.example.org"
    )]
    TrustDomain(String),
    /// A segment that is empty, a dot, two dots, or has a character that paths do not have.
    #[error(
        "{0:?} is no segment of a SPIFFE id's path: expected letters, digits, '.', '-' or '_', but neither \".\" nor \"..\" nor nothing"
    )]
    Segment(String),
}

/// The name of a trust domain: whose roots vouch for the identities in it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The trust domain of this name (`mesh.example.org`, without scheme).
    ///
    /// # Errors
    /// It is not a name of the SPIFFE-ID specification, section 2.1.
    pub fn new(name: &str) -> Result<Self, SpiffeIdError> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        if name.is_empty() || name.len() > MAX_TRUST_DOMAIN_BYTES || !name.bytes().all(allowed) {
            return Err(SpiffeIdError::TrustDomain(shown(name)));
        }
        Ok(Self(name.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeIdError;

    fn from_str(name: &str) -> Result<Self, SpiffeIdError> {
        Self::new(name)
    }
}

/// Who a workload is: `spiffe://<trust domain>/<path>`. In this mesh the path is `/ns/<namespace>/svc/<service>`; ids of federated domains may
/// have any other.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    text: Arc<str>,
    domain: TrustDomain,
}

impl SpiffeId {
    /// Reads an id; nothing is normalised, since two ids are the same only if every byte is.
    ///
    /// # Errors
    /// It breaks a rule of the SPIFFE-ID specification, section 2.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > MAX_ID_BYTES {
            return Err(SpiffeIdError::TooLong(text.len()));
        }
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| SpiffeIdError::Scheme(shown(text)))?;
        let (domain, path) = match rest.split_once('/') {
            Some((domain, path)) => (domain, Some(path)),
            None => (rest, None),
        };
        let domain = TrustDomain::new(domain)?;
        if let Some(path) = path {
            path.split('/').try_for_each(segment)?;
        }
        Ok(Self { text: text.into(), domain })
    }

    /// The id of a service of this mesh.
    ///
    /// # Errors
    /// The namespace or the service is no segment of a path, or all together are too long.
    pub fn service(domain: &TrustDomain, namespace: &str, service: &str) -> Result<Self, SpiffeIdError> {
        segment(namespace)?;
        segment(service)?;
        Self::parse(&format!("{SCHEME}{domain}/ns/{namespace}/svc/{service}"))
    }

    /// The id of the control planes of a trust domain: `/ns/heddle/svc/controlplane`. Agents expect it at their control plane's address, so that no
    /// other workload can pass for one; no token may be bound to it.
    #[must_use]
    pub fn control_plane(domain: &TrustDomain) -> Self {
        Self { text: format!("{SCHEME}{domain}/ns/heddle/svc/controlplane").into(), domain: domain.clone() }
    }

    /// The whole id, as it stands in certificates.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whose roots vouch for it.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// What follows the trust domain, with its leading slash; empty for the id of a trust domain itself.
    #[must_use]
    pub fn path(&self) -> &str {
        self.text.get(SCHEME.len() + self.domain.0.len()..).unwrap_or_default()
    }

    /// The namespace, for ids of the form that this mesh gives out.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.parts().map(|(namespace, _)| namespace)
    }

    /// The service, for ids of the form that this mesh gives out.
    #[must_use]
    pub fn service_name(&self) -> Option<&str> {
        self.parts().map(|(_, service)| service)
    }

    fn parts(&self) -> Option<(&str, &str)> {
        let mut segments = self.path().split('/').skip(1);
        match (segments.next(), segments.next(), segments.next(), segments.next(), segments.next()) {
            (Some("ns"), Some(namespace), Some("svc"), Some(service), None) => Some((namespace, service)),
            _ => None,
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        Self::parse(text)
    }
}

fn segment(text: &str) -> Result<(), SpiffeIdError> {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    if text.is_empty() || text == "." || text == ".." || !text.bytes().all(allowed) {
        return Err(SpiffeIdError::Segment(shown(text)));
    }
    Ok(())
}

/// The beginning of a text that may have come from a stranger's certificate.
fn shown(text: &str) -> String {
    const MOST: usize = 80;
    if text.chars().nth(MOST).is_none() { text.to_owned() } else { text.chars().take(MOST).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_id_of_a_service_has_its_parts() {
        let domain = TrustDomain::new("mesh.example.org").unwrap();
        let id = SpiffeId::service(&domain, "default", "web").unwrap();
        assert_eq!(id.as_str(), "spiffe://mesh.example.org/ns/default/svc/web");
        assert_eq!(id.trust_domain(), &domain);
        assert_eq!((id.namespace(), id.service_name()), (Some("default"), Some("web")));
        assert_eq!(id.path(), "/ns/default/svc/web");
        assert_eq!(SpiffeId::control_plane(&domain), SpiffeId::service(&domain, "heddle", "controlplane").unwrap());
    }

    #[test]
    fn foreign_paths_are_ids_without_a_service() {
        for text in
            ["spiffe://a", "spiffe://a/ns/x", "spiffe://a/ns/x/svc/y/z", "spiffe://a/ns/x/sa/y", "spiffe://a/Workload_1.x"]
        {
            let id = SpiffeId::parse(text).unwrap();
            assert_eq!((id.namespace(), id.service_name()), (None, None), "{text}");
        }
    }

    #[test]
    fn what_the_specification_forbids_is_refused() {
        let wrong = [
            "",
            "spiffe:",
            "spiffe://",
            "spiffe:///a",
            "SPIFFE://a/b",
            "https://a/b",
            "spiffe://A/b",
            "spiffe://a:80/b",
            "spiffe://u@a/b",
            "spiffe://a/",
            "spiffe://a//b",
            "spiffe://a/b/",
            "spiffe://a/./b",
            "spiffe://a/../b",
            "spiffe://a/b?c",
            "spiffe://a/b#c",
            "spiffe://a/%41",
            "spiffe://a/b c",
            "spiffe://ä/b",
            "spiffe://a/ä",
            " spiffe://a/b",
        ];
        for text in wrong {
            assert!(SpiffeId::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lengths_are_bounded_at_the_byte() {
        let fits = format!("spiffe://a/{}", "b".repeat(MAX_ID_BYTES - 11));
        assert!(SpiffeId::parse(&fits).is_ok());
        assert_eq!(SpiffeId::parse(&format!("{fits}b")), Err(SpiffeIdError::TooLong(MAX_ID_BYTES + 1)));
        assert!(TrustDomain::new(&"a".repeat(MAX_TRUST_DOMAIN_BYTES)).is_ok());
        assert!(TrustDomain::new(&"a".repeat(MAX_TRUST_DOMAIN_BYTES + 1)).is_err());
    }

    #[test]
    fn parts_cannot_smuggle_a_path() {
        let domain = TrustDomain::new("a").unwrap();
        assert!(SpiffeId::service(&domain, "x/svc/admin", "y").is_err());
        assert!(SpiffeId::service(&domain, "..", "y").is_err());
        assert!(SpiffeId::service(&domain, "x", "").is_err());
    }

    proptest! {
        #[test]
        fn what_is_parsed_prints_the_same(domain in "[a-z0-9._-]{1,40}", path in prop::collection::vec("[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,20}", 0..6)) {
            let text = path.iter().fold(format!("spiffe://{domain}"), |text, segment| format!("{text}/{segment}"));
            let id = SpiffeId::parse(&text).unwrap();
            prop_assert_eq!(id.to_string(), text.clone());
            prop_assert_eq!(id.trust_domain().as_str(), domain);
            prop_assert_eq!(SpiffeId::parse(id.as_str()).unwrap(), id);
        }

        #[test]
        fn any_text_is_judged_without_a_panic(text in "(spiffe://)?[ -~ä/]{0,60}") {
            if let Ok(id) = SpiffeId::parse(&text) {
                prop_assert_eq!(id.as_str(), text.as_str());
                prop_assert!(!id.path().ends_with('/') && !id.path().contains("//"));
                prop_assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
            }
        }
    }
}
