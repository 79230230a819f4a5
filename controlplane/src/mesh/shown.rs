//! Services and instances as people are shown them, and what is wrong with each. It changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use super::{Held, Known, Mesh, Registry, Standing};
use crate::model::ServiceId;

impl Mesh {
    /// Services and instances, and what was discovered beyond them: `{services: […], instances: […], discovered: […]}`.
    pub fn shown(&self, now: u64) -> Value {
        let contested = contested(&self.registry);
        let service = |(service, known): (&ServiceId, &Known)| {
            let standing = |one: Standing| self.registry.instances(service).filter(|held| held.standing == one).count();
            json!({
                "service": &**service.full(),
                "identity": &*self.directory.identity(service),
                "vip": known.vip,
                "protocol": known.found.as_ref().map(|found| found.protocol.as_str()),
                "resource": known.owners.first().map(|key| &*key.id),
                "federated": known.federated.as_ref().map(|partner| &*partner.written.trust_domain),
                "endpoints": match &known.federated {
                    Some(partner) => partner.written.nodes.0.len(),
                    None => known.found.as_ref().map_or(0, |found| found.endpoints.len()),
                },
                "live": standing(Standing::Live),
                "draining": standing(Standing::Draining),
                "fault": self.fault(service, &contested),
            })
        };
        json!({
            "services": self.directory.services().map(service).collect::<Vec<_>>(),
            "instances": self.registry.all().map(instance).collect::<Vec<_>>(),
            "discovered": self.directory.discovered().shown(now),
        })
    }

    fn fault(&self, service: &ServiceId, contested: &BTreeMap<&ServiceId, String>) -> Option<String> {
        let unnamed = || "no address is left for its name: choose a larger mesh.vip_range".to_owned();
        self.directory
            .fault(service)
            .or_else(|| contested.get(service).cloned())
            .or_else(|| self.registry.fault(service))
            .or_else(|| self.without_address.contains(service).then(unnamed))
    }
}

fn instance(held: &Held) -> Value {
    let labels: serde_json::Map<String, Value> =
        held.instance.labels.iter().map(|(name, value)| (name.to_string(), (&**value).into())).collect();
    let ports: serde_json::Map<String, Value> =
        held.instance.ports.iter().map(|(port, protocol)| (port.to_string(), protocol.as_str().into())).collect();
    json!({
        "service": &**held.service.full(), "node": &*held.node, "zone": &*held.zone, "address": &*held.instance.address,
        "port": held.instance.port, "protocol": held.instance.protocol.as_str(), "ports": ports, "version": &*held.instance.version,
        "labels": labels, "state": held.standing.as_str(), "since": held.since, "control_plane": held.of.as_deref(),
    })
}

/// Services that are, by what their live sidecars say, where a live sidecar of another service is: on one host a port may be listened on twice, and then it is a
/// matter of chance who answers.
fn contested(registry: &Registry) -> BTreeMap<&ServiceId, String> {
    let mut places = HashMap::<(&str, u16), BTreeSet<&ServiceId>>::new();
    for held in registry.all().filter(|held| held.standing == Standing::Live) {
        places.entry((&held.instance.address, held.instance.port)).or_default().insert(&held.service);
    }
    let mut found = BTreeMap::new();
    for ((address, port), services) in places.into_iter().filter(|(_, services)| services.len() > 1) {
        for service in &services {
            let others: Vec<&str> = services.iter().filter(|other| *other != service).map(|other| &**other.full()).collect();
            let others = others.join(", ");
            found.insert(
                *service,
                format!(
                    "its sidecar and that of {others} say to be at {address} port {port}: give each an inbound.address of its own"
                ),
            );
        }
    }
    found
}
