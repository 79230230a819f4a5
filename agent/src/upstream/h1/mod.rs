//! HTTP/1 towards endpoints: one request on one connection, which goes back to its pool only when the exchange was complete and clean.

mod body;
mod conn;
mod send;
mod try_once;

pub(super) use body::H1Body;
pub(super) use conn::{Conn, is_late};
pub(super) use try_once::{Answered, Rest, try_once};
