//! HTTP towards Consul: what is asked for, TLS, exchanges. It knows nothing of what answers mean.

pub(super) mod query;
pub(super) mod tls;
pub(super) mod transport;
