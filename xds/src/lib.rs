//! The floor between control plane and data plane: the data-plane model, its snapshot and the xDS protocol. It knows neither user resources nor sockets of the data path.

pub mod catalog;
pub mod client;
pub mod codec;
pub mod dialect;
pub mod link;
pub mod model;
pub mod protocol;
pub mod server;
pub mod snapshot;
pub mod tree;
