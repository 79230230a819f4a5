//! What is written down of the mesh: instances and addresses as JSON, by keys below `mesh/`. What cannot be read is as if it were not there.

use std::net::Ipv4Addr;
use std::sync::Arc;

use heddle_xds::model::{Instance, MeshProtocol};
use serde::{Deserialize, Serialize};

use super::Held;
use crate::model::ServiceId;

const INSTANCES: &str = "mesh/instances/";
const VIPS: &str = "mesh/vips/";

/// One record.
pub(super) enum Read {
    /// An instance.
    Instance { service: ServiceId, node: Arc<str>, zone: Arc<str>, instance: Instance, claim: u64, replica: Arc<str> },
    /// An address.
    Vip { service: Arc<str>, address: Ipv4Addr, released: Option<u64> },
}

#[derive(Serialize, Deserialize)]
struct InstanceForm {
    service: String,
    node: String,
    zone: String,
    address: String,
    port: u16,
    protocol: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ports: Vec<(u16, String)>,
    version: String,
    labels: Vec<(String, String)>,
    /// See [`Instance::process`].
    #[serde(default)]
    process: u64,
    /// See [`Instance::application`].
    #[serde(default)]
    application: u16,
    /// See [`Instance::is_seen`].
    #[serde(default)]
    is_seen: bool,
    /// The control plane that it is connected to, where there are several.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    replica: String,
    /// See [`Held::claim`].
    #[serde(default)]
    claim: u64,
}

#[derive(Serialize, Deserialize)]
struct VipForm {
    address: Ipv4Addr,
    released: Option<u64>,
}

pub(super) fn instance_key(service: &ServiceId, node: &str) -> String {
    format!("{INSTANCES}{service}/{node}")
}

pub(super) fn vip_key(service: &str) -> String {
    format!("{VIPS}{service}")
}

/// An instance that is connected to the control plane `replica`.
pub(super) fn of_instance(held: &Held, replica: &str) -> Vec<u8> {
    let instance = &held.instance;
    let form = InstanceForm {
        service: held.service.to_string(),
        node: held.node.to_string(),
        zone: held.zone.to_string(),
        address: instance.address.to_string(),
        port: instance.port,
        protocol: instance.protocol.as_str().to_owned(),
        ports: instance.ports.iter().map(|(port, protocol)| (*port, protocol.as_str().to_owned())).collect(),
        version: instance.version.to_string(),
        labels: instance.labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        process: instance.process,
        application: instance.application,
        is_seen: instance.is_seen,
        replica: replica.to_owned(),
        claim: held.claim,
    };
    json(&form)
}

pub(super) fn of_vip(address: Ipv4Addr, released: Option<u64>) -> Vec<u8> {
    json(&VipForm { address, released })
}

/// Texts and numbers always have a form in JSON.
fn json(form: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(form).unwrap_or_default()
}

pub(super) fn read(key: &str, body: &[u8]) -> Option<Read> {
    if let Some(service) = key.strip_prefix(VIPS) {
        let form: VipForm = serde_json::from_slice(body).ok()?;
        return Some(Read::Vip { service: service.into(), address: form.address, released: form.released });
    }
    key.strip_prefix(INSTANCES)?;
    let form: InstanceForm = serde_json::from_slice(body).ok()?;
    let labels = form.labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    let instance = Instance {
        address: form.address.into(),
        port: form.port,
        protocol: MeshProtocol::named(&form.protocol)?,
        ports: form
            .ports
            .into_iter()
            .map(|(port, protocol)| Some((port, MeshProtocol::named(&protocol)?)))
            .collect::<Option<_>>()?,
        version: form.version.into(),
        labels,
        draining: false,
        process: form.process,
        application: form.application,
        is_seen: form.is_seen,
    };
    let service = ServiceId::parse(&form.service, "")?;
    let (node, zone, replica) = (form.node.into(), form.zone.into(), form.replica.into());
    Some(Read::Instance { service, node, zone, instance, claim: form.claim, replica })
}

/// What a key is of: an instance of a service, or the address of one.
pub(super) enum Name {
    /// Service and node.
    Instance(ServiceId, Arc<str>),
    /// A service.
    Vip(Arc<str>),
}

pub(super) fn name(key: &str) -> Option<Name> {
    if let Some(service) = key.strip_prefix(VIPS) {
        return Some(Name::Vip(service.into()));
    }
    // A service is `namespace/name`; ids of nodes may hold slashes.
    let rest = key.strip_prefix(INSTANCES)?;
    let (namespace, rest) = rest.split_once('/')?;
    let (service, node) = rest.split_once('/')?;
    Some(Name::Instance(ServiceId::new(namespace, service)?, node.into()))
}
