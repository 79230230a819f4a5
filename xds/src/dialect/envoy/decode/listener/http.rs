//! What a listener does with requests: `HttpConnectionManager`. It knows neither sockets nor clusters.

use std::sync::Arc;
use std::time::Duration;

use super::super::piece::{Http, RouteTable, Routes};
use super::super::read::{Fault, Fields, Read};
use super::super::route::{self as routes, action};
use super::super::{protocol, source};
use super::{compress, filters};
use crate::model::Listener;

/// How long a stream may be silent, where nothing is said.
const IDLE: Duration = Duration::from_secs(300);
/// How long an idle connection of a client is kept, where nothing is said.
const CONNECTION_IDLE: Duration = Duration::from_secs(3600);
/// Zero switches a time limit off in Envoy.
const NEVER: Duration = Duration::from_secs(366 * 24 * 3600);
/// Fields that say nothing about what is done with requests: statistics, logs, traces, how errors of the protocol are told.
const IGNORED: [&str; 12] = [
    "stat_prefix",
    "access_log",
    "access_log_flush_interval",
    "access_log_options",
    "flush_access_log_on_new_request",
    "tracing",
    "drain_timeout",
    "delayed_close_timeout",
    "stream_error_on_invalid_http_message",
    "proxy_100_continue",
    "internal_address_config",
    "http1_safe_max_connection_duration",
];

/// Reads the manager; what it says of the edge goes into the listener.
pub(crate) fn read(fields: &mut Fields<'_>, listener: &mut Listener) -> Read<Http> {
    fields.ignore(&IGNORED);
    fields.choice("codec_type", &[("AUTO", 0, ()), ("HTTP1", 1, ()), ("HTTP2", 2, ())])?;
    for name in [
        "scoped_routes",
        "local_reply_config",
        "original_ip_detection_extensions",
        "early_header_mutation_extensions",
        "request_id_extension",
        "path_normalization_options",
        "typed_header_validation_config",
        "proxy_status_config",
        "represent_ipv4_remote_address_as_ipv4_mapped_ipv6",
        "http3_protocol_options",
        "add_user_agent",
        "set_current_client_cert_details",
        "request_timeout",
        "skip_xff_append",
        "xff_num_trusted_hops",
        "strip_trailing_host_dot",
        "scheme_header_transformation",
        "forward_proto_config",
        "always_set_request_id_in_response",
        "append_x_forwarded_port",
    ] {
        fields.refuse(name, "is not supported")?;
    }
    fields.choice("forward_client_cert_details", &[("SANITIZE", 0, ())])?;
    // A request id that a client sends is kept in any case.
    fields.ignore(&["preserve_external_request_id"]);
    edge(fields, listener)?;
    let routes = match (fields.message("rds", rds)?, fields.message("route_config", table)?) {
        (Some(routes), None) => routes,
        (None, Some(table)) => Routes::Told(Arc::new(table)),
        _ => return Err(Fault::new("rds", "expected exactly one of rds and route_config")),
    };
    let mut filters = fields.list("http_filters", filters::read)?;
    compress::in_turn(&mut filters);
    let websocket = fields.list("upgrade_configs", action::upgrade)?.into_iter().any(|enabled| enabled);
    let matching = fields.is_on("strip_matching_host_port")?;
    let strips_port = fields.is_on("strip_any_host_port")? || matching;
    Ok(Http {
        routes,
        filters,
        websocket,
        strips_port,
        idle: limit(fields.duration("stream_idle_timeout")?, IDLE),
        request_id: fields.flag("generate_request_id")?.unwrap_or(true),
    })
}

fn limit(said: Option<Duration>, default: Duration) -> Duration {
    said.map_or(default, |limit| if limit.is_zero() { NEVER } else { limit })
}

/// Routes that stand in their listener.
fn table(fields: &mut Fields<'_>) -> Read<RouteTable> {
    let checks_clusters = fields.flag("validate_clusters")?.unwrap_or(true);
    Ok(RouteTable { checks_clusters, ..routes::read(fields)? })
}

fn rds(fields: &mut Fields<'_>) -> Read<Routes> {
    let patience = fields.required("config_source", source::read)?;
    Ok(Routes::Asked(fields.name("route_config_name")?, patience))
}

/// What the edge lets in.
fn edge(fields: &mut Fields<'_>, listener: &mut Listener) -> Read<()> {
    // Paths are always normalised here: what is matched is what is forwarded.
    fields.ignore(&["normalize_path"]);
    listener.paths.merge_slashes |= fields.is_on("merge_slashes")?;
    let slashes = [("IMPLEMENTATION_SPECIFIC_DEFAULT", 0, false), ("KEEP_UNCHANGED", 1, false), ("REJECT_REQUEST", 2, true)];
    listener.paths.reject_encoded_slashes |= fields.choice("path_with_escaped_slashes_action", &slashes)?.unwrap_or(false);
    if !fields.is_on("use_remote_address")? {
        // Envoy believes what is forwarded unless it is told that it is at the edge.
        listener.forwarded.trusted = ["0.0.0.0/0", "::/0"].iter().filter_map(|every| every.parse().ok()).collect();
    }
    if let Some(kib) = fields.small("max_request_headers_kb")? {
        listener.limits.max_header_bytes = kib.saturating_mul(1024);
        listener.limits.max_field_bytes = listener.limits.max_field_bytes.min(listener.limits.max_header_bytes);
    }
    if let Some(limit) = fields.duration("request_headers_timeout")?.filter(|limit| !limit.is_zero()) {
        listener.limits.header_timeout = limit;
    }
    let name = fields.text("server_name")?;
    let pass =
        fields.choice("server_header_transformation", &[("OVERWRITE", 0, false), ("PASS_THROUGH", 2, true)])?.unwrap_or(false);
    listener.server_header.server = if pass { None } else { Some(name.unwrap_or("envoy").into()) };
    listener.server_header.via = fields.text("via")?.map(Arc::from);
    listener.limits.idle_timeout = CONNECTION_IDLE;
    fields.message("common_http_protocol_options", |common| {
        listener.limits.idle_timeout = limit(common.duration("idle_timeout")?, CONNECTION_IDLE);
        if let Some(most) = common.small("max_headers_count")? {
            listener.limits.max_headers = most;
        }
        if let Some(most) = common.small("max_requests_per_connection")? {
            listener.limits.max_requests_per_connection = most;
        }
        let actions = [("ALLOW", 0, false), ("DROP_HEADER", 2, true)];
        listener.paths.drop_underscore_headers |= common.choice("headers_with_underscores_action", &actions)?.unwrap_or(false);
        listener.limits.max_connection_duration = common.duration("max_connection_duration")?.unwrap_or_default();
        common.refuse("max_stream_duration", "is not supported: use max_stream_duration of routes")
    })?;
    fields.message("http_protocol_options", protocol::http1)?;
    let streams = fields.message("http2_protocol_options", protocol::http2)?.flatten();
    listener.limits.max_streams = streams.unwrap_or(listener.limits.max_streams);
    Ok(())
}
