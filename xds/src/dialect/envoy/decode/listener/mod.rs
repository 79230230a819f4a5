//! Listeners: sockets, chains of filters and TLS. It knows nothing of what is done with requests.

mod authz;
mod compress;
pub(super) mod filters;
mod http;
mod jwt;
pub(super) mod limit;
mod origins;
mod rbac;
mod tcp;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::cluster::endpoints::address;
use super::piece::{Chain, Does, Door};
use super::read::{Fault, Fields, Read, typed};
use super::tls;
use crate::model::{
    Certificate, EdgeLimits, ForwardedTrust, Listener, ListenerProtocol, PathPolicy, ProxyProtocol, ServerHeader,
};
use crate::snapshot::version_of;

const MANAGER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const PROXY: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
/// Longest list of server names that stands in the name of a certificate.
const MAX_LABEL: usize = 120;
/// Fields that say nothing about what is done with connections.
const IGNORED: [&str; 9] = [
    "metadata",
    "drain_type",
    "traffic_direction",
    "access_log",
    "stat_prefix",
    "enable_reuse_port",
    "ignore_global_conn_limit",
    "continue_on_listener_filters_timeout",
    "per_connection_buffer_limit_bytes",
];

/// Reads a listener.
pub(super) fn read(fields: &mut Fields<'_>) -> Read<Door> {
    let name = fields.name("name")?;
    fields.ignore(&IGNORED);
    for (field, reason) in [
        ("api_listener", "is for clients of gRPC: it opens no socket"),
        ("use_original_dst", "is not supported: traffic of applications is captured by heddle capture"),
        ("transparent", "is not supported"),
        ("freebind", "is not supported"),
        ("additional_addresses", "is not supported: use one listener for each address"),
        ("udp_listener_config", "QUIC and UDP are not supported"),
        ("connection_balance_config", "is not supported: connections are shared out by the kernel"),
        ("filter_chain_matcher", "is not supported: use filter_chain_match"),
        ("internal_listener", "is not supported"),
        ("listener_specifier", "is not supported"),
        ("socket_options", "is not supported"),
        ("tcp_backlog_size", "is not supported"),
        ("tcp_fast_open_queue_length", "is not supported"),
    ] {
        fields.refuse(field, reason)?;
    }
    if fields.flag("bind_to_port")? == Some(false) {
        return Err(Fault::new("bind_to_port", "a listener that opens no socket is not supported"));
    }
    let (host, port) = fields.required("address", address)?;
    let ip: IpAddr = host
        .parse()
        .map_err(|_| Fault::new("address.socket_address.address", format!("expected an IP address, found {host:.100?}")))?;
    let handshake = fields.duration("listener_filters_timeout")?.filter(|limit| !limit.is_zero());
    let proxied = fields.list("listener_filters", listener_filter)?.into_iter().any(|proxied| proxied);
    let mut listener = Listener {
        name: name.clone(),
        address: SocketAddr::new(ip.to_canonical(), port),
        protocol: ListenerProtocol::Http,
        proxy_protocol: if proxied { ProxyProtocol::Required(Vec::new()) } else { ProxyProtocol::Off },
        // `SANITIZE`, which is all that is supported.
        forwarded: ForwardedTrust { trusted: Vec::new(), sanitizes: true },
        limits: EdgeLimits {
            handshake_timeout: handshake.unwrap_or(EdgeLimits::default().handshake_timeout),
            ..EdgeLimits::default()
        },
        paths: PathPolicy { reject_encoded_slashes: false, merge_slashes: false, drop_underscore_headers: false },
        server_header: ServerHeader::default(),
        expose_reason: false,
        nodes: Vec::new(),
        tcp: Vec::new(),
    };
    let mut door = Door { listener: listener.clone(), chains: Vec::new(), secrets: Vec::new(), asks_secrets: Vec::new() };
    let chains = fields.list("filter_chains", |fields| read_chain(fields, false, &mut listener, &mut door))?;
    let default = fields.message("default_filter_chain", |fields| read_chain(fields, true, &mut listener, &mut door))?;
    door.chains = chains.into_iter().chain(default).collect();
    door.listener = listener;
    judged(door)
}

/// Chains must agree where our listeners know no difference.
fn judged(mut door: Door) -> Read<Door> {
    let Some(first) = door.chains.first() else { return Err(Fault::new("filter_chains", "must not be empty")) };
    shown_once(&door.chains)?;
    let bytes = door.chains.iter().filter(|chain| chain.http().is_none()).count();
    if bytes == door.chains.len() {
        door.listener.protocol = ListenerProtocol::Tcp;
        door.listener.limits.max_connection_duration = age(&door.chains)?;
        return apart(door);
    }
    if bytes > 0 {
        return Err(Fault::new(
            "filter_chains",
            "tcp_proxy and http_connection_manager on one listener are not supported: use two",
        ));
    }
    if door.chains.iter().any(|chain| chain.certificate.is_some() != first.certificate.is_some()) {
        return Err(Fault::new("filter_chains", "TLS and clear text on one listener are not supported: use two"));
    }
    if let Some((at, chain)) =
        door.chains.iter().enumerate().find(|(_, chain)| chain.for_tls == Some(chain.certificate.is_none()))
    {
        let place = format!("{}.filter_chain_match.transport_protocol", chain.place(at));
        return Err(Fault::new(place, "is not what its transport_socket takes: no client would be served"));
    }
    if door.chains.iter().filter(|chain| chain.names.is_empty()).count() > 1 {
        return Err(Fault::new("filter_chains", "more than one chain fits every server name"));
    }
    if first.certificate.is_some() {
        door.listener.protocol = ListenerProtocol::Https;
    }
    Ok(door)
}

/// A server name has one certificate, and with it one demand on clients.
fn shown_once(chains: &[Chain]) -> Read<()> {
    let mut known = BTreeSet::new();
    for name in chains.iter().filter_map(|chain| chain.certificate.as_ref()).flat_map(|certificate| &certificate.snis) {
        if !known.insert(name) {
            let name = if **name == *"*" { "every server name" } else { name };
            return Err(Fault::new("filter_chains", format!("more than one chain with TLS fits {name:.300}")));
        }
    }
    Ok(())
}

/// How old connections of bytes may become, which a listener of ours says for all of them.
fn age(chains: &[Chain]) -> Read<Duration> {
    let mut ages = chains.iter().filter_map(|chain| if let Does::Tcp(proxy) = &chain.does { Some(proxy.age) } else { None });
    let first = ages.next().unwrap_or_default();
    if ages.any(|age| age != first) {
        return Err(Fault::new("filter_chains", format!("{} must be the same in all chains: use two listeners", tcp::AGE)));
    }
    Ok(first)
}

/// Chains for bytes must be told apart: by a server name that only one has, and by whether clients begin with TLS.
fn apart(door: Door) -> Read<Door> {
    let mut known = BTreeSet::new();
    for chain in &door.chains {
        let nobody: Arc<str> = "".into();
        let names = if chain.names.is_empty() { std::slice::from_ref(&nobody) } else { &chain.names[..] };
        if let Some(twice) = names.iter().find(|name| !known.insert(((*name).clone(), chain.for_tls))) {
            let name = if twice.is_empty() { "every server name" } else { twice };
            return Err(Fault::new("filter_chains", format!("more than one chain fits {name:.300}")));
        }
    }
    Ok(door)
}

/// Reads a listener filter; whether it is the one that reads the PROXY protocol.
fn listener_filter(fields: &mut Fields<'_>) -> Read<bool> {
    fields.ignore(&["name"]);
    fields.refuse("config_discovery", "is not supported: use typed_config")?;
    fields.refuse("filter_disabled", "is not supported")?;
    let config = fields.take("typed_config").ok_or_else(|| Fault::new("typed_config", "is missing"))?;
    typed(config, |kind, filter| {
        match kind {
            // Server names and protocols are always looked at.
            "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
            | "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector" => {
                filter.ignore_all();
                Ok(false)
            }
            "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol" => {
                filter.refuse("allow_requests_without_proxy_protocol", "is not supported: the header is demanded")?;
                filter.refuse("rules", "is not supported")?;
                filter.refuse("pass_through_tlvs", "is not supported: what else the header tells is not kept")?;
                filter.ignore(&["stat_prefix"]);
                Ok(true)
            }
            other => Err(Fault::new("@type", format!("{other} is not supported"))),
        }
    })
    .map_err(|fault| fault.inside("typed_config"))
}

fn read_chain(fields: &mut Fields<'_>, is_default: bool, listener: &mut Listener, door: &mut Door) -> Read<Chain> {
    fields.ignore(&["name", "metadata"]);
    fields.refuse("use_proxy_proto", "is not supported: use the listener filter")?;
    if let Some(limit) = fields.duration("transport_socket_connect_timeout")?.filter(|limit| !limit.is_zero()) {
        listener.limits.handshake_timeout = limit;
    }
    let told = fields.message("filter_chain_match", chain_match)?;
    // The default chain is for whatever no other fits, whatever it says itself.
    let (names, for_tls) = told.filter(|_| !is_default).unwrap_or_default();
    let id = certificate_id(&listener.name, &names);
    let server = fields.message("transport_socket", |socket| transport(socket, &listener.name, &id, &names))?.flatten();
    let mut managers = fields.list("filters", |filter| {
        filter.ignore(&["name"]);
        filter.refuse("config_discovery", "is not supported: use typed_config")?;
        let config = filter.take("typed_config").ok_or_else(|| Fault::new("typed_config", "is missing"))?;
        typed(config, |kind, manager| match kind {
            MANAGER => http::read(manager, listener).map(Does::Http),
            PROXY => tcp::read(manager).map(Does::Tcp),
            other => Err(Fault::new("@type", format!("{other} is not supported; supported are {MANAGER} and {PROXY}"))),
        })
        .map_err(|fault| fault.inside("typed_config"))
    })?;
    let Some(does) = managers.pop().filter(|_| managers.is_empty()) else {
        return Err(Fault::new("filters", "expected exactly one, the http_connection_manager or the tcp_proxy"));
    };
    if matches!(does, Does::Tcp(_)) && server.as_ref().is_some_and(|server| server.chooses) {
        let place = "transport_socket.typed_config.common_tls_context.alpn_protocols";
        return Err(Fault::new(place, "is not supported with tcp_proxy: what is spoken inside TLS is not chosen"));
    }
    let certificate: Option<Certificate> = server.map(|server| {
        door.secrets.extend(server.secrets);
        door.asks_secrets.extend(server.asks);
        server.certificate
    });
    Ok(Chain { names, for_tls, certificate, is_default, does })
}

/// What the certificate of a chain is called here: by the names that it is shown for, so that it is the same one wherever its chain stands, and no other chain's.
fn certificate_id(listener: &str, names: &[Arc<str>]) -> String {
    let names: BTreeSet<&str> = names.iter().map(|name| &**name).collect();
    let is_odd = |name: &&str| name.contains(['/', ',']);
    let said = names.iter().copied().collect::<Vec<_>>().join(",");
    let label = match () {
        () if names.is_empty() => "*".to_owned(),
        // What could be taken for another one's, or fills the log, goes by a digest; no name begins with two stars.
        () if said.len() > MAX_LABEL || names.iter().any(is_odd) => {
            format!("**{}", version_of(serde_json::json!(names).to_string().as_bytes()))
        }
        () => said,
    };
    format!("listener/{listener}/{label}")
}

/// Server names for which a chain is, and whether it is for clients that begin with TLS.
fn chain_match(fields: &mut Fields<'_>) -> Read<(Vec<Arc<str>>, Option<bool>)> {
    for name in [
        "prefix_ranges",
        "address_suffix",
        "suffix_len",
        "source_prefix_ranges",
        "source_ports",
        "destination_port",
        "application_protocols",
        "source_type",
        "direct_source_prefix_ranges",
    ] {
        fields.refuse(name, "is not supported: chains are told apart by server_names alone")?;
    }
    let protocols = [("", 0, None), ("tls", 1, Some(true)), ("raw_buffer", 2, Some(false))];
    let for_tls = fields.choice("transport_protocol", &protocols)?.flatten();
    let names = fields.values("server_names", |name| {
        let name = name.as_str().unwrap_or_default().to_ascii_lowercase();
        let inner = name.strip_prefix("*.").unwrap_or(&name);
        if inner.is_empty() || inner.contains('*') {
            Err(Fault::new("", "expected a name or *.name"))
        } else {
            Ok(Arc::from(name))
        }
    })?;
    if !names.is_empty() && for_tls == Some(false) {
        return Err(Fault::new("server_names", "expected none: clients without TLS (raw_buffer) name no server"));
    }
    Ok((names, for_tls))
}

fn transport(socket: &mut Fields<'_>, listener: &Arc<str>, id: &str, names: &[Arc<str>]) -> Read<Option<tls::Server>> {
    socket.ignore(&["name"]);
    let config = socket.take("typed_config").ok_or_else(|| Fault::new("typed_config", "is missing"))?;
    typed(config, |kind, context| match kind {
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" => tls::server(context, listener, id, names).map(Some),
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => Ok(None),
        other => Err(Fault::new("@type", format!("{other} is not supported"))),
    })
    .map_err(|fault| fault.inside("typed_config"))
}
