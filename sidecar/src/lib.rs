//! The room of a sidecar's own life: injection, the admission webhook, capture of traffic, the process wrapper. No other crate sees it but the binary.

pub mod capture;
pub mod inject;
pub mod webhook;
pub mod wrapper;
