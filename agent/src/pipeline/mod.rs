//! The life of a request between a connection and an endpoint: `http` reads top to bottom as that life.

mod edit;
mod finish;
mod forward;
mod headers;
mod http;
mod plan;
mod worker;

pub use http::Pipeline;
pub use worker::{Shared, Worker};
