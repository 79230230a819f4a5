//! The life of a request between a connection and an endpoint.

pub mod edit;
pub mod headers;
