//! Routes on the wire; it knows no other kind but the plugins that stand on them.

use heddle_proto::heddle::config::v1 as wire;

use super::plugin::{confs_from_wire, confs_to_wire};
use super::read::{
    Fault, MAX_NAME, Read, duration, json, name, networks, required, text, texts, to_duration, to_json, to_networks, to_texts,
};
use crate::model::{Route, RouteMatch, Timeouts, UpstreamRef};

pub(super) fn to_wire(route: &Route) -> wire::Route {
    wire::Route {
        id: route.id.to_string(),
        name: route.name.to_string(),
        service_id: route.service_id.to_string(),
        service_name: route.service_name.to_string(),
        matches: Some(wire::RouteMatch {
            uris: to_texts(&route.matches.uris),
            hosts: to_texts(&route.matches.hosts),
            methods: to_texts(&route.matches.methods),
            remote_addrs: to_networks(&route.matches.remote_addrs),
            vars: route.matches.vars.as_ref().map(|vars| to_json(vars)).unwrap_or_default(),
        }),
        priority: route.priority,
        created: route.created,
        plugins: confs_to_wire(&route.plugins),
        upstream: route.upstream.as_ref().map(|upstream| wire::UpstreamRef { name: upstream.name.to_string() }),
        timeouts: route.timeouts.as_ref().map(timeouts_to_wire),
        enable_websocket: route.enable_websocket,
        max_duration: route.max_duration.and_then(to_duration),
    }
}

pub(super) fn from_wire(message: wire::Route) -> Read<Route> {
    let upstream = message.upstream.map(|upstream| name("upstream.name", upstream.name)).transpose()?;
    Ok(Route {
        id: name("id", message.id)?,
        name: text("name", message.name, MAX_NAME)?,
        service_id: text("service_id", message.service_id, MAX_NAME)?,
        service_name: text("service_name", message.service_name, MAX_NAME)?,
        matches: matches_from_wire(required("matches", message.matches)?).map_err(|fault| fault.inside("matches"))?,
        priority: message.priority,
        created: message.created,
        plugins: confs_from_wire("plugins", message.plugins)?,
        upstream: upstream.map(|name| UpstreamRef { name }),
        timeouts: message.timeouts.map(timeouts_from_wire).transpose().map_err(|fault| fault.inside("timeouts"))?,
        enable_websocket: message.enable_websocket,
        max_duration: message.max_duration.map(|limit| duration("max_duration", Some(limit))).transpose()?,
    })
}

fn matches_from_wire(message: wire::RouteMatch) -> Read<RouteMatch> {
    if message.uris.is_empty() {
        return Err(Fault::new("uris", "must not be empty"));
    }
    Ok(RouteMatch {
        uris: texts("uris", message.uris)?,
        hosts: texts("hosts", message.hosts)?,
        methods: texts("methods", message.methods)?,
        remote_addrs: networks("remote_addrs", message.remote_addrs)?,
        vars: if message.vars.is_empty() { None } else { Some(json("vars", &message.vars)?) },
    })
}

pub(super) fn timeouts_to_wire(timeouts: &Timeouts) -> wire::Timeouts {
    wire::Timeouts { connect: to_duration(timeouts.connect), send: to_duration(timeouts.send), read: to_duration(timeouts.read) }
}

pub(super) fn timeouts_from_wire(message: wire::Timeouts) -> Read<Timeouts> {
    Ok(Timeouts {
        connect: duration("connect", message.connect)?,
        send: duration("send", message.send)?,
        read: duration("read", message.read)?,
    })
}
