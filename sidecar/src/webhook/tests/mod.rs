//! The webhook against questions as API servers send them, over TLS, and against an API server that only records.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod live;
mod reviews;
