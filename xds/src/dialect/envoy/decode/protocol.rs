//! What is said of HTTP/1.1 and HTTP/2 on both sides. It knows neither listeners nor clusters.

use super::read::{Fields, Read};

/// Reads `Http1ProtocolOptions`, of which nothing can be set that would change what is understood.
pub(super) fn http1(fields: &mut Fields<'_>) -> Read<()> {
    // Whole targets, HTTP/1.0 and trailers are understood in any case; whoever sends none is told by its own name.
    fields.ignore(&["allow_absolute_url", "accept_http_10", "default_host_for_http_10", "enable_trailers"]);
    fields.refuse("header_key_format", "is not supported: names of fields are sent as they came, or in lower case")
}

/// Reads `Http2ProtocolOptions`; says how many streams a connection may have, where that is said.
pub(super) fn http2(fields: &mut Fields<'_>) -> Read<Option<u32>> {
    // Windows and what counts as an attack are those of our HTTP/2, which asks silent upstreams whether they are there and takes WebSocket.
    fields.ignore(&["initial_stream_window_size", "initial_connection_window_size", "connection_keepalive", "allow_connect"]);
    fields.small("max_concurrent_streams")
}
