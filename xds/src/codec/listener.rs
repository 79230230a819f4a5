//! Listeners on the wire; it knows no other kind.

use std::sync::Arc;

use heddle_proto::heddle::config::v1 as wire;

use super::read::{
    Fault, MAX_NAME, MAX_TEXT, Read, duration, list, name, networks, optional, required, text, to_duration, to_networks, to_texts,
};
use crate::model::{
    EdgeLimits, ForwardedTrust, Listener, ListenerProtocol, PathPolicy, ProxyProtocol, ServerHeader, TcpRoute, TcpShare,
};

pub(super) fn to_wire(listener: &Listener) -> wire::Listener {
    let protocol = match listener.protocol {
        ListenerProtocol::Http => wire::ListenerProtocol::Http,
        ListenerProtocol::Https => wire::ListenerProtocol::Https,
        ListenerProtocol::Tcp => wire::ListenerProtocol::Tcp,
    };
    wire::Listener {
        name: listener.name.to_string(),
        address: listener.address.to_string(),
        protocol: protocol.into(),
        proxy_protocol: match &listener.proxy_protocol {
            ProxyProtocol::Off => None,
            ProxyProtocol::Required(peers) => Some(wire::ProxyProtocol { peers: to_networks(peers) }),
        },
        trusted: to_networks(&listener.forwarded.trusted),
        limits: Some(limits_to_wire(&listener.limits)),
        paths: Some(wire::PathPolicy {
            reject_encoded_slashes: listener.paths.reject_encoded_slashes,
            merge_slashes: listener.paths.merge_slashes,
            drop_underscore_headers: listener.paths.drop_underscore_headers,
        }),
        server: listener.server_header.server.as_ref().map(ToString::to_string),
        via: listener.server_header.via.as_ref().map(ToString::to_string),
        expose_reason: listener.expose_reason,
        nodes: to_texts(&listener.nodes),
        tcp: listener.tcp.iter().map(|route| tcp_to_wire(route)).collect(),
        sanitizes: listener.forwarded.sanitizes,
    }
}

pub(super) fn from_wire(message: wire::Listener) -> Read<Listener> {
    let address = text("address", message.address, MAX_TEXT)?;
    let paths = required("paths", message.paths)?;
    let proxy_protocol = match message.proxy_protocol {
        None => ProxyProtocol::Off,
        Some(proxy) => ProxyProtocol::Required(networks("proxy_protocol.peers", proxy.peers)?),
    };
    Ok(Listener {
        name: name("name", message.name)?,
        address: address.parse().map_err(|_| Fault::new("address", format!("expected ip:port, found {address:.100?}")))?,
        protocol: match wire::ListenerProtocol::try_from(message.protocol) {
            Ok(wire::ListenerProtocol::Http) => ListenerProtocol::Http,
            Ok(wire::ListenerProtocol::Https) => ListenerProtocol::Https,
            Ok(wire::ListenerProtocol::Tcp) => ListenerProtocol::Tcp,
            _ => return Err(Fault::new("protocol", format!("expected http, https or tcp, found {}", message.protocol))),
        },
        proxy_protocol,
        forwarded: ForwardedTrust { trusted: networks("trusted", message.trusted)?, sanitizes: message.sanitizes },
        limits: limits_from_wire(required("limits", message.limits)?).map_err(|fault| fault.inside("limits"))?,
        paths: PathPolicy {
            reject_encoded_slashes: paths.reject_encoded_slashes,
            merge_slashes: paths.merge_slashes,
            drop_underscore_headers: paths.drop_underscore_headers,
        },
        server_header: ServerHeader { server: optional("server", message.server)?, via: optional("via", message.via)? },
        expose_reason: message.expose_reason,
        nodes: list("nodes", message.nodes, |field, node| text(field, node, MAX_NAME))?,
        tcp: list("tcp", message.tcp, |field, route| tcp_from_wire(route).map(Arc::new).map_err(|fault| fault.inside(field)))?,
    })
}

fn tcp_to_wire(route: &TcpRoute) -> wire::TcpRoute {
    let share = |share: &TcpShare| wire::TcpShare { upstream: share.upstream.to_string(), weight: share.weight };
    wire::TcpRoute {
        server_names: to_texts(&route.server_names),
        for_tls: route.for_tls,
        terminate: route.terminate,
        upstreams: route.upstreams.iter().map(share).collect(),
        idle_timeout: to_duration(route.idle_timeout),
        connect_attempts: route.connect_attempts,
    }
}

fn tcp_from_wire(message: wire::TcpRoute) -> Read<TcpRoute> {
    let share = |field: &str, share: wire::TcpShare| -> Read<TcpShare> {
        let upstream = name("upstream", share.upstream).map_err(|fault| fault.inside(field))?;
        Ok(TcpShare { upstream, weight: share.weight })
    };
    let upstreams = list("upstreams", message.upstreams, share)?;
    if upstreams.iter().all(|share| share.weight == 0) {
        return Err(Fault::new("upstreams", "expected an upstream with a weight above 0"));
    }
    Ok(TcpRoute {
        server_names: list("server_names", message.server_names, |field, name| text(field, name, MAX_NAME))?,
        for_tls: message.for_tls,
        terminate: message.terminate,
        upstreams,
        idle_timeout: duration("idle_timeout", message.idle_timeout)?,
        connect_attempts: message.connect_attempts,
    })
}

fn limits_to_wire(limits: &EdgeLimits) -> wire::EdgeLimits {
    wire::EdgeLimits {
        max_header_bytes: limits.max_header_bytes,
        max_field_bytes: limits.max_field_bytes,
        max_headers: limits.max_headers,
        max_uri_bytes: limits.max_uri_bytes,
        header_timeout: to_duration(limits.header_timeout),
        idle_timeout: to_duration(limits.idle_timeout),
        body_timeout: to_duration(limits.body_timeout),
        send_timeout: to_duration(limits.send_timeout),
        handshake_timeout: to_duration(limits.handshake_timeout),
        max_body_bytes: limits.max_body_bytes,
        max_connections: limits.max_connections,
        max_connections_per_ip: limits.max_connections_per_ip,
        max_streams: limits.max_streams,
        max_requests_per_connection: limits.max_requests_per_connection,
        max_connection_duration: to_duration(limits.max_connection_duration),
        glitch_budget: limits.glitch_budget,
        max_chunk_extension_bytes: limits.max_chunk_extension_bytes,
    }
}

fn limits_from_wire(message: wire::EdgeLimits) -> Read<EdgeLimits> {
    Ok(EdgeLimits {
        max_header_bytes: message.max_header_bytes,
        max_field_bytes: message.max_field_bytes,
        max_headers: message.max_headers,
        max_uri_bytes: message.max_uri_bytes,
        header_timeout: duration("header_timeout", message.header_timeout)?,
        idle_timeout: duration("idle_timeout", message.idle_timeout)?,
        body_timeout: duration("body_timeout", message.body_timeout)?,
        send_timeout: duration("send_timeout", message.send_timeout)?,
        handshake_timeout: duration("handshake_timeout", message.handshake_timeout)?,
        max_body_bytes: message.max_body_bytes,
        max_connections: message.max_connections,
        max_connections_per_ip: message.max_connections_per_ip,
        max_streams: message.max_streams,
        max_requests_per_connection: message.max_requests_per_connection,
        max_connection_duration: match message.max_connection_duration {
            // An older control plane does not say it.
            None => std::time::Duration::ZERO,
            said => duration("max_connection_duration", said)?,
        },
        glitch_budget: message.glitch_budget,
        max_chunk_extension_bytes: message.max_chunk_extension_bytes,
    })
}
