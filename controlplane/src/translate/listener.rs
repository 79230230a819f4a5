//! Listeners, from the form that users write to the one that agents run. Defaults are those of the two models.

use std::sync::Arc;
use std::time::Duration;

use heddle_xds::model::{ForwardedTrust, Listener, ListenerProtocol, ProxyProtocol, Resource, ServerHeader, TcpRoute, TcpShare};
use serde::Deserialize;
use serde_json::Value;

use super::context::{Context, Unit};
use super::{read, upstream};
use crate::model::resources::{self, Protocol, TlsMode};
use crate::model::{Key, ResourceKind};
use crate::state::Stored;

/// How long nothing may move on a connection of bytes when nothing is said: who holds a connection to a database or a queue is often silent for long.
const TCP_IDLE: Duration = Duration::from_secs(3600);

/// Translates one listener. Its name on the data plane is its id, which is unique.
pub(super) fn unit(context: &mut Context<'_>, key: &Key, stored: &Stored) -> Unit {
    let Ok(written) = resources::Listener::deserialize(&stored.value) else { return Unit::default() };
    let mut owned = Vec::new();
    let tcp = if written.protocol == Protocol::Tcp { tcp(context, key, stored, &written, &mut owned) } else { Vec::new() };
    let listener = Listener {
        name: key.id.clone(),
        address: written.address,
        protocol: match written.protocol {
            Protocol::Http => ListenerProtocol::Http,
            Protocol::Https => ListenerProtocol::Https,
            Protocol::Tcp => ListenerProtocol::Tcp,
        },
        limits: written.limits.edge(),
        paths: written.paths.policy(),
        proxy_protocol: match written.proxy_protocol {
            resources::ProxyProtocol::Off => ProxyProtocol::Off,
            resources::ProxyProtocol::On(trusted) => ProxyProtocol::Required(trusted),
        },
        forwarded: ForwardedTrust { trusted: written.forwarded.trusted, sanitizes: false },
        server_header: ServerHeader {
            server: Some(written.server_header.server).filter(|name| !name.is_empty()).map(Arc::from),
            via: written.server_header.via.map(Arc::from),
        },
        expose_reason: written.expose_reason,
        nodes: written.nodes.into_iter().map(Arc::from).collect(),
        tcp,
    };
    owned.push(Resource::Listener(listener));
    Unit { resources: owned, ..Unit::default() }
}

/// Where the connections of a TCP listener go: its routes, or one for all. Upstreams that are written inside are added to `owned`.
fn tcp(
    context: &mut Context<'_>,
    key: &Key,
    stored: &Stored,
    written: &resources::Listener,
    owned: &mut Vec<Resource>,
) -> Vec<Arc<TcpRoute>> {
    let idle_timeout = written.limits.idle_timeout.map_or(TCP_IDLE, |span| span.0);
    if written.routes.is_empty() {
        let upstream = upstream_of(context, key, &stored.value, &key.to_string(), owned);
        let terminate = written.tls == Some(TlsMode::Terminate);
        let upstreams = upstream.into_iter().map(|upstream| TcpShare { upstream, weight: 1 }).collect();
        let route =
            TcpRoute { server_names: Vec::new(), for_tls: None, terminate, upstreams, idle_timeout, connect_attempts: None };
        return vec![Arc::new(route)];
    }
    let values = stored.value.get("routes").and_then(Value::as_array).into_iter().flatten();
    let routes = written.routes.iter().zip(values).enumerate().map(|(at, (route, value))| {
        let one =
            upstream_of(context, key, value, &format!("{key}/{at}"), owned).map(|upstream| TcpShare { upstream, weight: 1 });
        let shares = route.upstreams.iter().map(|share| TcpShare {
            upstream: upstream::name_of(&context.name(ResourceKind::Upstream, share.upstream_id.as_str(), key)).into(),
            weight: share.weight,
        });
        Arc::new(TcpRoute {
            server_names: route.server_names.iter().map(|name| name.to_ascii_lowercase().into()).collect(),
            for_tls: None,
            terminate: route.tls == TlsMode::Terminate,
            upstreams: one.into_iter().chain(shares).collect(),
            idle_timeout,
            connect_attempts: route.connect_attempts,
        })
    });
    routes.collect()
}

/// The name of an upstream that is written inside, which is added to `owned`, or named by its id.
fn upstream_of(context: &mut Context<'_>, key: &Key, value: &Value, own: &str, owned: &mut Vec<Resource>) -> Option<Arc<str>> {
    if let Some(inline) = value.get("upstream").filter(|inline| inline.is_object()) {
        owned.extend(upstream::translate(context, key, own, own, inline));
        return Some(own.into());
    }
    let id = read::reference(value, "upstream_id")?;
    Some(upstream::name_of(&context.name(ResourceKind::Upstream, &id, key)).into())
}
