//! Stories of TLS.
