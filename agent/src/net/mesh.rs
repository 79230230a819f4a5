//! What connections between members of the mesh have in common on the wire. It knows no identities.

/// What members of the mesh offer in ALPN when they call each other: HTTP/2 between sidecars. Where callers in clear are let in as well, a handshake that
/// offers this is one of the mesh, and any other is the application's own.
pub const MESH_ALPN: &[u8] = b"heddle-h2";
/// What a member offers, best first: another implementation of SPIFFE identities may speak plain HTTP/2.
pub const CALLER_ALPN: &[&[u8]] = &[MESH_ALPN, b"h2"];
/// What a member takes, best first.
pub const INBOUND_ALPN: &[&[u8]] = &[MESH_ALPN, b"h2", b"http/1.1"];
