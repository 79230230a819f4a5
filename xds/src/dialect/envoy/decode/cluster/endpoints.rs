//! Addresses of clusters. It knows nothing of how they are used.

use std::sync::Arc;

use serde_json::Value;

use super::super::piece::{Assignment, Locality, Probed};
use super::super::read::{Fault, Fields, Read};
use crate::model::{DropOverload, Endpoint, EndpointStatus, Labels};

/// Endpoints of one cluster.
const MAX_ENDPOINTS: usize = 20_000;
/// Longest DNS name (RFC 1035 section 2.3.4), with room for a scope id of an IPv6 literal.
const MAX_HOST: usize = 255;
/// How much above its fair share an endpoint may be loaded, in percent, where nothing is said: Envoy's own default.
pub(crate) const OVERPROVISIONING: u32 = 140;
/// Longest name under which requests are counted that are not sent.
const MAX_CATEGORY: usize = 256;
/// Labels of one endpoint.
const MAX_LABELS: usize = 128;
/// Who reads labels (Envoy's subset load balancer).
const SUBSETS: &str = "envoy.lb";

/// Whether names may stand where addresses do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lookup {
    Allowed,
    Never,
}

/// Reads a `ClusterLoadAssignment`.
pub(crate) fn read(fields: &mut Fields<'_>, lookup: Lookup) -> Read<Assignment> {
    let name = fields.name("cluster_name")?;
    let policy = fields.message("policy", |policy| {
        let drops = policy.list("drop_overloads", dropped)?;
        if drops.len() > DropOverload::MOST {
            let most = DropOverload::MOST;
            return Err(Fault::new("drop_overloads", format!("has {} categories, at most {most} are read", drops.len())));
        }
        policy.refuse("endpoint_stale_after", "is not supported: endpoints stay until they are replaced")?;
        Ok((policy.small("overprovisioning_factor")?, policy.is_on("weighted_priority_health")?, drops))
    })?;
    let (overprovisioning, health_by_weight, drops) = policy.unwrap_or_default();
    let overprovisioning = overprovisioning.unwrap_or(OVERPROVISIONING);
    if overprovisioning < 100 {
        return Err(Fault::new("policy.overprovisioning_factor", "expected 100 percent or more"));
    }
    fields.refuse("named_endpoints", "is not supported: write endpoints where they are used")?;
    let mut hosts = Hosts::default();
    let groups = fields.list("endpoints", |group| locality(group, lookup, &mut hosts))?;
    let mut endpoints: Vec<Endpoint> = Vec::new();
    let mut localities = Vec::with_capacity(groups.len());
    for (locality, found) in groups {
        localities.push(Locality { count: found.len(), ..locality });
        endpoints.extend(found);
    }
    if endpoints.len() > MAX_ENDPOINTS {
        return Err(Fault::new("endpoints", format!("has {} endpoints, at most {MAX_ENDPOINTS} are read", endpoints.len())));
    }
    let probed = hosts.probed()?;
    Ok(Assignment { name, endpoints: endpoints.into(), localities, overprovisioning, health_by_weight, probed, drops })
}

/// What endpoints say of the host that probes name.
#[derive(Default)]
struct Hosts {
    endpoints: usize,
    /// How many say themselves, and how many what the first of them says that says something.
    own: usize,
    same: usize,
    first: Option<Arc<str>>,
}

impl Hosts {
    fn note(&mut self, said: Option<&str>, (host, port): (&str, u16)) {
        self.endpoints += 1;
        let Some(said) = said else { return };
        self.own += usize::from(is_itself(said, host, port));
        let first = self.first.get_or_insert_with(|| said.into());
        self.same += usize::from(**first == *said);
    }

    /// One cluster probes all of its endpoints in one way: each as itself, or all as one host.
    fn probed(self) -> Read<Option<Probed>> {
        match self.first {
            None => Ok(None),
            Some(_) if self.own == self.endpoints => Ok(Some(Probed::Own)),
            Some(host) if self.same == self.endpoints => Ok(Some(Probed::As(host))),
            Some(_) => Err(Fault::new(
                "endpoints.lb_endpoints.endpoint.health_check_config.hostname",
                "expected the address of each endpoint, or one name for all of them: probes of a cluster differ in nothing else",
            )),
        }
    }
}

/// Whether a host is an endpoint, with or without its port.
fn is_itself(said: &str, host: &str, port: u16) -> bool {
    let bare = said.strip_suffix(&format!(":{port}")).unwrap_or(said);
    bare == host || bare.strip_prefix('[').and_then(|bare| bare.strip_suffix(']')) == Some(host)
}

/// A share of the requests that is not sent.
fn dropped(fields: &mut Fields<'_>) -> Read<DropOverload> {
    let category = fields.name("category")?;
    if category.len() > MAX_CATEGORY {
        return Err(Fault::new("category", format!("has {} bytes, at most {MAX_CATEGORY} are read", category.len())));
    }
    let millionths = fields.required("drop_percentage", |share| {
        let each = share.choice("denominator", &[("HUNDRED", 0, 10_000), ("TEN_THOUSAND", 1, 100), ("MILLION", 2, 1)])?;
        Ok(share.small("numerator")?.unwrap_or(0).saturating_mul(each.unwrap_or(10_000)))
    })?;
    if millionths > DropOverload::ALL {
        return Err(Fault::new("drop_percentage", "expected 100 percent at most"));
    }
    Ok(DropOverload { category, millionths })
}

fn locality(group: &mut Fields<'_>, lookup: Lookup, hosts: &mut Hosts) -> Read<(Locality, Vec<Endpoint>)> {
    let place = group.message("locality", |locality| {
        let mut part = |name: &str| Ok(locality.text(name)?.unwrap_or_default());
        Ok((part("region")?, part("zone")?, part("sub_zone")?))
    })?;
    let (region, zone, inner) = place.unwrap_or_default();
    let name: Arc<str> =
        if region.is_empty() && inner.is_empty() { zone.into() } else { format!("{region}/{zone}/{inner}").into() };
    let zone: Arc<str> = zone.into();
    let rank = group.small("priority")?.unwrap_or(0);
    let weight = group.small("load_balancing_weight")?.unwrap_or(0);
    group.ignore(&["proximity", "metadata"]);
    group.refuse("leds_cluster_locality_config", "is not supported")?;
    group.refuse("load_balancer_endpoints", "is not supported: use lb_endpoints")?;
    let priority = i32::try_from(rank).map_or(i32::MIN, |rank| -rank);
    let endpoints = group.list("lb_endpoints", |one| endpoint(one, (&zone, priority), lookup, hosts))?;
    Ok((Locality { name, priority, weight, count: endpoints.len() }, endpoints))
}

fn endpoint(one: &mut Fields<'_>, (zone, priority): (&Arc<str>, i32), lookup: Lookup, hosts: &mut Hosts) -> Read<Endpoint> {
    one.refuse("endpoint_name", "is not supported: write the endpoint itself")?;
    let ((host, port), probed) = one.required("endpoint", |endpoint| {
        endpoint.ignore(&["hostname"]);
        endpoint.refuse("additional_addresses", "is not supported: one address for each endpoint")?;
        let probed = endpoint.message("health_check_config", |check| {
            check.refuse("port_value", "is not supported: checks go to the port of the endpoint")?;
            check.refuse("address", "is not supported: checks go to the address of the endpoint")?;
            check.refuse("disable_active_health_check", "is not supported")?;
            let host = check.text("hostname")?;
            match host {
                Some(host) if host.len() > MAX_HOST || !host.bytes().all(|byte| byte.is_ascii_graphic()) => {
                    Err(Fault::new("hostname", format!("expected at most {MAX_HOST} bytes of visible ASCII without blanks")))
                }
                host => Ok(host),
            }
        })?;
        Ok((endpoint.required("address", address)?, probed.flatten()))
    })?;
    hosts.note(probed, (&host, port));
    let literal = host.parse::<std::net::IpAddr>().is_ok();
    if !literal && lookup == Lookup::Never {
        return Err(Fault::new(
            "endpoint.address.socket_address.address",
            "expected an IP address; names need the type STRICT_DNS or LOGICAL_DNS",
        ));
    }
    let statuses = [
        ("UNKNOWN", 0, EndpointStatus::Unknown),
        ("HEALTHY", 1, EndpointStatus::Healthy),
        ("UNHEALTHY", 2, EndpointStatus::Unhealthy),
        ("DRAINING", 3, EndpointStatus::Draining),
        ("TIMEOUT", 4, EndpointStatus::Unhealthy),
        ("DEGRADED", 5, EndpointStatus::Unknown),
    ];
    let status = one.choice("health_status", &statuses)?.unwrap_or_default();
    let labels = one.message("metadata", labels)?.unwrap_or_default();
    let weight = one.small("load_balancing_weight")?.unwrap_or(1);
    if weight == 0 {
        return Err(Fault::new("load_balancing_weight", "expected at least 1"));
    }
    Ok(Endpoint { host, port, weight, priority, zone: zone.clone(), status, labels })
}

/// A socket address: host and port.
pub(crate) fn address(fields: &mut Fields<'_>) -> Read<(Arc<str>, u16)> {
    fields.refuse("pipe", "Unix domain sockets are not supported")?;
    fields.refuse("envoy_internal_address", "internal listeners are not supported")?;
    fields.required("socket_address", |socket| {
        socket.choice("protocol", &[("TCP", 0, ())])?;
        socket.refuse("named_port", "is not supported: give port_value")?;
        socket.refuse("resolver_name", "is not supported: agent.resolvers says who is asked for names")?;
        socket.ignore(&["ipv4_compat"]);
        let host = socket.name("address")?;
        if host.len() > MAX_HOST || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(Fault::new("address", "expected an IP address or a DNS name"));
        }
        let port = socket.small("port_value")?.ok_or_else(|| Fault::new("port_value", "is missing"))?;
        let port = u16::try_from(port).map_err(|_| Fault::new("port_value", "expected at most 65535"))?;
        Ok((host, port))
    })
}

/// What subsets are made by. What others read is theirs.
fn labels(metadata: &mut Fields<'_>) -> Read<Labels> {
    metadata.ignore(&["typed_filter_metadata"]);
    let mut labels: Vec<(Arc<str>, Arc<str>)> = Vec::new();
    for (who, values) in metadata.map("filter_metadata")? {
        let Value::Object(values) = values else { continue };
        if who == SUBSETS {
            labels.extend(values.iter().filter_map(|(name, value)| Some((name.as_str().into(), value.as_str()?.into()))));
        }
    }
    if labels.len() > MAX_LABELS {
        return Err(Fault::new("filter_metadata", format!("expected at most {MAX_LABELS} labels")));
    }
    Ok(labels.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::super::super::read::message;
    use super::*;

    /// An assignment of endpoints, each with the host that it is to be probed as.
    fn told(endpoints: &[(&str, Option<&str>)]) -> Read<Assignment> {
        let one = |(address, host): &(&str, Option<&str>)| {
            let config = host.map_or(Value::Null, |host| json!({"hostname": host}));
            let address = json!({"socket_address": {"address": address, "port_value": 8080}});
            json!({"endpoint": {"address": address, "health_check_config": config}})
        };
        let all: Vec<Value> = endpoints.iter().map(one).collect();
        message(&json!({"cluster_name": "c", "endpoints": [{"lb_endpoints": all}]}), |fields| read(fields, Lookup::Never))
    }

    #[test]
    fn endpoints_are_probed_as_themselves_or_all_as_one() {
        let probed = |endpoints: &[(&str, Option<&str>)]| told(endpoints).map(|told| told.probed);
        assert_eq!(probed(&[("10.0.0.1", None)]), Ok(None));
        let own = [("10.0.0.1", Some("10.0.0.1:8080")), ("10.0.0.2", Some("10.0.0.2")), ("::1", Some("[::1]:8080"))];
        assert_eq!(probed(&own), Ok(Some(Probed::Own)));
        let one = [("10.0.0.1", Some("up.example")), ("10.0.0.2", Some("up.example"))];
        assert_eq!(probed(&one), Ok(Some(Probed::As("up.example".into()))));
        for odd in [Some("10.0.0.2:81"), Some("up.example"), None] {
            let fault = probed(&[("10.0.0.1", Some("10.0.0.1:8080")), ("10.0.0.2", odd)]).unwrap_err();
            assert_eq!(fault.field, "endpoints.lb_endpoints.endpoint.health_check_config.hostname", "{odd:?}");
        }
        let fault = probed(&[("10.0.0.1", Some("up.example\r\nx: y"))]).unwrap_err();
        assert_eq!(fault.field, "endpoints[0].lb_endpoints[0].endpoint.health_check_config.hostname");
    }

    #[test]
    fn health_of_a_priority_may_go_by_weight() {
        let policy = json!({"overprovisioning_factor": 200, "weighted_priority_health": true});
        let found = message(&json!({"cluster_name": "c", "policy": policy}), |fields| read(fields, Lookup::Never)).unwrap();
        assert_eq!((found.overprovisioning, found.health_by_weight), (200, true));
    }
}
