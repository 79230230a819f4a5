//! Mesh services, authorization policies and modes of authentication on the wire; it knows no other kind but the upstream and the plugins of a service.

use std::sync::Arc;

use heddle_proto::heddle::config::v1 as wire;

use super::plugin::{confs_from_wire, confs_to_wire};
use super::read::{Fault, MAX_NAME, Read, list, name, narrow, networks, required, text, texts, to_networks, to_texts};
use super::route::{timeouts_from_wire, timeouts_to_wire};
use super::upstream;
use crate::model::{
    AuthorizationPolicy, MeshInbound, MeshProtocol, MeshService, PeerAuthentication, PeerMode, PolicyAction, PolicyHeader,
    PolicyOperation, PolicyRule, PolicySource,
};

pub(super) fn service_to_wire(service: &MeshService) -> wire::MeshService {
    wire::MeshService {
        name: service.name.to_string(),
        protocol: protocol_to_wire(service.protocol).into(),
        vip: service.vip.map(|vip| vip.to_string()).unwrap_or_default(),
        ports: service.ports.iter().map(|port| u32::from(*port)).collect(),
        plugins: confs_to_wire(&service.plugins),
        timeouts: service.timeouts.as_ref().map(timeouts_to_wire),
        upstream: Some(upstream::to_wire(&service.upstream)),
        depends: to_texts(&service.depends),
        own_ports: service.own_ports.iter().map(|port| u32::from(*port)).collect(),
    }
}

pub(super) fn service_from_wire(message: wire::MeshService) -> Read<MeshService> {
    let vip = match message.vip.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| Fault::new("vip", format!("expected an IP address, found {text:.100?}")))?),
    };
    let upstream = required("upstream", message.upstream)?;
    Ok(MeshService {
        name: name("name", message.name)?,
        protocol: protocol_from_wire(message.protocol)?,
        vip,
        ports: ports("ports", message.ports)?,
        plugins: confs_from_wire("plugins", message.plugins)?,
        timeouts: message.timeouts.map(timeouts_from_wire).transpose().map_err(|fault| fault.inside("timeouts"))?,
        upstream: Arc::new(upstream::from_wire(upstream).map_err(|fault| fault.inside("upstream"))?),
        depends: list("depends", message.depends, name)?,
        own_ports: ports("own_ports", message.own_ports)?,
    })
}

pub(super) fn inbound_to_wire(inbound: &MeshInbound) -> wire::MeshInbound {
    wire::MeshInbound { service: inbound.service.to_string(), plugins: confs_to_wire(&inbound.plugins) }
}

pub(super) fn inbound_from_wire(message: wire::MeshInbound) -> Read<MeshInbound> {
    Ok(MeshInbound { service: name("service", message.service)?, plugins: confs_from_wire("plugins", message.plugins)? })
}

fn protocol_to_wire(protocol: MeshProtocol) -> wire::MeshProtocol {
    match protocol {
        MeshProtocol::Http => wire::MeshProtocol::Http,
        MeshProtocol::Http2 => wire::MeshProtocol::Http2,
        MeshProtocol::Grpc => wire::MeshProtocol::Grpc,
        MeshProtocol::Tcp => wire::MeshProtocol::Tcp,
        MeshProtocol::Auto => wire::MeshProtocol::Auto,
    }
}

fn protocol_from_wire(protocol: i32) -> Read<MeshProtocol> {
    match wire::MeshProtocol::try_from(protocol) {
        Ok(wire::MeshProtocol::Http) => Ok(MeshProtocol::Http),
        Ok(wire::MeshProtocol::Http2) => Ok(MeshProtocol::Http2),
        Ok(wire::MeshProtocol::Grpc) => Ok(MeshProtocol::Grpc),
        Ok(wire::MeshProtocol::Tcp) => Ok(MeshProtocol::Tcp),
        Ok(wire::MeshProtocol::Auto) => Ok(MeshProtocol::Auto),
        Ok(wire::MeshProtocol::Unspecified) | Err(_) => Err(Fault::new("protocol", format!("{protocol} is not a protocol"))),
    }
}

fn ports(field: &str, values: Vec<u32>) -> Read<Vec<u16>> {
    list(field, values, narrow)
}

pub(super) fn policy_to_wire(policy: &AuthorizationPolicy) -> wire::AuthorizationPolicy {
    let action = match policy.action {
        PolicyAction::Allow => wire::PolicyAction::Allow,
        PolicyAction::Deny => wire::PolicyAction::Deny,
    };
    wire::AuthorizationPolicy {
        id: policy.id.to_string(),
        namespace: policy.namespace.to_string(),
        service: policy.service.as_ref().map(ToString::to_string),
        action: action.into(),
        dry_run: policy.dry_run,
        rules: policy.rules.iter().map(rule_to_wire).collect(),
    }
}

pub(super) fn policy_from_wire(message: wire::AuthorizationPolicy) -> Read<AuthorizationPolicy> {
    let action = match wire::PolicyAction::try_from(message.action) {
        Ok(wire::PolicyAction::Allow) => PolicyAction::Allow,
        Ok(wire::PolicyAction::Deny) => PolicyAction::Deny,
        // Never a guess: a policy of an unknown sort is refused, and its last good version stays.
        Ok(wire::PolicyAction::Unspecified) | Err(_) => {
            return Err(Fault::new("action", format!("{} is not an action", message.action)));
        }
    };
    Ok(AuthorizationPolicy {
        id: name("id", message.id)?,
        namespace: name("namespace", message.namespace)?,
        service: message.service.map(|service| name("service", service)).transpose()?,
        action,
        dry_run: message.dry_run,
        rules: list("rules", message.rules, |field, rule| rule_from_wire(rule).map_err(|fault| fault.inside(field)))?,
    })
}

pub(super) fn peers_to_wire(peers: &PeerAuthentication) -> wire::PeerAuthentication {
    let port =
        |(port, mode): (&u16, &PeerMode)| wire::PeerPort { port: u32::from(*port), mode: mode_to_wire(Some(*mode)).into() };
    wire::PeerAuthentication {
        id: peers.id.to_string(),
        namespace: peers.namespace.to_string(),
        service: peers.service.as_ref().map(ToString::to_string),
        mode: mode_to_wire(peers.mode).into(),
        ports: peers.ports.iter().map(port).collect(),
    }
}

pub(super) fn peers_from_wire(message: wire::PeerAuthentication) -> Read<PeerAuthentication> {
    let port = |field: &str, port: wire::PeerPort| -> Read<(u16, PeerMode)> {
        let mode = mode_from_wire(port.mode).map_err(|fault| fault.inside(field))?;
        Ok((narrow(field, port.port)?, mode.ok_or_else(|| Fault::new(field, "has no mode".to_owned()))?))
    };
    Ok(PeerAuthentication {
        id: name("id", message.id)?,
        namespace: name("namespace", message.namespace)?,
        service: message.service.map(|service| name("service", service)).transpose()?,
        mode: mode_from_wire(message.mode)?,
        ports: list("ports", message.ports, port)?.into_iter().collect(),
    })
}

fn mode_to_wire(mode: Option<PeerMode>) -> wire::PeerMode {
    match mode {
        None => wire::PeerMode::Unspecified,
        Some(PeerMode::Strict) => wire::PeerMode::Strict,
        Some(PeerMode::Permissive) => wire::PeerMode::Permissive,
        Some(PeerMode::Disable) => wire::PeerMode::Disable,
    }
}

/// `None` where nothing is said; never a guess of a mode that is not known.
fn mode_from_wire(mode: i32) -> Read<Option<PeerMode>> {
    match wire::PeerMode::try_from(mode) {
        Ok(wire::PeerMode::Unspecified) => Ok(None),
        Ok(wire::PeerMode::Strict) => Ok(Some(PeerMode::Strict)),
        Ok(wire::PeerMode::Permissive) => Ok(Some(PeerMode::Permissive)),
        Ok(wire::PeerMode::Disable) => Ok(Some(PeerMode::Disable)),
        Err(_) => Err(Fault::new("mode", format!("{mode} is not a mode"))),
    }
}

fn rule_to_wire(rule: &PolicyRule) -> wire::PolicyRule {
    let source = |source: &PolicySource| wire::PolicySource {
        identities: to_texts(&source.identities),
        namespaces: to_texts(&source.namespaces),
        cidrs: to_networks(&source.cidrs),
        not_identities: to_texts(&source.not_identities),
        not_namespaces: to_texts(&source.not_namespaces),
        not_cidrs: to_networks(&source.not_cidrs),
    };
    let header = |header: &PolicyHeader| wire::PolicyHeader { name: header.name.to_string(), values: to_texts(&header.values) };
    let operation = |operation: &PolicyOperation| wire::PolicyOperation {
        methods: to_texts(&operation.methods),
        paths: to_texts(&operation.paths),
        hosts: to_texts(&operation.hosts),
        ports: operation.ports.iter().map(|port| u32::from(*port)).collect(),
        headers: operation.headers.iter().map(header).collect(),
        not_methods: to_texts(&operation.not_methods),
        not_paths: to_texts(&operation.not_paths),
    };
    wire::PolicyRule { from: rule.from.iter().map(source).collect(), to: rule.to.iter().map(operation).collect() }
}

fn rule_from_wire(rule: wire::PolicyRule) -> Read<PolicyRule> {
    Ok(PolicyRule {
        from: list("from", rule.from, |field, source| source_from_wire(source).map_err(|fault| fault.inside(field)))?,
        to: list("to", rule.to, |field, operation| operation_from_wire(operation).map_err(|fault| fault.inside(field)))?,
    })
}

fn source_from_wire(source: wire::PolicySource) -> Read<PolicySource> {
    Ok(PolicySource {
        identities: texts("identities", source.identities)?,
        namespaces: texts("namespaces", source.namespaces)?,
        cidrs: networks("cidrs", source.cidrs)?,
        not_identities: texts("not_identities", source.not_identities)?,
        not_namespaces: texts("not_namespaces", source.not_namespaces)?,
        not_cidrs: networks("not_cidrs", source.not_cidrs)?,
    })
}

fn operation_from_wire(operation: wire::PolicyOperation) -> Read<PolicyOperation> {
    let header = |field: &str, header: wire::PolicyHeader| -> Read<PolicyHeader> {
        Ok(PolicyHeader {
            name: text(field, header.name, MAX_NAME)?,
            values: texts("values", header.values).map_err(|fault| fault.inside(field))?,
        })
    };
    Ok(PolicyOperation {
        methods: texts("methods", operation.methods)?,
        paths: texts("paths", operation.paths)?,
        hosts: texts("hosts", operation.hosts)?,
        ports: ports("ports", operation.ports)?,
        headers: list("headers", operation.headers, header)?,
        not_methods: texts("not_methods", operation.not_methods)?,
        not_paths: texts("not_paths", operation.not_paths)?,
    })
}
