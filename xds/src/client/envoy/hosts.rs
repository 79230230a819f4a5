//! How virtual hosts are called among our routes, and which of their domains are found by name. It knows no route.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::dialect::envoy::decode::piece::VirtualHost;

/// What virtual hosts are called among the routes: several may have one name, since only their domains must differ.
pub(super) fn names_of(hosts: &[VirtualHost]) -> Vec<Cow<'_, str>> {
    let mut times: HashMap<&str, usize> = HashMap::new();
    let name = |host: &VirtualHost, time: usize| if time == 1 { None } else { Some(format!("{}#{time}", host.name)) };
    let mut names = Vec::with_capacity(hosts.len());
    for host in hosts {
        let time = times.entry(&host.name).or_default();
        *time += 1;
        names.push(name(host, *time).map_or(Cow::Borrowed(&*host.name), Cow::Owned));
    }
    names
}

/// Whether a domain is one that our tables do not find by name.
pub(super) fn is_open(domain: &str) -> bool {
    domain.ends_with('*')
}

pub(super) fn has_port(domain: &str) -> bool {
    domain.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}
