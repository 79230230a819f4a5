//! Names of services as applications say them: in `Host`, in URLs, in DNS. It knows no service.

use std::net::IpAddr;
use std::sync::Arc;

/// What may follow `<service>.<namespace>`, as this mesh and Kubernetes say it.
const SUFFIXES: [(&str, Ending); 3] =
    [(".svc.cluster.local", Ending::Kubernetes), (".mesh", Ending::Mesh), (".svc", Ending::Kubernetes)];
/// The longest label of DNS (RFC 1035 section 2.3.4).
const MAX_LABEL: usize = 63;

/// What the end of a name says of whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It ends as only services of the mesh do.
    Mesh,
    /// It ends as services of Kubernetes do, of which not all are in the mesh.
    Kubernetes,
    /// Nothing: hosts outside have such names, too.
    Bare,
}

/// A host that may be that of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// `<namespace>/<service>`.
    pub service: Arc<str>,
    /// The port behind the name.
    pub port: Option<u16>,
    /// How the name ends.
    pub ending: Ending,
}

impl Called {
    /// The service that this authority (host and optional port) names: `<service>`, `<service>.<namespace>`, and both with what may follow them; `None` when it
    /// can be no service's. A name without a namespace is one of `own`.
    pub fn of(authority: &str, own: &str) -> Option<Called> {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (authority, None),
        };
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        // That is this host, wherever it is asked for (RFC 6761 section 6.3).
        if host == "localhost" || host.parse::<IpAddr>().is_ok() {
            return None;
        }
        let known = SUFFIXES.iter().find_map(|(suffix, ending)| Some((host.strip_suffix(suffix)?, *ending)));
        let (bare, ending) = known.unwrap_or((&host, Ending::Bare));
        let (service, namespace) = bare.split_once('.').unwrap_or((bare, own));
        let named = is_label(service) && is_label(namespace);
        named.then(|| Called { service: format!("{namespace}/{service}").into(), port, ending })
    }

    /// Whether whoever names it to a proxy means a service, and nobody outside.
    pub fn is_sure(&self) -> bool {
        self.ending != Ending::Bare
    }

    /// The service of this name of DNS that ends in `.mesh`.
    pub fn of_name(name: &str, own: &str) -> Option<Called> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if name.contains(':') || !name.ends_with(".mesh") { None } else { Called::of(&name, own) }
    }

    /// The service that this name of DNS is one of in a Kubernetes whose names end in `domain`: `<service>.<namespace>.svc`, with or without the domain behind it.
    /// Names of single pods and of ports (SRV) have more labels and are no service's.
    pub fn of_kubernetes(name: &str, domain: &str) -> Option<Arc<str>> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let within = name.strip_suffix(domain).and_then(|name| name.strip_suffix('.')).unwrap_or(&name);
        let (service, namespace) = within.strip_suffix(".svc")?.split_once('.')?;
        (is_label(service) && is_label(namespace)).then(|| format!("{namespace}/{service}").into())
    }
}

/// How others call a service of this name: `<service>.<namespace>`, with the port behind it where the service is a port of another one.
pub fn host_of(service: &str) -> String {
    let (service, port) = service.split_once(':').map_or((service, None), |(service, port)| (service, Some(port)));
    let mut host = service.split_once('/').map_or_else(|| service.to_owned(), |(namespace, name)| format!("{name}.{namespace}"));
    if let Some(port) = port {
        host.push(':');
        host.push_str(port);
    }
    host
}

fn is_label(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    !text.is_empty() && text.len() <= MAX_LABEL && text.bytes().all(allowed) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn services_are_known_by_all_their_names() {
        for (authority, service, port, ending) in [
            ("api", "shop/api", None, Ending::Bare),
            ("API:8080", "shop/api", Some(8080), Ending::Bare),
            ("api.pay", "pay/api", None, Ending::Bare),
            ("api.pay.mesh.", "pay/api", None, Ending::Mesh),
            ("api.mesh", "shop/api", None, Ending::Mesh),
            ("api.pay.svc.cluster.local:80", "pay/api", Some(80), Ending::Kubernetes),
            ("api.pay.svc", "pay/api", None, Ending::Kubernetes),
        ] {
            let expected = Called { service: service.into(), port, ending };
            assert_eq!(Called::of(authority, "shop"), Some(expected), "{authority}");
        }
        for none in [
            "",
            "10.0.0.1",
            "10.0.0.1:80",
            "[::1]:80",
            "a.b.c",
            "a..b",
            "-a",
            "www.example.com",
            "api:http",
            "api.pay.other.mesh",
            "localhost",
            "LocalHost:8080",
        ] {
            assert_eq!(Called::of(none, "shop"), None, "{none}");
        }
        assert_eq!(Called::of_name("api.pay.", "shop"), None, "the outside has names of two labels too");
        assert_eq!(Called::of_name("Api.Pay.Mesh.", "shop").unwrap().service, Arc::from("pay/api"));
        assert_eq!(host_of("pay/api"), "api.pay");
    }

    #[test]
    fn names_of_kubernetes_have_a_service_and_its_namespace_and_no_more() {
        for name in ["api.pay.svc", "API.pay.svc.", "api.pay.svc.cluster.local", "Api.Pay.Svc.Cluster.Local."] {
            assert_eq!(Called::of_kubernetes(name, "cluster.local").as_deref(), Some("pay/api"), "{name}");
        }
        for none in [
            "api.svc.cluster.local",
            "api.pay.svc.cluster.local.example",
            "api.pay.svcxcluster.local",
            "api.pay.svc.cluster.org",
            "db-0.db.pay.svc.cluster.local",
            "_grpc._tcp.api.pay.svc.cluster.local",
            "-.pay.svc",
            "api.pay.mesh",
            "svc.cluster.local",
            "cluster.local",
            "api.pay",
            "",
        ] {
            assert_eq!(Called::of_kubernetes(none, "cluster.local"), None, "{none}");
        }
        assert_eq!(Called::of_kubernetes("api.pay.svc.k8s.example.", "k8s.example").as_deref(), Some("pay/api"));
    }

    proptest! {
        #[test]
        fn no_authority_breaks_anything_and_names_are_sound(text in "[a-zA-Z0-9.:\\[\\]-]{0,80}|.{0,40}") {
            if let Some(called) = Called::of(&text, "own") {
                let (namespace, service) = called.service.split_once('/').unwrap();
                prop_assert!(is_label(namespace) && is_label(service));
                prop_assert_eq!(Called::of(&host_of(&called.service), "own").unwrap().service, called.service);
            }
        }
    }
}
