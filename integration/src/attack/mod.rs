//! What attack stories are made of: an origin that records and judges all that reaches it, raw clients, and raw HTTP/2 frames.

pub mod frames;
pub mod origin;
pub mod raw;
