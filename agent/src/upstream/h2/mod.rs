//! HTTP/2 towards endpoints: many requests share a connection, a stream that ends early is reset, refused ones may be tried again.

mod body;
mod connect;
mod drive;
mod request;
mod send;
mod session;
mod trust;

pub(super) use connect::{Opened, connect};
pub(super) use request::send;
pub(super) use session::Sessions;
pub(super) use trust::Trust;
