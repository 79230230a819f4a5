//! From JSON to a typed user resource, with every fault found on the way.

use heddle_xds::catalog::Catalog;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::resources::{
    AuthorizationPolicy, Consumer, ConsumerGroup, Credential, GlobalRule, Listener, MeshService, PeerAuthentication,
    PluginConfig, PluginMetadata, Route, Secret, Service, Ssl, Upstream,
};
use super::{Fault, MANAGERS, ResourceKind, schemas, semantics};

/// A user resource as a type.
#[derive(Debug, Clone, PartialEq)]
pub enum UserResource {
    /// `routes`.
    Route(Box<Route>),
    /// `services`.
    Service(Box<Service>),
    /// `upstreams`.
    Upstream(Box<Upstream>),
    /// `consumers`.
    Consumer(Box<Consumer>),
    /// `consumers/{username}/credentials`.
    Credential(Box<Credential>),
    /// `consumer_groups`.
    ConsumerGroup(Box<ConsumerGroup>),
    /// `plugin_configs`.
    PluginConfig(Box<PluginConfig>),
    /// `global_rules`.
    GlobalRule(Box<GlobalRule>),
    /// `ssls`.
    Ssl(Box<Ssl>),
    /// `plugin_metadata`.
    PluginMetadata(Box<PluginMetadata>),
    /// `secrets`.
    Secret(Box<Secret>),
    /// `listeners`.
    Listener(Box<Listener>),
    /// `mesh_services`.
    MeshService(Box<MeshService>),
    /// `authorization_policies`.
    AuthorizationPolicy(Box<AuthorizationPolicy>),
    /// `peer_authentications`.
    PeerAuthentication(Box<PeerAuthentication>),
}

/// Reads a user resource, plugins unchecked: shape (types, bounds, unknown fields), then meaning.
///
/// `id` is that of the key: `username/credentials/id` for credentials, `manager/id` for secrets.
pub fn parse(kind: ResourceKind, id: &str, value: &Value) -> Result<UserResource, Vec<Fault>> {
    let mut faults = check_schema(kind, id, value);
    match typed(kind, id, value) {
        Ok(resource) => {
            semantics::check(&resource, id, &mut faults);
            if faults.is_empty() { Ok(resource) } else { Err(faults) }
        }
        Err(fault) => {
            if faults.is_empty() {
                faults.push(fault);
            }
            Err(faults)
        }
    }
}

/// Reads a user resource and checks its plugins too. References to other resources are not followed.
pub fn validate(kind: ResourceKind, id: &str, value: &Value, catalog: &dyn Catalog) -> Result<UserResource, Vec<Fault>> {
    let parsed = parse(kind, id, value);
    let plugin_faults = semantics::plugins(kind, id, value, catalog);
    match parsed {
        Ok(resource) if plugin_faults.is_empty() => Ok(resource),
        Ok(_) => Err(plugin_faults),
        Err(mut faults) => {
            faults.extend(plugin_faults);
            Err(faults)
        }
    }
}

/// The faults of the shape alone, as `/schema/validate` wants them.
pub fn check_schema(kind: ResourceKind, id: &str, value: &Value) -> Vec<Fault> {
    match schemas::of(kind, id) {
        Some(compiled) => {
            let mut faults = compiled.shape.check(value);
            semantics::alternatives(kind, value, &mut faults);
            faults
        }
        None => vec![unknown_manager(id)],
    }
}

fn unknown_manager(id: &str) -> Fault {
    let manager = id.split('/').next().unwrap_or_default();
    Fault::whole("", format!("invalid secret manager: {manager} (expected one of {})", MANAGERS.join(", ")))
}

fn typed(kind: ResourceKind, id: &str, value: &Value) -> Result<UserResource, Fault> {
    Ok(match kind {
        ResourceKind::Route => UserResource::Route(read(value)?),
        ResourceKind::Service => UserResource::Service(read(value)?),
        ResourceKind::Upstream => UserResource::Upstream(read(value)?),
        ResourceKind::Consumer => UserResource::Consumer(read(value)?),
        ResourceKind::Credential => UserResource::Credential(read(value)?),
        ResourceKind::ConsumerGroup => UserResource::ConsumerGroup(read(value)?),
        ResourceKind::PluginConfig => UserResource::PluginConfig(read(value)?),
        ResourceKind::GlobalRule => UserResource::GlobalRule(read(value)?),
        ResourceKind::Ssl => UserResource::Ssl(read(value)?),
        ResourceKind::PluginMetadata => UserResource::PluginMetadata(read(value)?),
        ResourceKind::Listener => UserResource::Listener(read(value)?),
        ResourceKind::MeshService => UserResource::MeshService(read(value)?),
        ResourceKind::AuthorizationPolicy => UserResource::AuthorizationPolicy(read(value)?),
        ResourceKind::PeerAuthentication => UserResource::PeerAuthentication(read(value)?),
        ResourceKind::Secret => UserResource::Secret(Box::new(match id.split('/').next() {
            Some("vault") => Secret::Vault(*read(value)?),
            Some("aws") => Secret::Aws(*read(value)?),
            Some("gcp") => Secret::Gcp(*read(value)?),
            _ => return Err(unknown_manager(id)),
        })),
    })
}

fn read<T: DeserializeOwned>(value: &Value) -> Result<Box<T>, Fault> {
    serde_path_to_error::deserialize(value).map(Box::new).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        Fault::new(path, error.into_inner().to_string())
    })
}
