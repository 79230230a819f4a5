//! HTTP/2 (RFC 9113) of both sides, over bytes alone: frames, header blocks and what they mean as messages. It knows no sockets and no time.

pub mod connection;
pub mod frame;
pub mod hpack;
pub mod message;
pub mod send;
pub mod stream_io;
pub mod wire;
